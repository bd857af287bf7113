"""Where weights to start from are read: runs, shipped models, files and the Hub."""

import json

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from vitlab.config import Config, DataConfig, OptimConfig
from vitlab.errors import RunError
from vitlab.models import build_model
from vitlab.models.weights import load_weights
from vitlab.pretrained import shipped
from vitlab.pretrained.weights import read_class_names, read_weights
from vitlab.run import Run


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_run_gives_its_last_checkpoint_and_the_average_where_it_has_one(tmp_path, decay):
    with Run.lock(tmp_path):
        run = Run.create(tmp_path, Config(optim=OptimConfig(average_decay=decay)))
        for step in (1, 2):
            files = {
                f"{name}.safetensors": save({name: torch.tensor([step])})
                for name in ("model", "average")
            }
            run.write_checkpoint(step, files, {"step": step, "judged": {}})
    name = "average" if decay else "model"
    assert read_weights(str(tmp_path)) == {name: torch.tensor([2])}


def test_a_shipped_model_is_read_by_its_name():
    config = shipped("cpu").config
    report = load_weights(build_model(config), read_weights("cpu"))
    assert not report.missing and not report.skipped and not report.resized


def test_a_shipped_model_starts_one_for_other_images_and_classes():
    config = shipped("cpu-plain").config
    data = DataConfig(image_size=(24, 40), channels=1, classes=7)
    model = build_model(Config(data=data, model=config.model))
    report = load_weights(model, read_weights("cpu-plain"))
    assert set(report.skipped) == {"head.weight", "head.bias"}
    assert set(report.resized) == {"pos_embed.weight", "patch_embed.proj.weight"}
    assert model(torch.zeros(1, 1, 24, 40)).shape == (1, 7)


def test_a_file_and_a_folder_of_the_hubs_form_are_read(tmp_path):
    save_file({"head.bias": torch.ones(3)}, tmp_path / "model.safetensors")
    for source in (f"{tmp_path}/model.safetensors", f"hf:{tmp_path}"):
        assert torch.equal(read_weights(source)["head.bias"], torch.ones(3))


def test_class_names_are_read_where_a_source_says_them(tmp_path):
    assert read_class_names("cpu")[3] == "cat"
    assert read_class_names(str(shipped("cpu-plain").path))[3] == "cat"
    assert read_class_names(str(tmp_path / "model.safetensors")) is None
    assert read_class_names(f"hf:{tmp_path}") is None
    for names, read in (
        ({"1": "dog", "0": "cat"}, ("cat", "dog")),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None),  # how the transformers library says nothing
        ("cat, dog", None),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
        assert read_class_names(f"hf:{tmp_path}") == read


@pytest.mark.parametrize("part", [None, "model", "state_dict"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path, suffix, part):
    path = tmp_path / f"weights{suffix}"
    tensors = {"head.bias": torch.ones(3)}
    torch.save(tensors if part is None else {part: tensors}, path)
    with pytest.raises(RunError, match="is a pickle") as refusal:
        read_weights(str(path))
    _, _, code = str(refusal.value).partition("trust it: ")
    file = tmp_path / "weights.safetensors"
    code = code.replace("PATH", repr(str(path))).replace("'weights.safetensors'", repr(str(file)))
    if part is not None:
        assert f"['{part}']" in str(refusal.value)
        code = code.replace("weights_only=True)", f"weights_only=True)['{part}']")
    exec(code, {"torch": torch, "safetensors": __import__("safetensors.torch")})
    assert torch.equal(load_file(file)["head.bias"], torch.ones(3))


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of that form")
    for source, said in {
        "cpu-pain": r"shipped model \(cpu, cpu-cnn, cpu-plain\)",
        str(tmp_path): "is not a run",
        str(tmp_path / "gone.safetensors"): "does not exist",
        str(tmp_path / "broken.safetensors"): "is not a safetensors file",
        f"hf:{tmp_path}": "model.safetensors does not exist",
    }.items():
        with pytest.raises(RunError, match=said):
            read_weights(source)
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RunError, match="hf:nobody/nothing has no model"):
        read_weights("hf:nobody/nothing")

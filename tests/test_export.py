"""An exported model answers as its run does, says how that is known, or is not there."""

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vitlab
from vitlab import evaluate as evaluation
from vitlab.classifier import open_classifier
from vitlab.cli import main
from vitlab.config import CNN6Config, Config, DataConfig, ViTConfig
from vitlab.data import open_dataset
from vitlab.errors import RunError, VitlabError
from vitlab.export import Session, export, hub, parity, to_int8, to_onnx
from vitlab.export.timm import arguments, installed, read, tensors, write
from vitlab.files import Lock
from vitlab.models import build_model
from vitlab.models.weights import rename
from vitlab.pretrained import open_run
from vitlab.run import Run

DATA = DataConfig(image_size=(16, 16), channels=3, classes=10)
CONFIG = Config(
    data=DATA, model=ViTConfig(width=32, depth=2, heads=2, patch="whitened", pool="seqpool")
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[torch.nn.Module, np.ndarray, Path]:
    torch.manual_seed(0)
    model, images = build_model(CONFIG).eval(), torch.randn(64, 3, 16, 16)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    to_onnx(model, images, path, {"mean": "0.5,0.5,0.5"})
    return model, images.numpy(), path


@pytest.fixture(scope="module")
def trained(trained_on_digits, tmp_path_factory):
    """A finished run, evaluated on its validation images."""
    run = Run(shutil.copytree(trained_on_digits.path, tmp_path_factory.mktemp("trained") / "tiny"))
    evaluation.evaluate(run, pictures=False)
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run, free to be written."""
    return Run(shutil.copytree(trained.path, tmp_path / "runs" / "tiny"))


@pytest.fixture(scope="module")
def on_the_hub(trained):
    """The run, exported for the Hub."""
    found = export(trained, "hub")
    return Path(found["folder"]), found


@pytest.mark.parametrize("count", [1, 3, 64])
def test_onnx_answers_as_the_model_at_any_batch_size(exported, count):
    model, images, path = exported
    with torch.inference_mode():
        expected = model(torch.from_numpy(images[:count])).numpy()
    np.testing.assert_allclose(Session(path)(images[:count]), expected, atol=1e-4)
    assert Session(path).metadata == {"mean": "0.5,0.5,0.5"}


def test_int8_is_smaller_and_mostly_agrees(exported):
    model, images, path = exported
    small = path.with_name("int8.onnx")
    to_int8(path, small, images)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    found = Session(small)(images)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98
    assert b"QuantizeLinear" in small.read_bytes()


def test_int8_says_what_it_costs_and_still_knows_its_preprocessing(run, capsys):
    assert main(["export", str(run.path), "--to", "onnx-int8"]) == 0
    found = json.loads((run.exports / "onnx-int8" / "parity.json").read_text())
    assert found["of"] == "validation images" and found["images"] == 143
    validation = run.results["validation"]["accuracy"]
    assert found["accuracy"]["before"] == pytest.approx(validation)
    assert found["accuracy"]["after"] > validation - parity.LOSS
    assert f"{validation:.2%} before, {found['accuracy']['after']:.2%} after" in (
        capsys.readouterr().out
    )
    assert sorted(os.listdir(run.exports / "onnx-int8")) == [
        "detector.npz",
        "model.onnx",
        "parity.json",
    ]
    classifier = open_classifier(run.exports / "onnx-int8")
    assert classifier.class_names == tuple("0123456789") and classifier.calibrated


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11 of its loader
def test_torch_export_is_a_program_that_takes_any_batch(run):
    found = export(run, "torch")
    file = Path(found["folder"]) / "model.pt2"
    assert found["max_difference"] < 1e-5
    program = torch.export.load(file).module()
    assert program(torch.zeros(5, 1, 8, 8)).shape == (5, 10)


def test_without_its_data_set_an_export_says_what_it_was_compared_on(run, tmp_path):
    moved = run.config.to_dict()
    moved["data"]["dataset"] = str(tmp_path / "gone")
    (run.path / "config.json").write_text(json.dumps(moved))
    found = export(Run(run.path), "timm", tmp_path / "out")
    assert found["images"] == 1000 and "crops of the two photographs" in found["of"]
    assert "accuracy" not in found


def test_an_export_that_answers_differently_is_not_there_and_the_one_before_is(run, monkeypatch):
    export(run, "timm")
    before = (run.exports / "timm" / "parity.json").read_bytes()
    monkeypatch.setattr(parity, "TOLERANCE", -1.0)
    with pytest.raises(VitlabError, match=r"timm does not answer as tiny does, and was not writt"):
        export(run, "timm")
    assert (run.exports / "timm" / "parity.json").read_bytes() == before
    with pytest.raises(VitlabError, match="logits differ by up to"):
        export(run, "timm", run.path / "other")
    assert not (run.path / "other").exists() and not list(run.path.rglob("*.tmp"))


def test_a_folder_that_is_no_export_or_being_written_is_left_alone(run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(RunError, match="holds something that is no export"):
        export(run, "torch", tmp_path / "photos")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"):
        export(run, "torch", tmp_path / "file" / "out")
    assert (tmp_path / "photos" / "cat.png").exists()
    run.exports.mkdir()
    with Lock(run.exports / ".torch.lock"), pytest.raises(RunError, match="is being written by"):
        export(run, "torch")


PLAIN = {"width": 24, "depth": 2, "heads": 2, "patch_size": 4}
TIMM = {
    "cls": ViTConfig(**PLAIN),
    "position on cls": ViTConfig(**PLAIN, position_on_cls=True),
    "mean": ViTConfig(**PLAIN, pool="mean", cls_token=False),
    "registers": ViTConfig(**PLAIN, registers=3, pool="mean"),
    "registers, position on cls": ViTConfig(**PLAIN, registers=2, position_on_cls=True),
    "qk norm, scale": ViTConfig(**PLAIN, qk_norm=True, layer_scale=0.1, qkv_bias=False),
    "odd ratio": ViTConfig(**PLAIN, ffn_ratio=2.7),
}


@pytest.mark.parametrize("name", TIMM)
def test_timms_model_with_our_weights_gives_our_logits(name, tmp_path):
    if not installed():
        pytest.skip("timm is not installed here")
    config = Config(data=DataConfig(image_size=(16, 24), channels=3, classes=7), model=TIMM[name])
    model, images = scattered(config), torch.randn(5, 3, 16, 24)
    write(model, config, {"input_size": config.data.image_size}, tmp_path)
    theirs = read(tmp_path, config)
    assert type(theirs).__module__.startswith("timm")
    with torch.inference_mode():
        assert (theirs(images) - model(images)).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["cls", "position on cls", "mean", "registers"])
def test_our_reader_of_timms_names_gives_our_logits_too(name):
    config = Config(data=DATA, model=TIMM[name])
    model, again = scattered(config), build_model(config).eval()
    again.load_state_dict(rename(tensors(model, config.model)))
    images = torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(again(images), model(images))


def scattered(config: Config) -> torch.nn.Module:
    """A model none of whose weights is 0 or 1 by chance."""
    torch.manual_seed(0)
    model = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    "model, field",
    [
        (ViTConfig(norm="rms"), "model.norm='rms'"),
        (ViTConfig(patch="conv"), "model.patch='conv'"),
        (ViTConfig(pool="seqpool"), "model.pool='seqpool'"),
        (ViTConfig(position="rope"), "model.position='rope'"),
        (ViTConfig(lsa=True), "model.lsa=True"),
        (CNN6Config(), "model.kind='cnn6'"),
        (ViTConfig(patch_size=5, pad_to_patch=True), "model.pad_to_patch=True"),
    ],
)
def test_what_timm_does_not_have_is_named(model, field):
    config = Config(data=DATA, model=model)
    with pytest.raises(VitlabError, match=f"^{field} has no equivalent in timm"):
        arguments(config, DATA.image_size)


def test_the_hub_folder_holds_weights_config_onnx_and_a_card_of_real_numbers(trained, on_the_hub):
    folder, found = on_the_hub
    weights = ["model.onnx", "model.safetensors"]
    expected = ["README.md", "config.json", "detector.npz", *weights, "parity.json"]
    assert sorted(os.listdir(folder)) == expected
    assert found["files"]["model.safetensors"]["max_difference"] < 1e-5
    card = (folder / "README.md").read_text()
    validation = trained.results["validation"]
    assert f"| validation accuracy | {100 * validation['accuracy']:.2f} % (" in card
    assert "| test accuracy | not measured |" in card
    library = pytest.importorskip("huggingface_hub")
    read = library.ModelCard.load(folder / "README.md").data
    assert [one.metric_value for one in read.eval_results] == [validation["accuracy"]]
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"]["3"] == "3" and Config.from_dict(config["vitlab"])
    weights = load_file(trained.checkpoint().model)
    assert load_file(folder / "model.safetensors").keys() == weights.keys()
    assert open_classifier(folder).card == vitlab.load(trained).card


def test_an_onnx_file_of_an_earlier_version_is_still_read(on_the_hub, tmp_path):
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(on_the_hub[0] / "model.onnx")
    stored = [one for one in proto.metadata_props if one.key != "max_pixels"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(stored)
    onnx.save(proto, tmp_path / "old.onnx")
    old, new = open_classifier(tmp_path / "old.onnx"), open_classifier(on_the_hub[0])
    assert old.preprocessing == new.preprocessing and old.class_names == new.class_names


def test_weights_of_the_hub_folder_start_a_training(trained, on_the_hub, tmp_path):
    config = trained.config.override({"train.epochs": 1, "train.weights": f"hf:{on_the_hub[0]}"})
    run = vitlab.train(config, out=tmp_path, name="on", device="cpu", quiet=True)
    assert run.finished["validation"]["accuracy"] > 0.2


def test_no_folder_of_the_user_is_published(run, tmp_path):
    changed = run.config.to_dict()
    changed["data"]["dataset"] = str(tmp_path / "secret" / "photos")
    (run.path / "config.json").write_text(json.dumps(changed))
    model, folder = vitlab.load(run.path, device="cpu"), tmp_path / "out"
    folder.mkdir()
    assert model.card["dataset"] == "photos"
    hub.write(model, folder)
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file


def test_nothing_is_uploaded_without_a_token(on_the_hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(VitlabError, match="not uploaded: there is no token"):
        hub.push(on_the_hub[0], "me/tiny")
    assert main(["export", "cpu", "--to", "onnx", "--push", "me/tiny"]) == 2


class Refusing(BaseHTTPRequestHandler):
    """A Hub that refuses every request and records it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers["Authorization"], json.loads(body)))
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_the_upload_asks_for_a_private_model_with_the_users_token(on_the_hub, monkeypatch):
    library = pytest.importorskip("huggingface_hub")
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    api = library.HfApi
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(library, "HfApi", lambda token: api(endpoint=address, token=token))
    monkeypatch.setattr(library, "get_token", lambda: "hf_mine")
    try:
        with pytest.raises(VitlabError, match=r"is written, but me/tiny was not uploaded: .*401"):
            hub.push(on_the_hub[0], "me/tiny")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    path, token, request = server.requests[0]
    assert path == "/api/repos/create" and token == "Bearer hf_mine"
    assert request["name"] == "tiny" and request["visibility"] == "private", request


@pytest.mark.slow
def test_the_shipped_model_loses_nothing_on_real_images(cifar10, tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_RUNS", str(tmp_path))
    run = open_run("cpu")
    examples = open_dataset(run.config.data, root=cifar10).examples
    places = run.split.index[1][:2000]
    images, labels = examples.images[places], examples.labels[places]

    def accuracy(classifier) -> float:
        return float((classifier.logits(images).argmax(axis=1) == labels).mean())

    before = accuracy(vitlab.load(run))
    folder = export(run, "onnx", data_root=cifar10)["folder"]
    assert abs(accuracy(open_classifier(folder)) - before) <= 0.002
    # One image in sixty changes its class in int8: it takes all 5,000 to see two tenths of a point.
    rounded = export(run, "onnx-int8", data_root=cifar10)
    assert rounded["images"] == 5000
    assert abs(rounded["accuracy"]["after"] - rounded["accuracy"]["before"]) <= 0.002

"""A model classifies pictures exactly as evaluation does, by torch and by ONNX Runtime."""

import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vitlab
from vitlab import classifier as module
from vitlab import evaluate as evaluation
from vitlab import inference
from vitlab.classifier import is_source, open_classifier
from vitlab.data import open_dataset
from vitlab.data.folder import Folder
from vitlab.data.images import read
from vitlab.data.labelled import key_of
from vitlab.errors import DataError, RunError, VitlabError
from vitlab.export import export
from vitlab.files import sha256, write_json
from vitlab.inference import Prediction
from vitlab.metrics import log_softmax
from vitlab.pretrained import shipped
from vitlab.run import Run


def picture(path: Path, place: int, bright: bool) -> None:
    """Store a picture of a size and a mode of its own."""
    rng = np.random.default_rng(place)
    height, width = rng.integers(9, 40, 2)
    pixels = rng.integers(0, 120, (height, width, 4), np.uint8) + 110 * bright
    mode = ("RGB", "RGBA", "L", "LA", "P", "I;16", "CMYK")[place % 7]
    image = Image.fromarray(pixels.astype(np.uint8), "RGBA")
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode == "CMYK":
        turned = Image.Exif()
        turned[0x0112] = 6
        image.convert("RGB").convert("CMYK").save(path.with_suffix(".jpg"), exif=turned)
        return
    else:
        image = image.convert("RGB").convert(mode) if mode in "LP" else image.convert(mode)
    image.save(path.with_suffix(".png"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on pictures of every size and mode, evaluated on its 14 validation images."""
    photos = tmp_path_factory.mktemp("photos")
    for name in ("dark", "bright"):
        for split, count in (("train", 28), ("test", 2)):
            (photos / split / name).mkdir(parents=True)
            for place in range(count):
                picture(photos / split / name / f"{place:02d}", place, name == "bright")
    config = vitlab.recipe("digits").override(
        {
            "data.dataset": str(photos),
            "data.image_size": (12, 16),
            "data.channels": 3,
            "data.fit": "pad",
            "data.validation_fraction": 0.25,
            "model.patch_size": 4,
            "model.width": 16,
            "model.depth": 1,
            "model.heads": 2,
            "optim.warmup_epochs": 0,
            "train.epochs": 1,
        }
    )
    out = tmp_path_factory.mktemp("runs")
    run = vitlab.train(config, out=out, name="photos", device="cpu", quiet=True)
    with entering() as images:
        evaluation.evaluate(run, pictures=False)
    run.entered = torch.cat(images)[:14]
    return run


@contextmanager
def entering() -> Iterator[list[torch.Tensor]]:
    """All that enters the models that are opened meanwhile."""
    entered = []

    def watch(*arguments):
        model = opened(*arguments)
        model.register_forward_pre_hook(lambda _, images: entered.append(images[0].clone()))
        return model

    opened = inference.open_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "open_model", watch)
        yield entered


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the finished run, free to be written."""
    shutil.copytree(trained.path, tmp_path / "runs" / "photos")
    return Run(tmp_path / "runs" / "photos")


@pytest.fixture(scope="module")
def onnx(trained) -> inference.Classifier:
    """The run, opened in ONNX Runtime."""
    return open_classifier(trained, "onnx")


def validation_files(run: Run) -> list[Path]:
    """The files that are the run's validation images, in order."""
    data = run.config.data
    files = Folder(Path(data.dataset)).files("train")
    examples = open_dataset(data).examples
    keys = {key_of(read(file, data.image_size)): file for file in files}
    return [keys[key] for key in examples.keys[examples.split(data)[1]].tolist()]


def test_what_enters_the_model_is_bit_for_bit_what_evaluation_used(trained, onnx, monkeypatch):
    files = validation_files(trained)
    with entering() as images:
        vitlab.load(trained, device="cpu").logits([str(files[0]), *files[1:]])
    assert torch.equal(torch.cat(images), trained.entered)
    assert trained.entered.shape == (14, 3, 12, 16)
    images = []

    def watch(self, batch):
        images.append(torch.from_numpy(batch))
        return session(self, batch)

    session = module.Session.outputs
    monkeypatch.setattr(module.Session, "outputs", watch)
    onnx.logits([file.read_bytes() for file in files])
    assert torch.equal(torch.cat(images), trained.entered)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_answers_are_those_of_evaluation(trained, engine):
    classifier = open_classifier(trained, engine)
    images = validation_files(trained)
    with np.load(trained.predictions("validation")) as stored:
        expected = stored["logits"]
    assert classifier.engine == engine
    np.testing.assert_allclose(classifier.logits(images), expected, atol=1e-5)
    fitted = trained.results["validation"]["temperature"]
    assert classifier.temperature == fitted != 1
    np.testing.assert_allclose(
        classifier.probabilities(images), np.exp(log_softmax(expected / fitted)), atol=1e-6
    )


def test_a_temperature_of_few_images_is_said_to_be_one(run):
    (note,) = vitlab.load(run).notes
    assert note.startswith("calibrated on 14 validation images only")
    assert run.results["validation"]["temperature_images"] == 14
    assert vitlab.load("cpu").notes == ()  # on 5,000


def test_without_a_result_of_these_weights_a_model_is_not_calibrated(run):
    results = run.results
    results["validation"]["checkpoint_sha256"] = "0" * 64
    run.write_results(results)
    model = vitlab.load(run)
    assert model.temperature == 1 and not model.calibrated
    assert "not calibrated" in model.notes[-1] and "`vitlab evaluate` does it" in model.notes[-1]
    assert "was not measured" in model.introduction
    assert model.card["validation_accuracy"] is None


def test_a_way_to_calibrate_is_named_only_where_there_is_one(run):
    (run.path / "results.json").unlink()
    shutil.rmtree(run.exports, ignore_errors=True)
    alone, again = run.path / "alone", run.path / "again"
    export(run, "onnx", out=alone)
    assert "of its run does it, and then another export" in open_classifier(alone).notes[-1]
    evaluation.evaluate(run, pictures=False)
    assert vitlab.load(run).calibrated
    export(run, "onnx", out=again)
    assert open_classifier(again).calibrated
    (run.path / "results.json").unlink()
    everything = run.config.override({"data.validation_fraction": 0.0})
    write_json(run.path / "config.json", everything.to_dict())
    assert "none is left for it" in vitlab.load(run.path).notes[-1]


def test_a_run_is_exported_once_and_again_when_the_export_is_damaged(run):
    file = open_classifier(run, "onnx").run.exports / "onnx" / "model.onnx"
    before = file.stat().st_mtime_ns
    assert open_classifier(run).engine == "onnx"
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:-100])
    images = np.zeros((1, 12, 16, 3), np.uint8)
    np.testing.assert_allclose(
        open_classifier(run).logits(images), open_classifier(run, "torch").logits(images), atol=1e-5
    )
    assert file.stat().st_mtime_ns != before


def test_an_export_alone_answers_as_its_run_does(trained, onnx, tmp_path):
    folder = tmp_path / "elsewhere"
    shutil.copytree(trained.exports / "onnx", folder)
    for source in (folder, folder / "model.onnx"):
        classifier = open_classifier(source)
        assert classifier.run is None and classifier.name == "photos"
        assert classifier.preprocessing == onnx.preprocessing and classifier.card == onnx.card
        images = np.full((2, 12, 16, 3), 90, np.uint8)
        np.testing.assert_array_equal(classifier.logits(images), onnx.logits(images))


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_threads_get_their_own_answers(trained, engine):
    classifier = open_classifier(trained, engine)
    images = np.random.default_rng(0).integers(0, 256, (64, 1, 12, 16, 3), np.uint8)
    alone = [classifier.probabilities(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(classifier.probabilities, images))
    np.testing.assert_allclose(together, alone, atol=1e-6)
    batch = classifier.probabilities(images[:, 0])
    np.testing.assert_allclose(batch, np.concatenate(alone), atol=1e-6)


def test_the_answer_names_the_likeliest_classes_first(onnx):
    answer = onnx.answer(Prediction(np.array([0.08, 0.92]), 1.0, 0.5), top=3)
    assert answer == {
        "top": [{"class": "dark", "probability": 0.92}, {"class": "bright", "probability": 0.08}],
        "certainty": "sure",
        "unknown": False,
    }
    less = Prediction(np.array([0.8, 0.2]), 1.0, 0.5)
    assert onnx.answer(less, top=1)["certainty"] == "fairly sure"


def test_the_shipped_models_answer_without_a_run_and_are_calibrated(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    default = open_classifier(engine="torch")
    assert default.name == "cpu" and default.class_names[3] == "cat"
    assert default.card["test_accuracy"] > 0.85
    accuracy = shipped("cpu").results["test"]["accuracy"]
    assert f"right on {accuracy:.1%} of 10,000 test images of cifar10" in default.introduction
    for name in ("cpu", "cpu-plain", "cpu-cnn"):
        assert open_classifier(name, "torch").calibrated
    assert not list(tmp_path.iterdir()), "only reading a shipped model copies nothing"


def test_without_onnx_runtime_torch_answers_and_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    classifier = open_classifier(run)
    assert classifier.engine == "torch" and "not installed" in classifier.notes[0]
    with pytest.raises(VitlabError, match=r"pip install 'vitlab\[export\]'"):
        open_classifier(run, "onnx")


def test_where_nothing_can_be_written_torch_answers_and_says_so(run):
    shutil.rmtree(run.exports, ignore_errors=True)
    run.exports.touch()
    classifier = open_classifier(run)
    assert classifier.engine == "torch" and "cannot write" in classifier.notes[0]
    with pytest.raises(RunError, match="cannot write"):
        open_classifier(run, "onnx")


def test_arrays_that_are_no_images_are_refused_with_what_helps(onnx):
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), np.uint8)
    with pytest.raises(DataError, match=r"expected uint8 \(N, H, W, 3\)"):
        onnx.logits(images[..., :1])
    for given, code in (
        (images / 255, "(images * 255).round().astype(np.uint8)"),
        (images.transpose(0, 3, 1, 2), "images.transpose(0, 2, 3, 1)"),
    ):
        with pytest.raises(DataError) as refusal:
            onnx.logits(given)
        assert code in str(refusal.value)
        answer = onnx.logits(eval(code, {"images": given, "np": np}))
        np.testing.assert_allclose(answer, onnx.logits(images), atol=1e-5)


def test_weights_that_have_diverged_give_no_answer(run):
    file = run.checkpoint().model
    weights = load_file(file)
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}, file)
    manifest = file.parent / "manifest.json"
    entries = json.loads(manifest.read_text())
    entries[file.name]["sha256"] = sha256(file)
    write_json(manifest, entries)
    with pytest.raises(VitlabError, match="not finite"):
        vitlab.load(run).probabilities(np.zeros((1, 12, 16, 3), np.uint8))


def test_what_is_no_model_of_ours_is_one_clear_error(tmp_path, trained):
    with pytest.raises(RunError, match="not a run"):
        open_classifier(tmp_path)
    with pytest.raises(RunError, match="does not exist"):
        open_classifier(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(RunError, match="cannot be opened in ONNX Runtime"):
        open_classifier(tmp_path / "text.onnx")
    import onnx

    proto = onnx.load(open_classifier(trained, "onnx").run.exports / "onnx" / "model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(RunError, match="not written by `vitlab export`"):
        open_classifier(tmp_path / "foreign.onnx")


def test_a_name_means_a_model_unless_a_file_is_called_like_it(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_source(str(trained.path)) and is_source("cpu") and is_source("model.onnx")
    assert not is_source("cat.png") and not is_source(str(tmp_path))
    (tmp_path / "cpu").mkdir()
    assert not is_source("cpu")

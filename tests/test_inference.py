"""A trained model from Python: `vitlab.load`, what it takes, and what it says of pictures."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitlab
from vitlab.data import open_dataset
from vitlab.errors import DataError, RunError


@pytest.fixture(scope="module")
def model(trained_on_digits):
    return vitlab.load(trained_on_digits, device="cpu")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A grey picture twice as wide as high, as a file and as an array (H, W, 1)."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 14), np.uint8)
    path = tmp_path_factory.mktemp("photo") / "a.png"
    Image.fromarray(pixels).save(path)
    return path, pixels[..., None]


def test_a_shipped_model_is_opened_by_its_name_and_classifies_a_picture(photo):
    model = vitlab.load("cpu-plain", device="cpu")
    assert isinstance(model, vitlab.TrainedModel) and model.class_names[3] == "cat"
    (answer,) = model.classify(photo[0], top=2)
    assert [one["class"] in model.class_names for one in answer["top"]] == [True, True]
    assert answer["certainty"] in ("sure", "fairly sure", "unsure")
    assert np.array_equal(model.logits(photo[0]), model.logits([photo[0].read_bytes()]))
    with pytest.raises(RunError, match="not a run"):
        vitlab.load("cpu-plane")


def test_files_and_arrays_of_any_size_become_the_same_images(model, photo):
    path, pixels = photo
    images = model.preprocessing.images([path, str(path), path.read_bytes(), pixels, pixels[None]])
    assert images.shape == (5, 8, 8, 1) and images.dtype == np.uint8
    assert (images == images[0]).all()
    entering = model.prepare(pixels)
    assert entering.shape == (1, 1, 8, 8)
    form = model.preprocessing
    expected = (torch.from_numpy(images[:1, ..., 0]) / 255 - form.mean[0]) / form.std[0]
    torch.testing.assert_close(entering[:, 0], expected)
    assert np.array_equal(model.logits(pixels), vitlab.predict(model.run, pixels, device="cpu"))


def test_probabilities_are_those_of_the_logits_at_the_temperature(model, trained_on_digits):
    images = open_dataset(trained_on_digits.config.data).examples.images[:5]
    logits = model.logits(images)
    expected = torch.from_numpy(logits).double().div(model.temperature).softmax(dim=1).numpy()
    np.testing.assert_allclose(model.probabilities(images), expected, atol=1e-12)
    best = [one["top"][0]["class"] for one in model.classify(images)]
    assert best == [model.class_names[k] for k in logits.argmax(axis=1)]


def test_a_trace_holds_every_layer_and_ends_in_the_logits(model):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    layers, logits = model.trace(images)
    assert next(iter(layers)) == "patches" and layers["block01"].shape == (3, 17, 16)
    np.testing.assert_allclose(logits.numpy(), model.logits(images), atol=1e-4)
    assert not model.module.training and not logits.requires_grad


def test_what_is_no_picture_is_refused(model, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for pictures, reason in (
        (tmp_path / "text.png", "not a PNG, JPEG or WebP image"),
        ([], "there are no pictures"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"expected uint8 \(N, H, W, 1\)"),
        (np.zeros((2, 8, 8, 1)), "give uint8 of 0 to 255"),
    ):
        with pytest.raises(DataError, match=reason):
            model.logits(pictures)


def test_the_public_names_are_listed_and_completed_before_any_of_them_is_loaded():
    code = (
        "import rlcompleter, sys, vitlab\n"
        "assert set(vitlab.__all__) <= set(dir(vitlab))\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "completer = rlcompleter.Completer({'vitlab': vitlab})\n"
        "offered = {completer.complete('vitlab.', n) for n in range(len(vitlab.__all__))}\n"
        "assert offered == {f'vitlab.{name}(' for name in vitlab.__all__}, offered\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_that_takes_a_run_takes_the_name_of_a_shipped_model(
    tmp_path, monkeypatch
):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cpu-plain").mkdir()  # a folder of that name without a run in it
    named, run = vitlab.load("cpu-plain", device="cpu"), vitlab.Run("cpu-plain")
    assert run.name == "cpu-plain" and run.finished
    expected = named.logits(images)
    for one in ("cpu-plain", Path("cpu-plain"), run):
        assert np.array_equal(vitlab.predict(one, images, device="cpu"), expected)
    with pytest.raises(RunError, match="Models that ship are cpu, cpu-cnn, cpu-plain"):
        vitlab.Run("cpu-plane")


def test_a_run_in_the_folder_comes_before_the_shipped_model_of_its_name(
    trained_on_digits, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_on_digits.path, "cpu-plain")
    assert vitlab.Run("cpu-plain").config.data.dataset == "digits"
    assert vitlab.load("cpu-plain", device="cpu").class_names[3] == "3"

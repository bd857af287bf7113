"""A trained model from Python: `vitlab.load`, what it takes, and what it says of pictures."""

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


def test_the_public_names_are_listed():
    assert {"load", "TrainedModel", "predict", "train"} <= set(dir(vitlab))
    assert all(getattr(vitlab, name) for name in vitlab.__all__)

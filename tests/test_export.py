"""An exported model answers as the model it came from, at any batch size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vitlab.config import Config, DataConfig, ViTConfig
from vitlab.export import Session, to_int8, to_onnx
from vitlab.models import build_model

CONFIG = Config(
    data=DataConfig(image_size=(16, 16), channels=3, classes=10),
    model=ViTConfig(width=32, depth=2, heads=2, patch="whitened", pool="seqpool"),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[torch.nn.Module, np.ndarray, Path]:
    torch.manual_seed(0)
    model, images = build_model(CONFIG).eval(), torch.randn(64, 3, 16, 16)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    to_onnx(model, images, path, {"mean": "0.5,0.5,0.5"})
    return model, images.numpy(), path


@pytest.mark.parametrize("count", [1, 3, 64])
def test_onnx_answers_as_the_model_at_any_batch_size(exported, count):
    model, images, path = exported
    with torch.inference_mode():
        expected = model(torch.from_numpy(images[:count])).numpy()
    np.testing.assert_allclose(Session(path)(images[:count]), expected, atol=1e-4)


def test_metadata_travels_with_the_file(exported):
    import onnx

    stored = {each.key: each.value for each in onnx.load(exported[2]).metadata_props}
    assert stored == {"mean": "0.5,0.5,0.5"}


def test_int8_is_smaller_and_mostly_agrees(exported):
    model, images, path = exported
    small = path.with_name("int8.onnx")
    to_int8(path, small, images)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    found = Session(small)(images)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98
    assert b"QuantizeLinear" in small.read_bytes()

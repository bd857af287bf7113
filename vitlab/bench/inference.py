"""One image on the CPU: eager, compiled, ONNX Runtime and int8, with the accuracy each keeps."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vitlab.bench.measure import interleaved, spread
from vitlab.config import Config
from vitlab.data import open_dataset
from vitlab.device import autocast
from vitlab.export import Session, to_int8, to_onnx
from vitlab.inference import load
from vitlab.models import build_model
from vitlab.models.attention import set_attention_backend
from vitlab.run import Run

CALIBRATION_IMAGES = 512
BATCH = 64
"""Images a call where throughput is measured."""

Answer = Callable[[np.ndarray], np.ndarray]
"""Normalised images (B, C, H, W) -> logits (B, K)."""


def inference(config: Config, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure the forward pass of one architecture on the CPU, at batch 1 and in batches.

    Returns:
        {"latency_ms": {path: {median, lowest, highest}}, "images_per_second": {...},
        "ratios": {path: times faster than eager at batch 1}, "threads", "missing"}
    """
    size, channels = config.data.image_size, config.data.channels
    assert size is not None and channels is not None
    model = build_model(config).eval()
    noise = torch.randn(CALIBRATION_IMAGES, channels, *size).numpy()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths, missing = export_paths(model, noise, Path(folder))
        one, many = (
            interleaved(
                {name: partial(path, noise[:count]) for name, path in paths.items()},
                device=torch.device("cpu"),
                rounds=rounds,
                seconds=seconds,
            )
            for count in (1, BATCH)
        )
    return {
        "threads": torch.get_num_threads(),
        "missing": missing,
        "latency_ms": {name: spread(1e3 * s for s in t.seconds) for name, t in one.items()},
        "images_per_second": {name: timing.rate(BATCH) for name, timing in many.items()},
        "ratios": {n: timing.ratio(one["eager"]) for n, timing in one.items() if n != "eager"},
    }


def accuracy(run: Run, data_root: str | None) -> dict[str, Any]:
    """Measure what each path to a run's answers keeps of its validation accuracy.

    Returns:
        {"run", "checkpoint_sha256", "images", "accuracy": {path: share of validation images
        classified correctly}}
    """
    dataset = open_dataset(run.config.data, root=data_root)
    examples, (train, validation) = dataset.examples, dataset.split
    model = load(run, device="cpu")

    def prepared(index: np.ndarray) -> np.ndarray:
        return model.prepare(examples.images[index]).numpy()

    def computed(attention: str, precision: str, images: np.ndarray) -> np.ndarray:
        set_attention_backend(model.module, attention)
        with autocast(model.device, precision):
            return model.module(torch.from_numpy(images)).float().numpy()

    some = np.random.default_rng(0).permutation(train)[:CALIBRATION_IMAGES]
    images, labels = prepared(validation), examples.labels[validation]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths, _ = export_paths(model.module, prepared(np.sort(some)), Path(folder))
        paths.pop("compiled", None)  # the same arithmetic as eager, after a minute of compiling
        paths |= {
            "eager, explicit attention": partial(computed, "explicit", "fp32"),
            "eager, bf16": partial(computed, "explicit", "bf16"),
        }
        starts = range(0, len(images), BATCH)
        answers = {
            name: np.concatenate([path(images[s : s + BATCH]).argmax(1) for s in starts])
            for name, path in paths.items()
        }
    return {
        "run": run.name,
        "checkpoint_sha256": run.checkpoint().sha256,
        "images": len(labels),
        "accuracy": {name: float((found == labels).mean()) for name, found in answers.items()},
    }


def export_paths(
    model: nn.Module, calibration: np.ndarray, folder: Path
) -> tuple[dict[str, Answer], dict[str, str]]:
    """The ways from images to logits, and why one is missing."""

    def through(module: Callable[..., torch.Tensor]) -> Answer:
        return lambda images: module(torch.from_numpy(images)).numpy()

    plain, small = folder / "model.onnx", folder / "int8.onnx"
    with torch.inference_mode(False), torch.no_grad():
        to_onnx(model, torch.from_numpy(calibration[:2]), plain)
    to_int8(plain, small, calibration)
    found, missing = {"eager": through(model)}, {}
    compiled = through(torch.compile(model))
    try:
        compiled(calibration[:1])
        found["compiled"] = compiled
    except Exception as error:
        missing["compiled"] = f"torch.compile does not work here: {type(error).__name__}"
    for name, file in (("ONNX Runtime", plain), ("ONNX Runtime, int8", small)):
        found[name] = Session(file, torch.get_num_threads())
    return found, missing

"""One image on the CPU: eager, compiled, ONNX Runtime and int8, with the accuracy each keeps."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vitlab.bench.measure import interleaved
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


def inference(config: Config, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure the forward pass of one architecture on the CPU, at batch 1 and in batches.

    Returns:
        {"latency_ms": {path: {median, lowest, highest}}, "images_per_second": {...},
        "ratios": {path: times faster than eager at batch 1}, "threads"}
    """
    size, channels = config.data.image_size, config.data.channels
    assert size is not None and channels is not None
    model = build_model(config).eval()
    noise = torch.randn(CALIBRATION_IMAGES, channels, *size)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths, absent = ways(model, noise.numpy(), Path(folder))
        device = torch.device("cpu")
        timings = {}
        for count in (1, BATCH):
            calls = {name: partial(path, noise[:count].numpy()) for name, path in paths.items()}
            timings[count] = interleaved(calls, device=device, rounds=rounds, seconds=seconds)
    one, many = timings[1], timings[BATCH]
    return {
        "threads": torch.get_num_threads(),
        "missing": absent,
        "latency_ms": {
            name: {
                "median": 1e3 * timing.median,
                "lowest": 1e3 * min(timing.seconds),
                "highest": 1e3 * max(timing.seconds),
            }
            for name, timing in one.items()
        },
        "images_per_second": {name: timing.rate(BATCH) for name, timing in many.items()},
        "ratios": {
            name: timing.ratio(one["eager"]) for name, timing in one.items() if name != "eager"
        },
    }


def accuracy(run: Run, data_root: str | None) -> dict[str, Any]:
    """Measure what each path to a run's answers keeps of its validation accuracy.

    Returns:
        {"images", "accuracy": {path: share of validation images classified correctly}}
    """
    dataset = open_dataset(run.config.data, root=data_root)
    examples, (train, validation) = dataset.examples, dataset.split
    model = load(run, device="cpu")

    def prepared(index: np.ndarray) -> np.ndarray:
        return model.prepare(examples.images[index]).numpy()

    def computed(attention: str, precision: str):
        def path(images: np.ndarray) -> np.ndarray:
            set_attention_backend(model.module, attention)
            with autocast(model.device, precision):
                return model.module(torch.from_numpy(images)).float().numpy()

        return path

    some = np.random.default_rng(0).permutation(train)[:CALIBRATION_IMAGES]
    images, labels = prepared(validation), examples.labels[validation]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths, _ = ways(model.module, prepared(np.sort(some)), Path(folder))
        paths |= {
            "eager, explicit attention": computed("explicit", "fp32"),
            "eager, bf16": computed("explicit", "bf16"),
        }
        starts = range(0, len(images), BATCH)
        answers = {
            name: np.concatenate([path(images[s : s + BATCH]).argmax(1) for s in starts])
            for name, path in paths.items()
            if name != "compiled"  # the same arithmetic as eager, after a minute of compiling
        }
    return {
        "run": run.name,
        "images": len(labels),
        "accuracy": {name: float((found == labels).mean()) for name, found in answers.items()},
    }


def ways(model: nn.Module, calibration: np.ndarray, folder: Path) -> tuple[dict[str, Any], dict]:
    """The paths from normalised images (B, C, H, W) to logits (B, K), numpy in and out."""

    def through(module: nn.Module):
        return lambda images: module(torch.from_numpy(images)).numpy()

    plain, small = folder / "model.onnx", folder / "int8.onnx"
    with torch.inference_mode(False), torch.no_grad():
        to_onnx(model, torch.from_numpy(calibration[:2]), plain)
    to_int8(plain, small, calibration)
    threads = torch.get_num_threads()
    found: dict[str, Any] = {"eager": through(model)}
    absent = {}
    compiled = through(torch.compile(model))  # type: ignore[arg-type]
    try:
        compiled(calibration[:1])
        found["compiled"] = compiled
    except Exception as error:
        absent["compiled"] = f"torch.compile does not work here: {type(error).__name__}"
    found["ONNX Runtime"] = Session(plain, threads)
    found["ONNX Runtime, int8"] = Session(small, threads)
    return found, absent

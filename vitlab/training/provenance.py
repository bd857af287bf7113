"""Where a run comes from and what it took: what a reader needs to trust it."""

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
from vitlab.data import index_sha256
from vitlab.device import Choice
from vitlab.models.cost import cost
from vitlab.run import TRAINED, VALIDATED, Run, SplitRecord
from vitlab.training.setup import TrainingSetup


def provenance_of(setup: TrainingSetup, command: str | None) -> dict[str, Any]:
    """What provenance.json holds: no user, host or home folder."""
    examples, (train_index, validation_index) = setup.dataset.examples, setup.dataset.split
    weights = setup.weights
    record = {
        "command": command,
        "vitlab": vitlab.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(setup.device),
        "device_type": setup.device.type,
        "threads": torch.get_num_threads(),
        "processes": setup.group.world_size,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{name: choice._asdict() for name, choice in setup.settings._asdict().items()},
        "trial": {", ".join(tried): speed for tried, speed in setup.trial.items()},
        "compilation": setup.compilation._asdict(),
        "determinism": determinism(setup)._asdict(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": {
            "fingerprint": examples.fingerprint,
            "class_names": list(examples.class_names),
            "mean": list(setup.mean),
            "std": list(setup.std),
            "train_images": len(setup.images),
            "validation_images": len(setup.validation),
            "skipped_images": examples.skipped,
            "grey_range": examples.grey_range,
            "validation_seen": weights.validation_seen if weights else 0,
            "split_sha256": {
                "train": index_sha256(train_index),
                "validation": index_sha256(validation_index),
            },
        },
    }
    if weights is not None and weights.report is not None:
        record["weights"] = {
            "source": weights.source,
            "sha256": weights.sha256,
            "report": asdict(weights.report),
        }
    return record


def split_record(setup: TrainingSetup) -> SplitRecord:
    """What split.npz holds."""
    part = np.zeros(len(setup.dataset.examples.labels), np.uint8)
    for number, index in zip((TRAINED, VALIDATED), setup.dataset.split, strict=True):
        part[index] = number
    before = np.empty(0, np.uint64) if setup.weights is None else setup.weights.trained_keys
    return SplitRecord(setup.dataset.examples.keys, part, before)


def final_numbers(setup: TrainingSetup, reason: str | None, teacher: Run | None) -> dict[str, Any]:
    """What finished.json holds.

    Args:
        setup: after the last step.
        reason: why the training ended before its last step, if it did.
        teacher: the run that taught it; its cost is counted.
    """
    config, state = setup.config, setup.state
    whole = cost(config)
    epochs = config.train.epochs if reason is None else state.step / setup.batches.steps_per_epoch
    early = {"stopped": {"reason": reason, "planned_epochs": config.train.epochs}}
    return {
        "step": state.step,
        "epochs": epochs,
        **(early if reason else {}),
        **state.evaluation,
        "best": state.best,
        "parameters": whole.parameters,
        "macs": whole.macs,
        "megabytes": whole.parameters * 4 / 1e6,
        "images_per_second": state.step * config.train.batch_size / state.clock.steps,
        "seconds_per_epoch": state.clock.steps / epochs,
        "seconds_per_step": state.clock.steps / state.step,
        "clock": _clocks(setup, teacher),
        "peak_memory_bytes": peak_memory(setup.device),
        "alarms": state.alarms,
    }


def _clocks(setup: TrainingSetup, teacher: Run | None) -> dict[str, Any]:
    """What a run cost, its teacher's training included."""
    clock, group = setup.state.clock, setup.group
    process = group.all_reduce_sum(torch.tensor(clock.process, dtype=torch.float64))
    total: dict[str, Any] = {
        "wall_seconds": clock.wall,
        "process_seconds": process.item(),
        "preparation_seconds": clock.preparation,
        "step_seconds": clock.steps,
        "capture_seconds": clock.capture,
    }
    # The counters of other processes' chips are not read.
    if clock.joules is not None and group.world_size == 1:
        total["joules"] = clock.joules
    if teacher is None:
        return total
    assert teacher.finished is not None
    theirs = teacher.finished["clock"]
    both = {name: total[name] + theirs[name] for name in total if name in theirs}
    return {**both, "teacher": theirs}


def determinism(setup: TrainingSetup) -> Choice:
    """Whether the run repeats itself bit by bit, and why."""
    if setup.device.type == "cpu":
        return Choice("on", "a CPU at a fixed number of threads repeats itself bit by bit")
    if setup.config.train.deterministic:
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
    describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        found = subprocess.run(describe, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def device_name(device: torch.device) -> str:
    """The hardware behind a device, as its maker calls it."""
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

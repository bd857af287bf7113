"""Three small trained models that come with vitlab, each a run of the recipe of its name.

    cpu         the small ViT behind a convolutional stem
    cpu-plain   the plain ViT with a CLS token
    cpu-cnn     the small ResNet-18 that stands beside them

Weights are stored in half precision and the optimiser is left out, so they can be evaluated,
explained and compared, but not trained further in place. Their cards are their README.md.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from vitlab.errors import RunError
from vitlab.fields import unknown
from vitlab.run import PRETRAINED as FOLDER
from vitlab.run import Run
from vitlab.run import shipped_names as names


def shipped(name: str) -> Run:
    """The run of a shipped model; RunError suggests the nearest name to an unknown one."""
    if name not in names():
        raise RunError(f"shipped model: {unknown(name, names())}")
    return Run(FOLDER / name)


def find_run(run: Run | str | os.PathLike[str]) -> Run:
    """A run to read: a Run, or what `Run` takes."""
    return run if isinstance(run, Run) else Run(run)


def open_run(run: Run | str | os.PathLike[str]) -> Run:
    """A run that may be written into: a Run, the path of one, or the name of a shipped model.

    A shipped model is copied into the folder of runs ($VITLAB_RUNS, else `runs`) when it is first
    asked for, and found there from then on. RunError if another run has taken its place.
    """
    run = find_run(run)
    if run.path.resolve().parent != FOLDER.resolve():
        return run
    runs = Path(os.environ.get("VITLAB_RUNS") or "runs")
    target = runs / run.name
    if not target.exists():
        _copy(run.path, target)
    copy = Run(target)
    if copy.checkpoint().sha256 != run.checkpoint().sha256:
        raise RunError(
            f"{target} is not a copy of the shipped model {run.name}: rename it, or set "
            "VITLAB_RUNS to another folder"
        )
    return copy


def _copy(source: Path, target: Path) -> None:
    """Copy a folder so that it appears whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as hidden:
            shutil.copytree(source, Path(hidden) / "run").rename(target)
    except OSError as error:
        if (target / "config.json").is_file():  # another process was quicker
            return
        raise RunError(
            f"cannot copy {source.name} to {target}: {error.strerror or error}"
        ) from error


def ship(run: Run, folder: Path) -> Run:
    """Write a finished run as a small run of half-precision weights.

    Kept are config, origin, validations, final numbers and the weights that are evaluated.
    Results are not: they belong to the full-precision weights, and are measured anew.
    """
    if run.finished is None:
        raise RunError(f"{run.path} is not finished: only a finished run can be shipped")
    checkpoint = run.checkpoint()
    file = run.weights(checkpoint)
    half = {
        name: tensor.astype(np.float16) if tensor.dtype == np.float32 else tensor
        for name, tensor in load_file(file).items()
    }
    with Run.lock(folder):
        validations = [record for record in run.metrics if record["split"] != "train"]
        small = run.copy_record(folder, validations)
        small.write_split(run.split)
        small.write_checkpoint(checkpoint.step, {file.name: save(half)}, checkpoint.state)
    return small

"""Two small trained models that come with vitlab, each a run directory like any other.

    cpu         the convolutional-stem ViT of the recipe of that name
    cpu-plain   the plain ViT with a CLS token

Weights are stored in half precision and the optimiser is left out, so they can be evaluated,
explained and compared, but not trained further in place. Their cards are their README.md.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from vitlab.config import unknown
from vitlab.errors import RunError
from vitlab.run import Run

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the models that ship."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def shipped(name: str) -> Run:
    """The run of a shipped model; RunError suggests the nearest name to an unknown one."""
    if name not in names():
        raise RunError(f"shipped model: {unknown(name, names())}")
    return Run(FOLDER / name)


def ship(run: Run, folder: Path) -> Run:
    """Write a finished run as a small run of half-precision weights.

    Kept are config, origin, validations, final numbers and the weights that are evaluated.
    Results are not: they belong to the full-precision weights, and are measured anew.
    """
    if run.finished is None:
        raise RunError(f"{run.path} is not finished: only a finished run can be shipped")
    checkpoint = run.checkpoint()
    averaged = bool(run.config.optim.average_decay)
    weights = load_file(checkpoint.average if averaged else checkpoint.model)
    half = {
        name: tensor.astype(np.float16) if tensor.dtype == np.float32 else tensor
        for name, tensor in weights.items()
    }
    with Run.claim(folder):
        judged = [record for record in run.metrics if record["split"] != "train"]
        small = run.copy_record(folder, judged)
        name = "average.safetensors" if averaged else "model.safetensors"
        small.write_checkpoint(checkpoint.step, {name: save(half)}, checkpoint.state)
    return small

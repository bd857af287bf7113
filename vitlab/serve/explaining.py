"""Where a run's model looks, found out by a worker, because some maps take seconds."""

import os
from typing import TYPE_CHECKING

import numpy as np

from vitlab.errors import RunError
from vitlab.records import PASSED
from vitlab.run import Run

if TYPE_CHECKING:
    from vitlab.inference import TrainedModel

METHODS = {
    "attention": "Where the last block looks, the mean over its heads.",
    "rollout": "Where the model looks, followed through all its blocks.",
    "gradient-rollout": "What of the attention in all blocks helps this class.",
    "grad-cam": "Places whose features help this class.",
    "occlusion": "How much less likely this class gets when a place is covered.",
    "integrated-gradients": "How much each pixel adds to this class, from the mean colour on.",
}
"""What each of `vitlab.explain.METHODS` shows, for whoever sees the map for the first time."""


class Loaded:
    """What a worker holds."""

    model: "TrainedModel"


def load_model(run_path: str) -> None:
    """Load a run's model in this process."""
    import torch

    from vitlab.inference import load

    os.nice(5)  # answers go before maps
    torch.set_num_threads(1)
    Loaded.model = load(run_path, device="cpu")


def methods() -> list[str]:
    """Keys of METHODS that the model has."""
    from vitlab.explain import choose

    return list(choose(Loaded.model.module))


def draw_map(method: str, pixels: np.ndarray, label: int) -> np.ndarray:
    """What of pixels uint8 (H, W, C) speaks for a class, from 0 to 1, (rows, columns)."""
    import torch

    from vitlab.explain import compute_maps
    from vitlab.figures.explanation import strength

    image = Loaded.model.prepare(pixels)
    return strength(compute_maps(method, Loaded.model.module, image, torch.tensor([label]))[0])


def faithful_methods(run: Run, checkpoint_sha256: str) -> dict[str, bool]:
    """Whether maps are faithful to a run's checkpoint, by method, the best of those that are first.

    Only what `vitlab explain` has tested is there.
    """
    for split in ("validation", "test"):
        try:
            verdicts = run.map_verdicts(split, checkpoint_sha256)
        except (RunError, AttributeError, KeyError, TypeError):  # damaged, or another version's
            continue
        if verdicts:
            passed = {method: verdict == PASSED for method, verdict in verdicts.items()}
            return dict(sorted(passed.items(), key=lambda item: not item[1]))
    return {}

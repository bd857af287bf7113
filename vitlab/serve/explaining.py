"""Where a run's model looks, found out by a worker, because some maps take seconds."""

import json
import os
from typing import TYPE_CHECKING

import numpy as np

from vitlab.run import Run

if TYPE_CHECKING:
    from vitlab.inference import TrainedModel

METHODS = {
    "attention": "Where the last block looks, the mean over its heads.",
    "rollout": "Where the model looks, followed through all its blocks.",
    "gradient-rollout": "What of the attention in all blocks helps this class.",
    "grad-cam": "Places whose features help this class.",
    "occlusion": "How much less likely this class gets when a place is covered.",
    "integrated-gradients": "How much each pixel adds to this class, from grey to the picture.",
}
"""What each of `vitlab.explain.METHODS` shows, for whoever sees the map for the first time."""

PASSED = "beats both"
"""The verdict of `vitlab explain` on maps that are better than a random one and than the centre of
the picture, and that depend on what the model has learned."""


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
            found = json.loads(run.faithfulness_file(split).read_text(encoding="utf-8"))
            if found["checkpoint_sha256"] == checkpoint_sha256:
                rows = [row for row in found["methods"] if "verdict" in row]
                passed = {row["method"]: row["verdict"] == PASSED for row in rows}
                return dict(sorted(passed.items(), key=lambda item: not item[1]))
        except (OSError, ValueError, KeyError, TypeError):  # not tested, or by another version
            continue
    return {}

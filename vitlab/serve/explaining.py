"""A program that says where a run's model looks.

    python -m vitlab.serve.explaining RUN

Pixels uint8 (H, W, C) come in, with a method and a class; the map goes out as float32 (rows,
columns) from 0 to 1. It is a process of its own because some maps take seconds.
"""

import os
import sys
import warnings
from typing import Any

from vitlab.serve.child import Message, attend

METHODS = {
    "attention": "Where the last block looks, the mean over its heads.",
    "rollout": "Where the model looks, followed through all its blocks.",
    "gradient-rollout": "What of the attention in all blocks helps this class.",
    "grad-cam": "Places whose features help this class.",
    "occlusion": "How much less likely this class gets when a place is covered.",
    "integrated-gradients": "How much each pixel adds to this class, from grey to the picture.",
}
"""What each of `vitlab.explain.METHODS` shows, for whoever sees the map for the first time."""


def main(run_path: str) -> None:
    """Answer with maps of a run's model."""
    import numpy as np
    import torch

    from vitlab.explain import choose, compute_maps
    from vitlab.figures.explanation import strength
    from vitlab.inference import load

    warnings.simplefilter("ignore")
    os.nice(5)  # answers go before maps
    model = load(run_path, device="cpu")

    def answer(head: dict[str, Any], body: bytes) -> Message:
        pixels = np.frombuffer(body, np.uint8).reshape(head["shape"]).copy()
        image, chosen = model.prepare(pixels), torch.tensor([head["class"]])
        heat = strength(compute_maps(head["method"], model.module, image, chosen)[0])
        heat = heat.astype(np.float32)
        return {"rows": heat.shape[0], "columns": heat.shape[1]}, heat.tobytes()

    attend(answer, {"methods": choose(model.module)})


if __name__ == "__main__":
    main(sys.argv[1])

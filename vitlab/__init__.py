"""A workbench for Vision Transformers trained from scratch on small image sets.

    model = vitlab.load("cpu")                      # a trained model that ships
    model.classify("photo.jpg")
    vitlab.audit("photos")                          # wrong labels, copies and the like: a page
    vitlab.inside("cpu")                            # a page in which the model itself runs
    run = vitlab.fit("photos")                      # the best one for pictures of your own
    run = vitlab.train(vitlab.recipe("digits"))     # one of your own design
    vitlab.load(run).logits(images)

The public names are loaded when they are first used, so `import vitlab` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlab.auditing import audit
    from vitlab.config import Config
    from vitlab.explorable import inside
    from vitlab.inference import TrainedModel, load, predict
    from vitlab.models import build_model
    from vitlab.recipes import recipe
    from vitlab.run import Run
    from vitlab.selection import fit
    from vitlab.training import train

__all__ = [
    "Config",
    "Run",
    "TrainedModel",
    "audit",
    "build_model",
    "fit",
    "inside",
    "load",
    "predict",
    "recipe",
    "train",
]
__version__ = "0.1.0"

HOMES = {
    "Config": "vitlab.config",
    "Run": "vitlab.run",
    "TrainedModel": "vitlab.inference",
    "audit": "vitlab.auditing",
    "build_model": "vitlab.models",
    "fit": "vitlab.selection",
    "inside": "vitlab.explorable",
    "load": "vitlab.inference",
    "predict": "vitlab.inference",
    "recipe": "vitlab.recipes",
    "train": "vitlab.training",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'vitlab' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

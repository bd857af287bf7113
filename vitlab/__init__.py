"""A workbench for Vision Transformers trained from scratch on small image sets.

    run = vitlab.train(vitlab.recipe("digits"))
    vitlab.predict(run, images)

The public names are loaded when they are first used, so `import vitlab` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlab.config import Config
    from vitlab.inference import predict
    from vitlab.models import build_model
    from vitlab.recipes import recipe
    from vitlab.run import Run
    from vitlab.training import train

__all__ = ["Config", "Run", "build_model", "predict", "recipe", "train"]
__version__ = "0.1.0"

HOMES = {
    "Config": "vitlab.config",
    "Run": "vitlab.run",
    "build_model": "vitlab.models",
    "predict": "vitlab.inference",
    "recipe": "vitlab.recipes",
    "train": "vitlab.training",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'vitlab' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)

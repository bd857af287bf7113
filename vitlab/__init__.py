"""A workbench for Vision Transformers trained from scratch on small image sets.

    run = vitlab.train(vitlab.recipe("digits"))
    vitlab.predict(run, images)

The public names are loaded when they are first used, so `import vitlab` costs nothing.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlab.config import Config
    from vitlab.models import build_model
    from vitlab.predict import predict
    from vitlab.recipes import recipe
    from vitlab.run import Run
    from vitlab.train import train

__all__ = ["Config", "Run", "build_model", "predict", "recipe", "train"]
__version__ = "0.1.0"

HOMES = {
    "Config": "vitlab.config",
    "Run": "vitlab.run",
    "build_model": "vitlab.models",
    "predict": "vitlab.predict",
    "recipe": "vitlab.recipes",
    "train": "vitlab.train",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'vitlab' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


class Package(ModuleType):
    """Keeps `vitlab.train` and `vitlab.predict` functions once the modules are imported.

    Python would bind each submodule under its own name, and whoever trained first could no
    longer call `vitlab.predict`. `from vitlab.train import loop` works as ever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package

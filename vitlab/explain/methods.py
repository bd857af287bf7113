"""The methods by name, and how they are run over many images."""

import importlib.util
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vitlab.errors import ConfigError
from vitlab.explain.attention import attention, gradient_rollout, rollout
from vitlab.explain.attribution import grad_cam, integrated_gradients, occlusion
from vitlab.fields import unknown
from vitlab.inference import at_once
from vitlab.models import ViT

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]

METHODS: dict[str, Method] = {
    "attention": attention,
    "rollout": rollout,
    "gradient-rollout": gradient_rollout,
    "grad-cam": grad_cam,
    "occlusion": occlusion,
    "integrated-gradients": integrated_gradients,
}
"""From a name to a function of a model in evaluation mode, normalised images (B, C, height, width)
and classes (B,), which returns maps (B, rows, columns) that cover the images evenly."""

OF_ATTENTION = ("attention", "rollout", "gradient-rollout")
OF_CAPTUM = ("occlusion", "integrated-gradients")

BATCH = 64
"""Images that a method is given at once, as far as `batch_size` allows."""


def choose(model: nn.Module, names: Sequence[str] | None = None) -> list[str]:
    """The given methods, or all that this model has and whose libraries are installed.

    ConfigError names an unknown method, and one that needs attention where there is none.
    """
    has_attention = isinstance(model, ViT)
    if names is None:
        names = [name for name in METHODS if has_attention or name not in OF_ATTENTION]
        if importlib.util.find_spec("captum") is None:
            names = [name for name in names if name not in OF_CAPTUM]
            left_out = " and ".join(OF_CAPTUM)
            warnings.warn(
                f"{left_out} are left out: they need `pip install 'vitlab[explain]'`", stacklevel=2
            )
        return names
    problems = [unknown(name, METHODS) for name in names if name not in METHODS]
    if not has_attention:
        kind = type(model).__name__
        problems += [f"{kind} has no attention: {name}" for name in names if name in OF_ATTENTION]
    if problems:
        raise ConfigError(problems)
    return list(dict.fromkeys(names))


def compute_maps(name: str, model: nn.Module, images: Tensor, classes: Tensor) -> np.ndarray:
    """Run a method over normalised images (N, C, height, width): maps (N, rows, columns)."""
    count = batch_size(model, images)
    parts = zip(images.split(count), classes.split(count), strict=True)
    return torch.cat([METHODS[name](model, *part) for part in parts]).cpu().numpy()


def batch_size(model: nn.Module, images: Tensor) -> int:
    """How many of normalised images (N, C, height, width) a method is given at once: gradients
    through attention weights take the most.
    """
    return at_once(model, images.shape[1:], BATCH, gradients=True, traced=True)

"""What a model's answer rests on: maps by activations, by gradients and by covering things up.

They need no attention, so they serve any model whose traced forward pass names what it computes.

B images  C channels  D width  N patches = rows * columns
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from vitlab.errors import VitlabError
from vitlab.explain.attention import to_grid
from vitlab.inference import at_once
from vitlab.models import ViT

TOLERANCE = 0.01
"""How far the sum of a map of integrated gradients may be off: a share of its absolute values."""

LEAST = 0.1
"""A map that attributes less may be off by as much as one of this size: it means nothing."""

STEPS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Points of integrated gradients: the next number for the images that missed TOLERANCE."""

COVERED = 4
"""Times that a covered square fits into a side of the image; it moves by half its width."""

BATCH = 128
"""Images that captum runs through the model at once, or fewer that `at_once` allows."""


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Channels are weighted by how much the logit of the class grows with them, the mean of their
    gradient, and summed; what speaks against the class is cut. They are a CNN's last maps, or the
    tokens that enter a ViT's last block (Selvaraju et al., 2017).

    Maps images and classes (B,) to (B, rows, columns). Of the tokens that leave the last block, a
    CLS pool reads one, and the gradient of all patches is 0.
    """
    with torch.enable_grad():
        trace: dict[str, Tensor] = {}
        logits = model(images, trace)
        stages = [value for name, value in trace.items() if not name.endswith(".attention")]
        chosen = stages[-2] if isinstance(model, ViT) else stages[-1]
        score = logits.gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, chosen)
    chosen = chosen.detach()
    if isinstance(model, ViT):
        weights = gradient[:, model.cfg.prefix :].mean(dim=1, keepdim=True)  # (B, 1, D)
        return to_grid(model, (weights * chosen).sum(dim=-1), images).clamp(min=0)
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (B, D, 1, 1)
    return (weights * chosen).sum(dim=1).clamp(min=0)


def integrated_gradients(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Map images and classes (B,) to (B, height, width): gradients summed from grey to the image.

    A map's sum is the class's logit less that of the mean colour (Sundararajan et al., 2017), to
    TOLERANCE of the sum of the map's absolute values. Steps are taken until it is. Below 0 is what
    speaks against the class.
    """
    method = captum("integrated-gradients").IntegratedGradients(model)
    maps = torch.zeros_like(images[:, 0])
    with torch.no_grad():
        grey = torch.zeros_like(images[:1])
        change = (model(images) - model(grey)).gather(1, classes[:, None])[:, 0]
    left = torch.arange(len(images), device=images.device)
    for steps in STEPS:
        pixels = method.attribute(
            images[left].requires_grad_(),
            target=classes[left],
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=at_once(model, images.shape[1:], BATCH, gradients=True),
        )
        maps[left] = pixels.detach().sum(dim=1)
        found = maps[left]
        missed = (found.sum(dim=(1, 2)) - change[left]).abs()
        left = left[missed > TOLERANCE * found.abs().sum(dim=(1, 2)).clamp(min=LEAST)]
        if not len(left):
            return maps
    warnings.warn(
        f"integrated gradients of {len(left)} of {len(images)} images are off by more "
        f"than {TOLERANCE:.0%} of what they attribute after {STEPS[-1]} steps",
        stacklevel=2,
    )
    return maps


def occlusion(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Map images and classes (B,) to (B, height, width): how much a logit falls with what is there.

    A square of the mean colour moves over the image (Zeiler and Fergus, 2014); a pixel's number is
    the mean fall over the squares that cover it. Below 0 is what speaks against the class.
    """
    _, channels, height, width = images.shape
    window = (channels, max(1, height // COVERED), max(1, width // COVERED))
    strides = (channels, max(1, window[1] // 2), max(1, window[2] // 2))
    method = captum("occlusion").Occlusion(model)
    with torch.no_grad():
        falls = method.attribute(
            images,
            sliding_window_shapes=window,
            strides=strides,
            target=classes,
            perturbations_per_eval=max(1, at_once(model, images.shape[1:], BATCH) // len(images)),
        )
    return falls[:, 0]


def captum(method: str) -> Any:
    """The module of captum's methods; VitlabError says how to install it."""
    try:
        import captum.attr
    except ModuleNotFoundError:
        raise VitlabError(
            f"{method} needs captum: pip install 'vitlab[explain]', or choose other --methods"
        ) from None
    return captum.attr

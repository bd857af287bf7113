"""What a model looks for first, and what its stages make of an image.

B images  C channels of an image  F filters  D width of a stage
"""

import torch
from torch import Tensor, nn

from vitlab.explain.attention import to_grid
from vitlab.models import ViT
from vitlab.models.patch import ShiftedSquares, Whitening


def first_layer(model: nn.Module) -> nn.Module:
    """The layer that reads the pixels."""
    layers = (nn.Conv2d, Whitening, ShiftedSquares)
    return next(module for module in model.modules() if isinstance(module, layers))


def first_filters(model: nn.Module) -> Tensor:
    """The filters (F, C, rows, columns) of the first layer.

    Of shifted patches, those for the copy of the image that is not shifted.
    """
    layer = first_layer(model)
    if isinstance(layer, ShiftedSquares):
        filters = layer.linear.weight.unflatten(1, (-1, layer.size, layer.size))
        return filters[:, : filters.shape[1] // 5].detach()
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def feature_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each channel of a stage finds in the image, and where. Stages further on see more of the
    image at each place and answer to larger parts of things (Zeiler & Fergus, 2014).

    Maps images (B, C, height, width) to the maps (B, D, rows, columns) of every stage, by name.
    Stages are the first layer and what a traced forward pass names: tokens become maps over their
    patches.
    """
    trace: dict[str, Tensor] = {}
    with torch.no_grad():
        model(images, trace)
        stages = {"first layer": first_layer(model)(images)}
    for name, values in trace.items():
        if not name.endswith(".attention"):
            tokens = isinstance(model, ViT)
            stages[name] = to_grid(model, values.mT, images) if tokens else values
    return stages

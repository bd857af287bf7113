"""Where a ViT looks: its attention, joined over layers and weighted by gradients.

A map of attention is that of the tokens which the head reads. Papers take the CLS token, because
their heads read nothing else; here `readout_weights` says how much each token counts in what the
head reads: CLS alone with pool=cls, and with other pools the patches, evenly or by their scores. A
map is the mean of the tokens' rows of attention by these weights: with CLS, the papers' map.

B images  L layers  H heads  T tokens = a prefix, then N patches = rows * columns
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.errors import VitlabError
from vitlab.models import ViT
from vitlab.models.position import places_of


@dataclass(frozen=True)
class AttentionTrace:
    """What a ViT did with a batch of images."""

    logits: Tensor
    """(B, K)"""
    layers: tuple[Tensor, ...]
    """Attention (B, H, T, T) of every layer, rows being queries that sum to 1."""
    readout_weights: Tensor
    """How much each token counts in what the head reads: (B, T), rows summing to 1."""


def require_attention(model: nn.Module) -> ViT:
    """The model if it has attention; VitlabError if not."""
    if isinstance(model, ViT):
        return model
    raise VitlabError(
        f"{type(model).__name__} has no attention to look at: use grad-cam, occlusion or "
        "integrated-gradients"
    )


def trace_attention(model: ViT, images: Tensor) -> AttentionTrace:
    """Run a ViT on normalised images (B, C, height, width) and keep its attention."""
    trace: dict[str, Tensor] = {}
    logits = model(images, trace)
    layers = tuple(weights for name, weights in trace.items() if name.endswith(".attention"))
    *_, last = trace.values()
    return AttentionTrace(logits, layers, model.readout_weights(model.norm(last)))


def attention(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Where the last block looks: the attention of the tokens that the head reads, the mean over
    heads. What those tokens gathered in earlier blocks is not in it (Dosovitskiy et al., 2021).

    Maps images to (B, rows, columns), the same for every class.
    """
    vit = require_attention(model)
    with torch.no_grad():
        found = trace_attention(vit, images)
        return to_grid(vit, read_out(found.readout_weights, found.layers[-1].mean(dim=1)), images)


def rollout(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Where the model looks, followed through all blocks: the attention of each, averaged with what
    passes it by, is multiplied with that of the blocks before. It says from where the content of a
    token came if attention alone had moved it (Abnar & Zuidema, 2020).

    Maps images to (B, rows, columns), the same for every class.
    """
    vit = require_attention(model)
    with torch.no_grad():
        found = trace_attention(vit, images)
        return to_grid(vit, read_out(found.readout_weights, roll_out(found.layers)), images)


def gradient_rollout(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """The rollout of what helps a class: of the attention of every block, only that part counts
    whose growth would raise the logit of the class, weighted by how much. It differs from class to
    class, as attention itself does not (Chefer et al., 2021).

    Maps images and classes (B,) to (B, rows, columns). Of the paper's methods it is the generic
    attention explainability.
    """
    vit = require_attention(model)
    with torch.enable_grad():
        found = trace_attention(vit, images)
        score = found.logits.gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(score, found.layers)
    relevance = found.readout_weights.detach()
    for weights, gradient in zip(reversed(found.layers), reversed(gradients), strict=True):
        helpful = (weights.detach() * gradient).clamp(min=0).mean(dim=1)  # (B, T, T)
        relevance = relevance + read_out(relevance, helpful)
    # What a token is by itself says nothing of where the model looked.
    return to_grid(vit, relevance - found.readout_weights.detach(), images)


def every_head(model: ViT, images: Tensor) -> Tensor:
    """Map images to (B, L, H, rows, columns): the attention of every head of every layer."""
    with torch.no_grad():
        found = trace_attention(model, images)
        heads = torch.stack(found.layers, dim=1)  # (B, L, H, T, T)
        return to_grid(model, torch.einsum("bq,blhqk->blhk", found.readout_weights, heads), images)


def roll_out(layers: tuple[Tensor, ...]) -> Tensor:
    """Join the attention of layers (B, H, T, T) into one (B, T, T), rows summing to 1.

    Heads are averaged, and each layer keeps one half of its input, for its residual branch.
    """
    own = torch.eye(layers[0].shape[-1], device=layers[0].device)
    joined = own
    for weights in layers:
        joined = (weights.mean(dim=1) + own) / 2 @ joined
    return joined


def read_out(weights: Tensor, matrix: Tensor) -> Tensor:
    """The weighted mean (B, T) of the rows of a matrix (B, T, T), by weights (B, T)."""
    return (weights[:, None] @ matrix)[:, 0]


def to_grid(model: ViT, values: Tensor, images: Tensor) -> Tensor:
    """Put the values (..., T) of tokens where their patches lie: (..., rows, columns).

    The result covers the images evenly. Where patches hang over an image's border
    (`pad_to_patch`), it is in pixels and cut to the image.
    """
    rows, columns = model.pos_embed.grid
    height, width = images.shape[-2:]
    size = model.cfg.patch_size
    maps = values[..., model.cfg.prefix :].unflatten(-1, (rows, columns))
    if (rows * size, columns * size) == (height, width):
        return maps
    return maps.repeat_interleave(size, -2).repeat_interleave(size, -1)[..., :height, :width]


def mean_distance(model: ViT, images: Tensor) -> Tensor:
    """Mean distance (L, H) in pixels from a patch to those that it attends to.

    Weights of tokens before the patches are left out (Dosovitskiy et al., 2021, figure 7).
    """
    with torch.no_grad():
        found = trace_attention(model, images)
        between = distances(model, images.device)  # (N, N)
        means = []
        for weights in found.layers:
            patches = weights[..., model.cfg.prefix :, model.cfg.prefix :]  # (B, H, N, N)
            patches = patches / patches.sum(dim=-1, keepdim=True)
            means.append((patches * between).sum(dim=-1).mean(dim=(0, 2)))
        return torch.stack(means)


def distances(model: ViT, device: torch.device) -> Tensor:
    """Distances (N, N) in pixels between the centres of patches."""
    centres = model.cfg.patch_size * places_of(model.pos_embed.grid).float().to(device)
    return torch.cdist(centres, centres)


def added_positions(model: ViT) -> Tensor:
    """What is added to every token for its place, (T, D); zeros where nothing is."""
    rows, columns = model.pos_embed.grid
    nothing = torch.zeros(1, model.cfg.prefix + rows * columns, model.cfg.width)
    with torch.no_grad():
        return model.pos_embed.add(nothing.to(model.head.weight.device))[0]


def position_similarity(model: ViT) -> Tensor | None:
    """Cosine similarity (rows, columns, rows, columns) of the positions of any two patches.

    A position is what its hooks add to tokens of zeros, or how they rotate heads of ones. None
    where patches have no position.
    """
    rows, columns = model.pos_embed.grid
    added = added_positions(model)
    with torch.no_grad():
        ones = torch.ones(1, 1, len(added), model.cfg.head_width, device=added.device)
        turned = model.pos_embed.rotate(ones)[0, 0]
    vectors = (turned if not added.any() else added)[model.cfg.prefix :]  # (N, numbers)
    if torch.equal(vectors, vectors[:1].expand_as(vectors)):
        return None
    unit = F.normalize(vectors, dim=-1)
    return (unit @ unit.T).unflatten(1, (rows, columns)).unflatten(0, (rows, columns))

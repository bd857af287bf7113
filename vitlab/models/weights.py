"""Weights of another model into ours: by name, and resampled where sizes differ.

    tensors of a source -> timm's names, which are ours -> our grid, patches, channels -> the model

C channels  D width  P, Q pixels on the side of a patch, before and after
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.errors import RunError
from vitlab.formatting import plain
from vitlab.models.backbone import Backbone
from vitlab.models.patch import LinearPatch
from vitlab.models.position import Grid, Learned, resample
from vitlab.models.vit import ViT

PREFIX = ("cls_token", "dist_token", "reg_token")
"""Learned tokens before the patches, in their order."""

CLASSIFIERS = ("head", "head_dist")
"""What gives the logits, in every kind of model."""

TRANSFORMERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer.": "blocks.",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm": "norm",
    "distillation_classifier": "head_dist",
    "cls_classifier": "head",
    "classifier": "head",
}
"""Parts of names in the transformers library and what timm calls them, replaced in this order."""


@dataclass(frozen=True)
class LoadReport:
    """What became of a source's tensors; as text, a few lines for whoever starts a training."""

    matched: tuple[str, ...]
    """Tensors of the model that were taken over as they are."""
    resized: dict[str, str]
    """Tensors of the model that were made from the source's, and how: resampled, put in order."""
    skipped: dict[str, str]
    """Tensors of the source that were not used, and why."""
    missing: tuple[str, ...]
    """Tensors of the model that the source does not have: they stay as they were drawn."""

    def __str__(self) -> str:
        lines = [
            f"{len(self.matched)} tensors taken over, {len(self.resized)} resized, "
            f"{len(self.skipped)} skipped, {len(self.missing)} left as drawn"
        ]
        lines += [f"resized {name}: {how}" for name, how in self.resized.items()]
        names_by_reason = defaultdict(list)
        for name, reason in self.skipped.items():
            names_by_reason[reason].append(name)
        lines += [f"skipped {some(names)}: {reason}" for reason, names in names_by_reason.items()]
        if self.missing:
            lines.append(f"as drawn {some(self.missing)}")
        return "\n".join(lines)


@torch.no_grad()
def load_weights(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    source_classes: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> LoadReport:
    """Fill a model with weights of the same names, those of timm or of the transformers library.

    Learned positions are resampled to the model's present grid. The position of a token that has
    none here is added to the token itself, which comes to the same. Filters of linear patches are
    resampled to the model's patch size, and summed over the colours for grey images. A head for
    other classes is skipped, and one for the same in another order is brought to ours.

    Args:
        model: what is filled, in place.
        tensors: by name, as the source calls them.
        source_classes: names of the source's classes, None where it does not say: then heads of
            equal shape are taken for the same.
        classes: names of the model's classes.

    Raises:
        RunError: fewer than half of the model's tensors match; nothing was changed then.
    """
    weights = model.state_dict()
    source = dict(tensors) if isinstance(model, Backbone) else rename(tensors)
    resized: dict[str, str] = {}
    if isinstance(model, ViT):
        resized |= fit_filters(model, source) | fit_positions(model, source)
    other_heads, other_classes = [], ""
    if source_classes and classes and len(source_classes) == len(classes):
        if sorted(source_classes) == sorted(classes):
            resized |= fit_classes(model, source, source_classes, classes)
        else:
            other_heads = class_tensors(model)
            other_classes = f"of the classes {some(source_classes)}, here {some(classes)}"
    skipped: dict[str, str] = {}
    shaped = 0
    for name, tensor in source.items():
        if name not in weights or tensor.shape != weights[name].shape:
            skipped[name] = difference(name, tensor, weights.get(name))
        else:
            shaped += 1
            if name in other_heads:
                skipped[name] = other_classes
    if 2 * shaped < len(weights):
        raise RunError(mismatch(shaped, weights, source, skipped))
    fitting = {name: tensor for name, tensor in source.items() if name not in skipped}
    model.load_state_dict(fitting, strict=False)
    return LoadReport(
        matched=tuple(name for name in fitting if name not in resized),
        resized={name: how for name, how in resized.items() if name in fitting},
        skipped=skipped,
        missing=tuple(name for name in weights if name not in fitting),
    )


def mismatch(
    shaped: int,
    weights: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    skipped: Mapping[str, str],
) -> str:
    """What a user reads of a source that is of another model, and what to do."""
    example = next((f"{name}: {skipped[name]}. " for name in skipped if name in weights), "")
    advice = "Give the model the shape of the source: model.width, depth, heads, ffn_ratio, patch"
    if not weights.keys() & source.keys():
        advice = (
            f"No name is the same: there {some(list(source))}; here {some(list(weights))}. "
            "Choose the model.kind of the source, or call its tensors as timm does"
        )
    return (
        f"these weights are of another model: they fit {shaped} of {len(weights)} tensors. "
        f"{example}{advice}"
    )


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A source's tensors under our names."""
    names = {name: name for name in tensors}
    if any("embeddings.patch_embeddings" in name for name in tensors):
        names = {name: re.sub(r"^(vit|deit)\.", "", name) for name in tensors}
        for theirs, ours in TRANSFORMERS.items():
            names = {name: new.replace(theirs, ours) for name, new in names.items()}
    renamed = {names[name]: tensor for name, tensor in tensors.items()}
    for name in [name for name in renamed if ".attention.attention.query." in name]:
        fused_qkv = [renamed.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        renamed[name.replace("attention.attention.query", "attn.qkv")] = torch.cat(fused_qkv)
    if "pos_embed" in renamed:
        renamed["pos_embed.weight"] = renamed.pop("pos_embed")
    return renamed


def fit_filters(model: ViT, source: dict[str, Tensor]) -> dict[str, str]:
    """Bring a source's patch filters to other patches and channels, in place; say how."""
    name = "patch_embed.proj.weight"
    filters, wanted = source.get(name), model.state_dict().get(name)
    linear = isinstance(model.patch_embed, LinearPatch)
    if not linear or filters is None or wanted is None or filters.ndim != wanted.ndim:
        return {}
    fitted = filters.float()
    if (filters.shape[1], wanted.shape[1]) == (3, 1):
        fitted = fitted.sum(1, keepdim=True)
    if filters.shape[2:] != wanted.shape[2:]:
        fitted = resample_filters(fitted, (wanted.shape[2], wanted.shape[3]))
    if fitted.shape == filters.shape:
        return {}
    source[name] = fitted
    return {name: f"{times(filters.shape[1:])} to {times(fitted.shape[1:])}"}


def fit_positions(model: ViT, source: dict[str, Tensor]) -> dict[str, str]:
    """Bring a source's learned positions to the model's grid, in place; say how.

    How many of the table's rows belong to the prefix is not written anywhere: none, that of CLS, or
    those of all learned tokens, whichever leaves a grid.
    """
    position, table = model.pos_embed, source.get("pos_embed.weight")
    if not isinstance(position, Learned) or table is None or table.shape == position.weight.shape:
        return {}
    tokens = [name for name in PREFIX if name in source]
    all_tokens = sum(source[name].shape[1] for name in tokens)
    for count in sorted({0, int("cls_token" in tokens), all_tokens}):
        if grid := grid_of(table.shape[1] - count, position.grid):
            break
    else:
        return {}
    prefix, patches = table.float().tensor_split([count], dim=1)
    done = {}
    cls = patches.new_zeros(1, int(model.cfg.position_on_cls), patches.shape[2])
    for name in tokens:
        own, prefix = prefix.tensor_split([source[name].shape[1]], dim=1)
        if name == "cls_token" and own.shape == cls.shape:
            cls = own
        elif own.shape[1]:
            source[name] = source[name] + own
            done[name] = "its position was added to it"
    fitted = torch.cat([cls, resample(patches, grid, position.grid)], dim=1)
    source["pos_embed.weight"] = fitted
    how = f"{times(grid)} to {times(position.grid)} patches"
    if grid == position.grid:
        how = f"{table.shape[1]} rows to {fitted.shape[1]}"
    return {"pos_embed.weight": how, **done}


def fit_classes(
    model: nn.Module,
    source: dict[str, Tensor],
    source_classes: Sequence[str],
    classes: Sequence[str],
) -> dict[str, str]:
    """Bring the rows of a source's heads to another order of the same classes, in place."""
    order = [source_classes.index(name) for name in classes]
    if order == list(range(len(classes))):
        return {}
    names = [name for name in class_tensors(model) if len(source.get(name, ())) == len(order)]
    for name in names:
        source[name] = source[name][order]
    return dict.fromkeys(names, "rows in the order of the classes here")


def class_tensors(model: nn.Module) -> list[str]:
    """Names of the tensors that have a row per class: the last linear layer of each head."""
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    heads = [[name for name in linear if name.split(".")[0] == head] for head in CLASSIFIERS]
    return [f"{head[-1]}.{kind}" for head in heads if head for kind in ("weight", "bias")]


def grid_of(count: int, like: Grid) -> Grid | None:
    """Rows and columns of so many patches: of the proportions of another grid, else a square."""
    for rows, columns in (like, (1, 1)):
        root = math.isqrt(count * rows // columns)
        if root and root**2 * columns == count * rows and count % root == 0:
            return root, count // root
    return None


def resample_filters(filters: Tensor, size: tuple[int, int]) -> Tensor:
    """Filters (D, C, P, P) of patches to (D, C, Q, Q), for images resampled just as much.

    The pseudo-inverse of a bicubic resampling: tokens stay the same as far as they can
    (Beyer et al., 2023).
    """
    pixels = torch.eye(filters[0, 0].numel()).unflatten(1, (1, *filters.shape[2:]))
    enlarge = F.interpolate(pixels, size, mode="bicubic", antialias=True).flatten(1)  # (PP, QQ)
    return (filters.flatten(2) @ torch.linalg.pinv(enlarge).T).unflatten(2, size)


def difference(name: str, theirs: Tensor, ours: Tensor | None) -> str:
    """Why a tensor of a source cannot be used."""
    if ours is None:
        return "not in this model"
    if name.startswith("head") and theirs.shape[1:] == ours.shape[1:]:
        return f"{len(theirs)} classes, here {len(ours)}"
    return f"{times(theirs.shape)}, here {times(ours.shape)}"


def times(shape: tuple[int, ...]) -> str:
    """A shape in words: 64 x 192."""
    return " x ".join(map(str, shape))


def some(names: Sequence[str]) -> str:
    """The first of many names, and how many there are besides."""
    shown = ", ".join(map(plain, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown

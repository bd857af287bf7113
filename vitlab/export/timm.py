"""Our weights in timm's VisionTransformer, and which of our models timm has.

a model -> model.safetensors under timm's names, timm.json with the arguments it is made with
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vitlab.config import Config, ViTConfig
from vitlab.errors import VitlabError
from vitlab.files import write_bytes, write_json
from vitlab.models import build_model
from vitlab.models.weights import rename
from vitlab.tensors import read_tensors

CLASS = "timm.models.vision_transformer.VisionTransformer"

HAS: dict[str, tuple[Any, ...]] = {
    "kind": ("vit",),
    "patch": ("linear",),
    "embed_norm": (False,),
    "position": ("learned",),
    "norm": ("layer",),
    "norm_eps": (1e-6,),
    "norm_place": ("pre",),
    "ffn": ("gelu",),
    "lsa": (False,),
    "distill_token": (False,),
    "pool": ("cls", "mean"),
}
"""Fields of a model and the values of them that timm's VisionTransformer has."""


def arguments(config: Config, input_size: Sequence[int]) -> dict[str, Any]:
    """The arguments that make timm's model of a config; VitlabError names what timm has not.

    `input_size` is the height and width of the images that enter it.
    """
    model = config.model
    for name, values in HAS.items():
        value = getattr(model, name, None)
        if value not in values:
            others = " or ".join(map(repr, values))
            raise VitlabError(
                f"model.{name}={value!r} has no equivalent in timm's VisionTransformer, which has "
                f"{others}: export to onnx or torch"
            )
    assert isinstance(model, ViTConfig)
    if any(side % model.patch_size for side in input_size):
        raise VitlabError(
            "model.pad_to_patch=True has no equivalent in timm's VisionTransformer for images of "
            f"{tuple(input_size)}: export to onnx or torch"
        )
    return {
        "img_size": list(input_size),
        "patch_size": model.patch_size,
        "in_chans": config.data.channels,
        "num_classes": config.data.classes,
        "global_pool": "token" if model.pool == "cls" else "avg",
        "embed_dim": model.width,
        "depth": model.depth,
        "num_heads": model.heads,
        "mlp_ratio": round(model.ffn_ratio * model.width) / model.width,
        "qkv_bias": model.qkv_bias,
        "qk_norm": model.qk_norm,
        "init_values": model.layer_scale or None,
        "class_token": model.cls_token,
        "no_embed_class": not model.position_on_cls,
        "reg_tokens": model.registers,
        "fc_norm": False,
    }


def tensors(model: nn.Module, config: ViTConfig) -> dict[str, Tensor]:
    """A model's weights under timm's names. Its registers have positions there: zeros."""
    found = dict(model.state_dict())
    table = found.pop("pos_embed.weight")
    if config.position_on_cls and config.registers:
        cls, patches = table.tensor_split([1], dim=1)
        table = torch.cat([cls, cls.new_zeros(1, config.registers, config.width), patches], dim=1)
    found["pos_embed"] = table
    return {name: tensor.contiguous() for name, tensor in found.items()}


def write(model: nn.Module, config: Config, description: dict[str, Any], folder: Path) -> Path:
    """Write a model for timm into a folder; return the file of its weights.

    `description` is what `Classifier.to_dict` says of it.
    """
    made = {
        "class": CLASS,
        "arguments": arguments(config, description["input_size"]),
        "preprocessing": description,
    }
    assert isinstance(config.model, ViTConfig)
    file = folder / "model.safetensors"
    write_bytes(file, save(tensors(model, config.model)))
    write_json(folder / "timm.json", made)
    return file


def read(folder: Path, config: Config) -> nn.Module:
    """The model that a folder describes: timm's own, or ours where timm is not installed."""
    weights = read_tensors(folder / "model.safetensors")
    described = json.loads((folder / "timm.json").read_text(encoding="utf-8"))["arguments"]
    if installed():
        declare_torchvision_operators()
        from timm.models.vision_transformer import (  # pyright: ignore[reportMissingImports]
            VisionTransformer,
        )

        model: nn.Module = VisionTransformer(**described)
    else:
        model = build_model(config)
        model.resize(tuple(described["img_size"]))
        weights = rename(weights)
        assert isinstance(config.model, ViTConfig)
        if config.model.position_on_cls and config.model.registers:
            rows = weights["pos_embed.weight"]
            weights["pos_embed.weight"] = torch.cat(
                [rows[:, :1], rows[:, 1 + config.model.registers :]], dim=1
            )
    model.load_state_dict(weights)
    return model.eval()


def reader() -> str:
    """Who reads the files back here."""
    if not installed():
        return "vitlab, because timm is not installed here"
    from importlib.metadata import version

    return f"timm {version('timm')}"


def installed() -> bool:
    """True where timm is."""
    return importlib.util.find_spec("timm") is not None


def declare_torchvision_operators() -> None:
    """Let torchvision be imported beside a torch that its wheel was not built for.

    timm and vit-pytorch import it, and it refuses while two of its operators are unknown.
    Nothing that we use of them calls those.
    """
    if importlib.util.find_spec("torchvision") and not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define(
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        )
        _LIBRARIES.append(library)


_LIBRARIES: list[torch.library.Library] = []
"""Operators live as long as the library that declared them."""

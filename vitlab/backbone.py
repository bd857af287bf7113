"""What a model that others trained makes of images: a name or a folder -> one vector per image.

Weights are read as safetensors alone, so nothing that is downloaded can run. It needs the extra
`pretrained`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitlab.errors import DataError
from vitlab.preprocessing import preprocess, to_tensor

BATCH = 50
"""Images at once: these models are made for large ones."""


def backbone_features(name: str, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Describe uint8 images (N, H, W, 1 or 3) by a pretrained model: float32 (N, D).

    Args:
        name: of a model on the Hugging Face hub, or a folder in that form: any that transformers
            opens as an image model, like google/vit-base-patch16-224-in21k, microsoft/resnet-50.

    Returns:
        The CLS token of the last layer where the model has one, otherwise the mean over all
        tokens or places. Images are brought to the model's own size and statistics.
    """
    model, size, mean, std = _load(name)
    model = model.to(device).eval()
    has_cls = any(key.endswith("cls_token") for key, _ in model.named_parameters())
    parts = []
    for start in range(0, len(images), BATCH):
        part = to_tensor(images[start : start + BATCH]).to(device).expand(-1, 3, -1, -1)
        pixels = preprocess(part, mean, std, size)
        with torch.inference_mode():
            last = model(pixel_values=pixels).last_hidden_state
        parts.append(_summary(last.float(), has_cls).cpu().numpy())
    return np.concatenate(parts)


def _summary(last: Tensor, has_cls: bool) -> Tensor:
    """Tokens (B, T, D) or maps (B, D, rows, columns) to one vector per image, (B, D)."""
    if last.ndim == 4:
        return last.mean(dim=(2, 3))
    return last[:, 0] if has_cls else last.mean(dim=1)


def _load(name: str) -> tuple[Any, tuple[int, int], list[float], list[float]]:
    """A model, and the size (height, width), mean and deviation that it wants."""
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise DataError(
            f"a pretrained backbone needs the extra `pretrained`: pip install 'vitlab[pretrained]' "
            f"({error})"
        ) from None
    try:
        # The settings alone: the classes that would apply them ask for torchvision.
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
        model = AutoModel.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise DataError(
            f"no backbone {name!r}: give the name of an image model on the Hugging Face hub or a "
            f"folder with its config.json, preprocessor_config.json and safetensors\n{error}"
        ) from None
    return model, _size(settings["size"]), settings["image_mean"], settings["image_std"]


def _size(size: dict[str, int] | int) -> tuple[int, int]:
    """Height and width of the settings, which name both, the shorter edge, or one number."""
    if isinstance(size, int):
        return size, size
    height, width = (
        size[side if side in size else "shortest_edge"] for side in ("height", "width")
    )
    return height, width

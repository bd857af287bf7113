"""Features of a network that is not trained further: what its last linear layer reads of an image.

They are kept in the cache by the content of image and network, so that the second question about
the same pictures costs seconds. The cache may be deleted at any time.

N images   H, W height and width   C channels   D numbers that describe an image
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from vitlab.config import BackboneConfig, Config, DataConfig
from vitlab.data.batches import DeviceImages
from vitlab.data.find import cache_folder
from vitlab.data.labelled import LabelledImages, key_of
from vitlab.files import replacing
from vitlab.inference import at_once, evaluating, inputs_of, last_layer
from vitlab.models import build_model
from vitlab.preprocessing import preprocess
from vitlab.pretrained.backbones import read_backbone, resolve
from vitlab.progress import ProgressBar

VERSION = 1
"""Number of the way features are computed; those kept under another are not used."""

BATCH = 32
"""Images at once, as far as memory allows. The last batch is filled up, so that the last bits of an
image's features do not depend on the images beside it."""

KEPT = 256
"""Images whose features are kept together: what an interruption can cost."""


class Frozen:
    """A network in evaluation mode, and what it needs of an image.

    Args:
        model: maps normalised images (B, C, height, width) to logits; its `head` ends in a linear
            layer.
        mean, std: per channel, in 0..1.
        size: height and width in pixels of what enters it.
    """

    def __init__(
        self, model: nn.Module, mean: Sequence[float], std: Sequence[float], size: tuple[int, int]
    ):
        self.model = model
        self.mean, self.std, self.size = mean, std, size

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.model.parameters()).device

    @cached_property
    def sha256(self) -> str:
        """Hash of its weights without those of its last layer, and of what it does to an image."""
        last = {id(weight) for weight in last_layer(self.model).parameters()}
        weights = {
            name: weight.detach().cpu().contiguous()
            for name, weight in self.model.state_dict(keep_vars=True).items()
            if id(weight) not in last
        }
        form = [VERSION, self.mean, self.std, self.size, self.device.type, torch.__version__]
        digest = hashlib.sha256(json.dumps(form).encode())
        digest.update(save(weights))
        return digest.hexdigest()

    def features(
        self,
        examples: LabelledImages,
        index: np.ndarray,
        *,
        quiet: bool = False,
        what: str = "images",
    ) -> np.ndarray:
        """Features of some of labelled images: float32 (N, D).

        Args:
            index: places of the images (N,).
            quiet: show no progress.
            what: what they are called where progress is shown.
        """
        folder, keys = self._folder, keys_of(examples, index)
        known = _read(folder)
        missing = np.array([key not in known for key in keys.tolist()])
        _, first = np.unique(keys[missing], return_index=True)
        places = np.flatnonzero(missing)[np.sort(first)]
        done, total = 0, len(places)
        with ProgressBar(quiet=quiet) as bar:
            for start in range(0, total, KEPT):
                part = places[start : start + KEPT]
                found = []
                for vectors in self._compute(examples, index[part]):
                    found.append(vectors)
                    done += len(vectors)
                    bar.update(done, total, f"features of {what}", f"{done:,} of {total:,}")
                known |= dict(zip(keys[part].tolist(), np.concatenate(found), strict=True))
                _write(folder, keys[part], np.concatenate(found))
        return np.stack([known[key] for key in keys.tolist()])

    def missing(self, examples: LabelledImages, index: np.ndarray) -> int:
        """How many of some images have no features in the cache yet."""
        known = _read(self._folder)
        return sum(key not in known for key in keys_of(examples, index).tolist())

    @property
    def _folder(self) -> Path:
        return cache_folder() / "features" / self.sha256[:32]

    @torch.inference_mode()
    def logits(self, features: np.ndarray) -> np.ndarray:
        """What the last layer makes of features (N, D): float32 (N, K)."""
        return last_layer(self.model)(torch.from_numpy(features).to(self.device)).cpu().numpy()

    def _compute(self, examples: LabelledImages, index: np.ndarray) -> Iterator[np.ndarray]:
        images = DeviceImages(examples, index, self.device)
        count = at_once(self.model, (examples.images.shape[-1], *self.size), BATCH)
        with (
            evaluating(self.model),
            torch.inference_mode(),
            inputs_of(last_layer(self.model)) as caught,
        ):
            for start in range(0, len(images), count):
                part = images[start : start + count]
                real = len(part)
                if real < count:
                    part = torch.cat((part, part[-1:].expand(count - real, -1, -1, -1)))
                self.model(preprocess(part, self.mean, self.std, self.size))
                yield caught.pop()[:real].float().cpu().numpy()


def keys_of(examples: LabelledImages, index: np.ndarray) -> np.ndarray:
    """Hashes of images as they are given, at whatever size: uint64 (N,)."""
    return np.array([key_of(examples.images[place]) for place in index.tolist()], np.uint64)


def open_backbone(name: str, channels: Literal[1, 3], device: torch.device) -> Frozen:
    """A pretrained backbone by name, for images of so many channels; DataError if there is none."""
    data = DataConfig(image_size=(224, 224), channels=channels, classes=2)
    config = resolve(Config(data=data, model=BackboneConfig(name=name)))
    assert isinstance(config.model, BackboneConfig) and config.model.input_size
    model = build_model(config)
    model.load_state_dict(read_backbone(name), strict=False)
    return Frozen(
        model.to(device).eval(), *config.model.statistics(channels), config.model.input_size
    )


def _read(folder: Path) -> dict[int, np.ndarray]:
    """What is kept in a folder, by the key of the image; what is damaged is computed anew."""
    known: dict[int, np.ndarray] = {}
    for file in folder.glob("*.npz"):
        try:
            with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as stored:
                known |= dict(zip(stored["keys"].tolist(), stored["features"], strict=True))
        except Exception:  # a damaged archive fails in many ways
            continue
    return known


def _write(folder: Path, keys: np.ndarray, features: np.ndarray) -> None:
    name = hashlib.sha256(keys.tobytes()).hexdigest()[:32]
    try:
        with replacing(folder / f"{name}.npz") as file:
            np.savez(file, keys=keys, features=features)
    except OSError as error:
        warnings.warn(f"features are not kept for the next time: {error}", stacklevel=4)

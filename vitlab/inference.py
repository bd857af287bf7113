"""From images to logits: the one path that evaluation, prediction and service share.

(model, uint8 images) -> logits
(run, uint8 images)   -> logits, by the model the run ended with
run                   -> its model; the images that it was trained on
"""

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from vitlab.data import ARRAYS, LabelledImages, find_again, from_arrays, load_train
from vitlab.data.augment import normalize
from vitlab.data.batches import resize
from vitlab.data.images import convert
from vitlab.device import autocast, choose_device, choose_precision, multiplies_bf16
from vitlab.errors import DataError, RunError
from vitlab.models import build_model
from vitlab.models.attention import set_attention
from vitlab.models.cost import activation_bytes
from vitlab.run import Checkpoint, Run
from vitlab.tensors import read_tensors

Data = LabelledImages | tuple[np.ndarray, np.ndarray] | None

BATCH = 500
"""Images that are classified at once, as far as `at_once` allows."""

WORKING = 1 << 30
"""Bytes that a model may hold inside while it answers. The same on every machine, because the last
bits of an answer depend on how many images are asked at once."""

SMALL = 32 * 32
"""Pixels of images of which any model takes as many at once as were asked for."""


def compute_logits(
    model: nn.Module,
    images: Tensor,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: tuple[int, int],
    precision: str = "fp32",
) -> Tensor:
    """Run a model over images in batches.

    Args:
        images: uint8 (N, C, H, W), on the model's device.
        mean, std: statistics per channel in 0..1, as stored in the run.
        size: height and width in pixels the model is set to.

    Returns:
        Logits (N, K), float32, on the same device. The model's mode is left as it was.
    """
    with evaluating(model), torch.inference_mode(), autocast(images.device, precision):
        count = at_once(model, (images.shape[1], *size), min(BATCH, len(images)))
        parts = [model(prepare(part, mean, std, size)).float() for part in images.split(count)]
    return torch.cat(parts)


def at_once(
    model: nn.Module,
    shape: Sequence[int],
    most: int,
    *,
    gradients: bool = False,
    traced: bool = False,
) -> int:
    """How many images of (C, height, width) a model is given at once: at least 1.

    `most`, or fewer where they are large and their numbers inside the model, kept for gradients or
    traced, would take more than WORKING.
    """
    if most == 1 or (shape[1] * shape[2] <= SMALL and not traced):
        return max(1, most)
    known = _bytes.setdefault(model, {})
    key = (*shape, gradients, traced)
    if key not in known:
        known[key] = activation_bytes(model, (1, *shape), gradients=gradients, traced=traced)
    return max(1, min(most, WORKING // max(1, known[key])))


_bytes: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, ...], int]] = (
    weakref.WeakKeyDictionary()
)
"""What `at_once` found for one image, by model and what it was asked."""


def prepare(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], size: tuple[int, int]
) -> Tensor:
    """Map uint8 images (N, C, H, W) to what enters a model: normalised, of the model's size."""
    return resize(normalize(images, mean, std), size)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def open_model(run: Run, checkpoint: Checkpoint, device: torch.device) -> nn.Module:
    """Build a run's model with a checkpoint's weights: the weight average where there is one."""
    config = run.config
    with torch.random.fork_rng(devices=[]):
        model = build_model(config)
    size = checkpoint.state["image_size"]
    model.resize(size)
    weights = checkpoint.average if config.optim.average_decay else checkpoint.model
    try:
        model.load_state_dict(read_tensors(weights))
    except RuntimeError as error:
        raise RunError(f"{weights} does not fit the run's config: {error}") from error
    if device.type == "cpu":
        set_attention(model, run.provenance.get("attention", {}).get("value", "auto"))
    return model.to(device).eval()


def inference_precision(run: Run, device: torch.device) -> str:
    """The precision in which a run answers: on a CPU that of its training, where it is native."""
    if device.type != "cpu":
        return choose_precision(run.config.train, device).value
    trained = run.provenance["precision"]["value"]
    return "bf16" if trained == "bf16" and multiplies_bf16(device) else "fp32"


def open_examples(
    run: Run, data: Data = None, data_root: str | os.PathLike[str] | None = None
) -> LabelledImages:
    """Read the images that a run was trained on, those of its validation included.

    Args:
        data: the same images and labels in memory, instead of `config.data.dataset`.
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.

    Raises DataError for images that are not those of the run.
    """
    origin, split = run.provenance["data"], run.split
    if isinstance(data, LabelledImages):
        examples = data.canonical()
    elif data is not None:
        examples = from_arrays(*data, class_names=origin["class_names"])
    elif run.config.data.dataset == ARRAYS:
        raise DataError(f"{run.path} was trained on arrays in memory: hand them in as data=")
    else:
        examples = load_train(find_again(run.config.data, data_root), data_root)
    if examples.fingerprint != origin["fingerprint"]:
        raise DataError(
            f"these are not the images that {run.path} was trained on: "
            f"{changes(split.keys, examples.keys)}. Point --data-root at the original"
        )
    return examples


def changes(before: np.ndarray, now: np.ndarray) -> str:
    """What became of a run's images, by their keys before and now."""
    gone, new = len(np.setdiff1d(before, now)), len(np.setdiff1d(now, before))
    if not gone and not new:
        return f"the same {len(now):,} pictures, of other classes, size or number of copies"
    return f"{gone:,} of {len(before):,} are gone and {new:,} are new"


def predict(
    run: Run | str | os.PathLike[str], images: np.ndarray, device: str = "auto"
) -> np.ndarray:
    """Classify images with a trained run.

    Args:
        run: a Run or its path.
        images: uint8 (N, H, W, C) or a single (H, W, C), of the run's channels; any other
            height and width is brought to them as the run's data set was (`data.fit`).

    Returns:
        Logits (N, K) float32.
    """
    run = run if isinstance(run, Run) else Run(run)
    images = np.asarray(images)
    batch = images[None] if images.ndim == 3 else images
    data = run.config.data
    size, channels = data.image_size, data.channels
    assert size and channels, "a run's config is resolved"
    if batch.ndim != 4 or batch.shape[-1] != channels or batch.dtype != np.uint8:
        raise DataError(
            f"images of shape {images.shape} and type {images.dtype} do not fit: "
            f"expected uint8 (N, H, W, {channels})"
        )
    if batch.shape[1:3] != size:
        batch = np.stack([convert(image, size, channels, data.fit) for image in batch])
    where = choose_device(device)
    checkpoint = run.checkpoint()
    statistics = run.provenance["data"]
    logits = compute_logits(
        open_model(run, checkpoint, where),
        torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2).to(where),
        mean=tuple(statistics["mean"]),
        std=tuple(statistics["std"]),
        size=checkpoint.state["image_size"],
        precision=inference_precision(run, where),
    )
    return logits.cpu().numpy()

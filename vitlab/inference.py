"""A trained model with its preprocessing: what evaluation, prediction and service stand on.

model = vitlab.load("cpu")
model.classify("photo.jpg")   # the likeliest classes, and how sure the model is
model.logits(images)          # uint8 (N, H, W, C) -> (N, K)

N images   H, W height and width   C channels   K classes
"""

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from vitlab.card import card
from vitlab.data import ARRAYS, Data, LabelledImages, from_arrays, open_dataset, relocate
from vitlab.data.labelled import key_of
from vitlab.device import autocast, choose_device, choose_precision, multiplies_bf16
from vitlab.errors import DataError, RunError, VitlabError
from vitlab.metrics import FEW_FOR_TEMPERATURE, conformal, require_finite
from vitlab.metrics.ood import Detector, read_detector
from vitlab.metrics.tasks import TASKS, Task
from vitlab.models import build_model
from vitlab.models.attention import set_attention_backend
from vitlab.models.cost import activation_bytes
from vitlab.preprocessing import Pictures, Preprocessing, preprocess, to_tensor
from vitlab.pretrained import find_run
from vitlab.run import Checkpoint, CheckpointChoice, Run
from vitlab.tensors import read_tensors

BATCH = 500
"""Images that are classified at once, as far as `at_once` allows."""

WORKING = 1 << 30
"""Bytes that a model's activations may take in inference. The same on every machine, because the
last bits of an answer depend on how many images are classified at once."""

SMALL = 32 * 32
"""Pixels of images of which any model takes as many at once as were asked for."""


class Prediction(NamedTuple):
    """What a model says of one picture, as numbers."""

    probabilities: np.ndarray
    """Of the classes, (K,), after temperature scaling."""
    distance: float | None
    """From the training images, as `metrics.ood` measures it; None without a detector."""
    uniform: float
    """From 0 to 1, drawn by the picture's pixels: what is random in a prediction set."""


class Classifier(ABC):
    """A trained model that classifies pictures, whatever computes it.

    Pictures are files, bytes or arrays of any height and width, one or many; see
    `preprocessing.Pictures`. May be used from several threads at once.
    """

    engine: str
    """What computes: torch or onnx."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        card: dict[str, Any],
        run: Run | None,
    ):
        self.preprocessing = preprocessing
        """What pictures need."""
        self.class_names = tuple(class_names)
        """One per logit, in order."""
        self.card = card
        """Numbers of the model, as `vitlab.card.card` has them."""
        self.run = run
        """The run that it comes from; None where there is only an export of it."""
        self.detector: Detector | None = None
        """Tells pictures that are unlike the training images; None where none was fitted."""
        self.notes: tuple[str, ...] = tuple(self._notes())
        """What its user should know, a sentence each."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {', '.join(self.class_names)})"

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.card["name"]

    @property
    def task(self) -> Task:
        """What it was trained for: one class of a picture, or every label that fits."""
        return TASKS[self.card.get("task", "multiclass")]  # exports of earlier versions have none

    @property
    def calibrated(self) -> bool:
        """True if the temperature was measured; without it probabilities are the model's own."""
        return self.card["temperature"] is not None

    def _notes(self) -> Iterator[str]:
        if not self.calibrated:
            yield not_calibrated(self.run)
        elif (few := self.card["validation_images"]) and few < FEW_FOR_TEMPERATURE:
            yield (
                f"calibrated on {few} validation images only: how sure the model is may be far off"
                + (", and the thresholds of its labels too" if "thresholds" in self.card else "")
            )
        if self.task.score == "mean_average_precision" and not self.calibrated:
            yield "the threshold of every label is 50 %, as none was tuned on validation images"

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 if never measured."""
        return self.card["temperature"] if self.calibrated else 1.0

    @property
    def introduction(self) -> str:
        """The model in a sentence: what it learned and how often it is right."""
        card, names = self.card, self.class_names
        shown = ", ".join(names if len(names) <= 12 else (*names[:12], f"{len(names) - 12} more"))
        right = "how often it is right was not measured"
        for split in ("validation", "test"):
            if (score := card[f"{split}_{self.task.score}"]) is not None:
                images = f"{card[f'{split}_images']:,} {split} images of {card['dataset']}"
                right = f"{self.task.reached.format(f'{score:.1%}')} {images}"
                if split == "validation" and card.get("cross_validated"):
                    right += ", by cross-validation"
        return f"{self.name}: {right}. It knows {shown}, and nothing else"

    @abstractmethod
    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map uint8 images (N, C, H, W) to logits (N, K) and what its last layer reads of them,
        features (N, D), both float32; None where an export has no features.
        """

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (N, C, H, W) to logits (N, K) float32."""
        return self.outputs(images)[0]

    def logits(self, pictures: Pictures) -> np.ndarray:
        """Logits (N, K) float32 of pictures; DataError for what is none."""
        return self(to_tensor(self.preprocessing.images(pictures))).cpu().numpy()

    def probabilities(self, pictures: Pictures) -> np.ndarray:
        """Probabilities (N, K) float64 of pictures, after temperature scaling.

        VitlabError if the model's logits are not finite.
        """
        return self._scaled(self.logits(pictures))

    def _scaled(self, logits: np.ndarray) -> np.ndarray:
        require_finite(logits)
        return self.task.probabilities(logits.astype(np.float64) / self.temperature)

    def predict(self, pictures: Pictures) -> list[Prediction]:
        """The numbers behind the answer to each picture."""
        images = self.preprocessing.images(pictures)
        logits, features = self.outputs(to_tensor(images))
        probabilities = self._scaled(logits.cpu().numpy())
        distances: list[float | None] = [None] * len(images)
        if self.detector is not None and features is not None:
            distances = self.detector.distances(features.cpu().numpy()).tolist()
        uniforms = [(key_of(image) >> 11) / (1 << 53) for image in images]
        return [Prediction(*one) for one in zip(probabilities, distances, uniforms, strict=True)]

    def is_unknown(self, pictures: Pictures) -> np.ndarray:
        """Which pictures are unlike anything the model was trained on: bool (N,).

        VitlabError if that was never measured.
        """
        distances = [one.distance for one in self.predict(pictures)]
        if self.detector is None or None in distances:
            raise VitlabError(
                f"what is unlike the training images of {self.name} was never measured: "
                "`vitlab evaluate` does it; an export is to be written again"
            )
        return np.array(distances) > self.detector.threshold

    def classify(
        self, pictures: Pictures, top: int = 3, coverage: int | None = None
    ) -> list[dict[str, Any]]:
        """The answer to each picture: its likeliest classes or its labels, as `answer` has them."""
        return [self.answer(one, top, coverage) for one in self.predict(pictures)]

    def answer(
        self, prediction: Prediction, top: int = 3, coverage: int | None = None
    ) -> dict[str, Any]:
        """What is said of one picture.

        Args:
            top: likeliest classes to name.
            coverage: percent of pictures whose class is to be in the set of classes, 50 to 99.

        Returns:
            {"top": [{"class", "probability"}, ...], likeliest first; "certainty": sure above
            0.9, fairly sure above 0.7, else unsure; "unknown": true if the picture is unlike
            anything the model was trained on, None where that was not measured}. With a coverage
            also "set": [class, ...], likeliest first. Of a model of several labels "labels":
            [{"class", "probability", "threshold"}, ...], every label whose probability is at least
            its threshold, instead of the certainty; "top": the likeliest labels in the same form,
            given or not

        ConfigError for a coverage that is none, VitlabError where no set was calibrated.
        """
        probabilities, distance, uniform = prediction
        thresholds = self.card.get("thresholds")
        said = self.task.answer(probabilities, self.class_names, thresholds, top)
        said["unknown"] = None
        if self.detector is not None and distance is not None:
            said["unknown"] = distance > self.detector.threshold
        if coverage is not None:
            limit = conformal.threshold(self._calibrated_sets(), coverage)
            row = np.array([uniform])
            (inside,) = conformal.prediction_sets(probabilities[None], row, limit)
            order = np.argsort(-probabilities, kind="stable")
            said["set"] = [self.class_names[k] for k in order if inside[k]]
        return said

    def _calibrated_sets(self) -> list[float | None]:
        if found := self.card.get("conformal_thresholds"):
            return found
        if self.task.score != "accuracy":
            raise VitlabError("prediction sets hold one class: this model gives several labels")
        raise VitlabError(f"no prediction sets: {not_calibrated(self.run)}")

    def to_dict(self) -> dict[str, Any]:
        """What an export says of the model besides its card, as JSON values."""
        names = ("name", "temperature", "checkpoint_sha256", "thresholds")
        return {
            **{name: self.card[name] for name in names if name in self.card},
            "class_names": self.class_names,
            **asdict(self.preprocessing),
        }


def not_calibrated(run: Run | None) -> str:
    """That how sure a model is was never measured, and what measures it; None is an export."""
    way = "`vitlab evaluate` does it"
    if run is None:
        way = "`vitlab evaluate` of its run does it, and then another export"
    elif run.config.data.validation_fraction == 0:
        way = "it was trained on all images, so that none is left for it"
    return (
        "not calibrated: these weights were never evaluated on validation images, so how sure the "
        f"model is was not measured; {way}"
    )


class TrainedModel(Classifier):
    """The model of a run's checkpoint with its preprocessing, on a device, ready to answer.

    `vitlab.load` opens one. Once it is open it needs no file of the run.
    """

    engine = "torch"
    run: Run

    def __init__(self, run: Run, checkpoint: Checkpoint, device: torch.device):
        class_names = run.provenance["data"]["class_names"]
        facts = card(run, checkpoint)
        super().__init__(Preprocessing.of(run, checkpoint), class_names, facts, run)
        self.checkpoint = checkpoint
        self.device = device
        self.precision = inference_precision(run, device)
        """fp32 or bf16: the arithmetic of its answers."""
        self.module = open_model(run, checkpoint, device)
        """The network in evaluation mode: normalised images (N, C, height, width) to logits."""
        self.detector = stored_detector(run, checkpoint)

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (N, C, H, W) to logits (N, K) float32 on the model's device."""
        form = self.preprocessing
        return compute_logits(
            self.module,
            images.to(self.device),
            mean=form.mean,
            std=form.std,
            size=form.input_size,
            precision=self.precision,
        )

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 images (N, C, H, W) to logits (N, K) and features (N, D) on its device."""
        with inputs_of(last_layer(self.module)) as features:
            logits = self(images)
        return logits, torch.cat(features).float()

    def prepare(self, pictures: Pictures) -> Tensor:
        """Bring pictures to what enters `module`: (N, C, height, width) on its device."""
        images = to_tensor(self.preprocessing.images(pictures))
        return self.preprocessing(images.to(self.device))

    @torch.inference_mode()
    def trace(self, pictures: Pictures) -> tuple[dict[str, Tensor], Tensor]:
        """What every layer makes of pictures, by name, first to last, and their logits (N, K).

        Tokens are (N, T, D), maps of a CNN (N, D, rows, columns), attention (N, heads, T, T). All
        of it is in memory at once: `at_once(..., traced=True)` says for how many pictures.
        """
        layers: dict[str, Tensor] = {}
        logits = self.module(self.prepare(pictures), layers)
        return layers, logits

    def to(self, device: torch.device) -> Self:
        """Move the model to another device."""
        self.module.to(device)
        self.device = device
        return self


def load(
    run: Run | str | os.PathLike[str],
    *,
    checkpoint: CheckpointChoice = "last",
    device: str = "auto",
) -> TrainedModel:
    """Open a trained model to classify pictures, or to look into it.

    Args:
        run: the name of a shipped model (cpu, cpu-plain, cpu-cnn), a run's folder, or a Run.
        checkpoint: last, or best by validation accuracy.
        device: auto, cpu, cuda, ...

    RunError if there is no such run, or no sound checkpoint in it.
    """
    found = find_run(run)
    return TrainedModel(found, found.checkpoint(checkpoint), choose_device(device))


def predict(
    run: Run | str | os.PathLike[str], images: np.ndarray, device: str = "auto"
) -> np.ndarray:
    """Classify images with a trained run: `load(run, device=device).logits(images)`.

    Args:
        run: a Run, its path or the name of a shipped model.
        images: uint8 (N, H, W, C) or a single (H, W, C), of the run's channels; any other
            height and width is brought to them as the run's data set was (`data.fit`).

    Returns:
        Logits (N, K) float32.
    """
    return load(run, device=device).logits(images)


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
        parts = [model(preprocess(part, mean, std, size)).float() for part in images.split(count)]
    return torch.cat(parts)


def last_layer(model: nn.Module) -> nn.Linear:
    """The linear layer that makes a model's logits."""
    *_, last = model.get_submodule("head").modules()
    if not isinstance(last, nn.Linear):
        raise VitlabError(f"the head of {type(model).__name__} ends in no linear layer")
    return last


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what enters a layer while this thread computes, a tensor a call."""
    caught: list[Tensor] = []
    thread = threading.get_ident()

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        # Others may be using the model too, and copies of a model have its hooks.
        if module is layer and threading.get_ident() == thread:
            caught.extend(given)

    hook = layer.register_forward_pre_hook(keep)
    try:
        yield caught
    finally:
        hook.remove()


def at_once(
    model: nn.Module,
    shape: Sequence[int],
    most: int,
    *,
    gradients: bool = False,
    traced: bool = False,
) -> int:
    """How many images of (C, height, width) a model is given at once: at least 1.

    `most`, or fewer where they are large and their activations, kept for gradients or traced,
    would take more than WORKING.
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
"""Bytes that `at_once` found for one image, by model and the form of the input."""


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
    model.resize(checkpoint.image_size)
    weights = run.weights(checkpoint)
    try:
        model.load_state_dict(read_tensors(weights))
    except RuntimeError as error:
        raise RunError(f"{weights} does not fit the run's config: {error}") from error
    if device.type == "cpu":
        set_attention_backend(model, run.provenance.get("attention", {}).get("value", "auto"))
    return model.to(device).eval()


def stored_detector(run: Run, checkpoint: Checkpoint) -> Detector | None:
    """What tells images unlike the training images of a checkpoint; None if never evaluated."""
    for which in ("last", "best"):
        if found := read_detector(run.detector(which), checkpoint.sha256):
            return found
    return None


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
        task = run.config.data.task
        examples = from_arrays(*data, class_names=origin["class_names"], task=task)
    elif run.config.data.dataset == ARRAYS:
        raise DataError(f"{run.path} was trained on arrays in memory: hand them in as data=")
    else:
        config = relocate(run.config.data, data_root)
        examples = open_dataset(config, root=data_root).examples
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

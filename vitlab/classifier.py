"""Pictures to answers: what predict and serve ask, whoever holds the weights.

    source -> Classifier: a picture -> pixels -> logits -> probabilities -> an answer in words

The pixels become what enters the model by the function that evaluation uses; ONNX Runtime or torch
does the rest.
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from vitlab.card import Terms, card, terms
from vitlab.data.arrays import check_images
from vitlab.data.images import Fit, decode
from vitlab.device import choose_device
from vitlab.errors import RunError, VitlabError
from vitlab.export import MODEL, Session, exported, read_export
from vitlab.inference import BATCH, compute_logits, inference_precision, open_model, prepare
from vitlab.metrics import certainty, log_softmax, require_finite
from vitlab.pretrained import names, open_run, shipped
from vitlab.run import Run

Engine = Literal["auto", "onnx", "torch"]

SHIPPED = "cpu"
"""The shipped model that answers where none is named."""

Ask = Callable[[torch.Tensor], np.ndarray]
"""What maps uint8 images (N, C, H, W) to logits (N, K) float32."""


class Classifier:
    """A model that is asked about pictures. May be used from several threads at once.

    N images of H x W pixels and C channels, as `image_size` and `channels` say; K classes
    """

    def __init__(
        self,
        terms: Terms,
        card: dict[str, Any],
        ask: Ask,
        *,
        engine: str,
        run: Run | None = None,
        notes: Sequence[str] = (),
    ):
        self.terms = terms
        self.card = card
        """Numbers of the model, as `vitlab.card.card` has them."""
        self.engine = engine
        """Who computes: onnx or torch."""
        self.run = run
        """The run, or None where only an export is there."""
        self.notes = (*notes, *([] if terms.temperature else [not_calibrated(run)]))
        """What whoever asks should know, a sentence each."""
        self._ask = ask

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.terms.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """One per logit, in order."""
        return self.terms.class_names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels that every picture is brought to."""
        return self.terms.image_size

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.terms.channels

    @property
    def fit(self) -> Fit:
        """How a picture of another shape comes to `image_size`."""
        return self.terms.fit

    @property
    def calibrated(self) -> bool:
        """True if the temperature was measured; without it probabilities are the model's own."""
        return self.terms.temperature is not None

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 if never measured."""
        return 1.0 if self.terms.temperature is None else self.terms.temperature

    @property
    def introduction(self) -> str:
        """Who answers, in a sentence: what it learned and how often it is right."""
        card, names = self.card, self.class_names
        shown = ", ".join(names if len(names) <= 12 else (*names[:12], f"{len(names) - 12} more"))
        right = "how often it is right was not measured"
        for split in ("validation", "test"):
            if card[f"{split}_accuracy"] is not None:
                images = f"{card[f'{split}_images']:,} {split} images of {card['dataset']}"
                right = f"right on {card[f'{split}_accuracy']:.1%} of {images}"
        return f"{self.name}: {right}. It knows {shown}, and nothing else"

    def pixels(self, source: bytes | Path) -> np.ndarray:
        """Read a picture of any size as uint8 (H, W, C); DataError says why it cannot be read."""
        terms = self.terms
        return decode(source, self.image_size, self.channels, self.fit, grey_range=terms.grey_range)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Pixels uint8 (N, H, W, C) to logits (N, K) float32."""
        shape = (*self.image_size, self.channels)
        if images.shape == shape:
            raise VitlabError(f"images are a single one, {shape}: images[None] is an array of one")
        batch = check_images(images)
        if batch.shape[1:] != shape:
            raise VitlabError(
                f"images of shape {images.shape} and type {images.dtype} do not fit {self.name}: "
                f"expected uint8 (N, {', '.join(map(str, shape))}). Its `pixels` reads a picture so"
            )
        tensor = torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2).contiguous()
        return self._ask(tensor)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Pixels uint8 (N, H, W, C) to probabilities (N, K) float64, after temperature scaling."""
        logits = self.logits(images)
        require_finite(logits)
        return np.exp(log_softmax(logits.astype(np.float64) / self.temperature))

    def answer(self, probabilities: np.ndarray, top: int = 3) -> dict[str, Any]:
        """Probabilities of one image (K,) to its likeliest classes and how sure the model is.

        Returns:
            {"top": [{"class", "probability"}, ...], likeliest first; "certainty": sure above
            0.9, fairly sure above 0.7, else unsure}
        """
        order = np.argsort(-probabilities, kind="stable")[:top]
        best = [
            {"class": self.class_names[k], "probability": float(probabilities[k])} for k in order
        ]
        return {"top": best, "certainty": certainty(float(probabilities.max()))}


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


class Found(NamedTuple):
    """What a source is: a run, or an export of one."""

    run: Run | None
    export: Path | None


def is_source(word: str) -> bool:
    """True if a word means a model: a run's folder, an export of ours, or a shipped model's name.

    A file or folder called like a shipped model is not the model.
    """
    path = Path(word)
    if (path / "config.json").is_file() or (path / MODEL).is_file() or path.suffix == ".onnx":
        return True
    return word in names() and not path.exists()


def open_classifier(
    source: Run | str | os.PathLike[str] | None = None,
    engine: Engine = "auto",
    *,
    device: str = "auto",
    threads: int = 0,
    export: Callable[[Run], Path] = exported,
) -> Classifier:
    """Open a model to ask it about pictures.

    Args:
        source: a Run or its folder, the name of a shipped model, or what `vitlab export` wrote as
            ONNX, fp32 or int8: its folder or its file. None means the shipped model `cpu`.
        engine: who computes a run: onnx, torch, or auto, which is onnx where ONNX Runtime is
            installed. For onnx a run is exported into its own folder once, and again when it has
            another checkpoint. An export is always computed by ONNX Runtime.
        device: where torch computes; ONNX Runtime computes on the CPU.
        threads: CPU threads of ONNX Runtime; 0 lets it choose.
        export: maps a run to the folder of its ONNX export.

    Raises:
        RunError: nothing of the kind there, or damaged.
        VitlabError: an engine that is not installed.
    """
    source = SHIPPED if source is None else source
    path = None if isinstance(source, Run) else Path(source)
    if path is not None and (path.suffix == ".onnx" or (path / MODEL).is_file()):
        return _from_export(path, threads)
    if path is not None and (path / "parity.json").is_file():
        raise RunError(f"{path} is an export without {MODEL}: give the run, or an ONNX export")
    if engine == "torch":
        return _with_torch(_readable(source), device)
    if engine == "auto" and importlib.util.find_spec("onnxruntime") is None:
        return _with_torch(_readable(source), device, TORCH_ANSWERS.format("it is not installed"))
    try:
        run = open_run(source)
        folder = export(run)
    except VitlabError as error:
        if engine == "onnx":
            raise
        return _with_torch(_readable(source), device, TORCH_ANSWERS.format(error))
    return _from_export(folder, threads, run)


TORCH_ANSWERS = "torch answers, not ONNX Runtime: {}"


def _readable(source: Run | str | os.PathLike[str]) -> Run:
    """A run that is only read, so a shipped model need not be copied."""
    if isinstance(source, Run):
        return source
    by_name = str(source) in names() and not (Path(source) / "config.json").is_file()
    return shipped(str(source)) if by_name else Run(source)


def _with_torch(run: Run, device: str, *notes: str) -> Classifier:
    checkpoint = run.checkpoint()
    where = choose_device(device)
    model, seen = open_model(run, checkpoint, where), terms(run, checkpoint)
    precision = inference_precision(run, where)

    def ask(images: torch.Tensor) -> np.ndarray:
        form = {"mean": seen.mean, "std": seen.std, "size": seen.input_size}
        logits = compute_logits(model, images.to(where), **form, precision=precision)
        return logits.cpu().numpy()

    facts = card(run, checkpoint)
    return Classifier(seen, facts, ask, engine="torch", run=run, notes=notes)


def _from_export(path: Path, threads: int, run: Run | None = None) -> Classifier:
    seen, facts = read_export(path)
    if run is not None:
        # A run may have been evaluated since it was exported.
        seen, facts = terms(run, run.checkpoint()), card(run, run.checkpoint())
    session = Session(path / MODEL if path.is_dir() else path, threads)

    def ask(images: torch.Tensor) -> np.ndarray:
        parts = (
            prepare(part, seen.mean, seen.std, seen.input_size) for part in images.split(BATCH)
        )
        return np.concatenate([session(part.numpy()) for part in parts])

    return Classifier(seen, facts, ask, engine="onnx", run=run)

"""A model opened by name to classify pictures, computed by torch or by ONNX Runtime.

    a run, an export, a shipped model's name -> Classifier

Pictures become what enters the model by the code that evaluation uses, whichever engine computes.
"""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vitlab.card import card
from vitlab.errors import RunError, VitlabError
from vitlab.export import DETECTOR, MODEL, Session, exported
from vitlab.inference import BATCH, Classifier, load, stored_detector
from vitlab.metrics.ood import read_detector
from vitlab.preprocessing import Preprocessing
from vitlab.pretrained import names, open_run
from vitlab.run import Run

Engine = Literal["auto", "onnx", "torch"]

SHIPPED = "cpu"
"""The shipped model that answers where none is named."""


class OnnxModel(Classifier):
    """A model that was exported as ONNX, fp32 or int8, computed by ONNX Runtime on the CPU.

    Args:
        path: what `vitlab export` wrote: its folder or its ONNX file.
        threads: CPU threads; 0 lets the runtime choose.
        run: where it was exported from, if that is known: it may have been evaluated since.

    RunError if there is no ONNX file of ours.
    """

    engine = "onnx"

    def __init__(self, path: Path, threads: int = 0, run: Run | None = None):
        file = path / MODEL if path.is_dir() else path
        if not file.is_file():
            raise RunError(f"{file} does not exist")
        self.session = Session(file, threads)
        try:
            stored = self.session.metadata  # others write there too: the quantiser does
            known = {*Preprocessing.__annotations__, "class_names", "card"} & stored.keys()
            values = {name: json.loads(stored[name]) for name in known}
            class_names, facts = values["class_names"], values["card"]
        except (KeyError, ValueError) as error:
            raise RunError(
                f"{file} does not say how it wants its images: it was not written by "
                "`vitlab export`"
            ) from error
        if run is not None:
            facts = card(run, run.checkpoint())
        super().__init__(Preprocessing.from_dict(values), class_names, facts, run)
        if run is not None:
            self.detector = stored_detector(run, run.checkpoint())
        else:
            self.detector = read_detector(file.with_name(DETECTOR), facts["checkpoint_sha256"])

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map uint8 images (N, C, H, W) to logits (N, K) and, if it has them, features (N, D)."""
        parts = [
            self.session.outputs(self.preprocessing(part).numpy()) for part in images.split(BATCH)
        ]
        logits, *features = (
            torch.from_numpy(np.concatenate(each)) for each in zip(*parts, strict=True)
        )
        return logits, features[0] if features else None


def is_source(name: str) -> bool:
    """True if a name means a model: a run's folder, an export of ours, or a shipped model's name.

    A file or folder called like a shipped model is not the model.
    """
    path = Path(name)
    if (path / "config.json").is_file() or (path / MODEL).is_file() or path.suffix == ".onnx":
        return True
    return name in names() and not path.exists()


def open_classifier(
    source: Run | str | os.PathLike[str] | None = None,
    engine: Engine = "auto",
    *,
    device: str = "auto",
    threads: int = 0,
    export: Callable[[Run], Path] = exported,
) -> Classifier:
    """Open a model to classify pictures.

    Args:
        source: a Run or its folder, the name of a shipped model, or what `vitlab export` wrote as
            ONNX, fp32 or int8: its folder or its file. None means the shipped model `cpu`.
        engine: what computes a run: onnx, torch, or auto, which is onnx where ONNX Runtime is
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
    if not isinstance(source, Run):
        path = Path(source)
        if path.suffix == ".onnx" or (path / MODEL).is_file():
            return OnnxModel(path, threads)
        if (path / "parity.json").is_file():
            raise RunError(f"{path} is an export without {MODEL}: give the run, or an ONNX export")
    if engine == "torch":
        return load(source, device=device)
    try:
        if engine == "auto" and importlib.util.find_spec("onnxruntime") is None:
            raise VitlabError("it is not installed")
        run = open_run(source)
        return OnnxModel(export(run), threads, run)
    except VitlabError as error:
        if engine == "onnx":
            raise
        model = load(source, device=device)
        model.notes = (f"torch answers, not ONNX Runtime: {error}", *model.notes)
        return model

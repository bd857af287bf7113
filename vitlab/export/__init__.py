"""A trained model as files that other programs run.

    onnx        fp32, any batch size, with all that belongs to it in its metadata
    onnx-int8   the same in whole numbers, calibrated on training images
    torch       a program of torch.export
    timm        weights for timm's VisionTransformer, and the arguments it is made with
    hub         a folder for the Hugging Face Hub: weights, config, ONNX, a card

An export is a folder that appears by a rename once its logits are those of the run. How that was
found out is in its parity.json.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from vitlab import __version__
from vitlab.data import Data
from vitlab.errors import RunError, VitlabError
from vitlab.export import hub, parity, timm
from vitlab.export.onnx import Session, needed, to_int8, to_onnx
from vitlab.export.parity import Logits, Sample
from vitlab.files import Lock, sha256, write_json
from vitlab.inference import TrainedModel, open_examples
from vitlab.metrics.ood import write_detector
from vitlab.metrics.tasks import TASKS
from vitlab.preprocessing import Preprocessing
from vitlab.pretrained import open_run
from vitlab.run import Checkpoint, Run

__all__ = [
    "DETECTOR", "MODEL", "TARGETS", "Session", "discard_unfinished", "export", "exported", "needed",
    "to_int8", "to_onnx",
]  # fmt: skip

MODEL = "model.onnx"
"""Name of an ONNX file in its folder."""

PARITY = "parity.json"

DETECTOR = "detector.npz"
"""What tells images that are unlike the training images, beside an ONNX file."""

CALIBRATION_IMAGES, CALIBRATION_SEED = 512, 0
"""Training images that int8 is calibrated on, and the seed that draws them."""

INT8_IMAGES = 5_000
"""Validation images on which the accuracy of int8 is measured."""

Target = Literal["onnx", "onnx-int8", "torch", "timm", "hub"]


class Job(NamedTuple):
    """What a writer works with."""

    model: TrainedModel
    data: Data
    data_root: str | os.PathLike[str] | None

    @property
    def example(self) -> torch.Tensor:
        """Two images (2, C, height, width) of the size that enters the model."""
        preprocessing = self.model.preprocessing
        return torch.zeros(2, preprocessing.channels, *preprocessing.input_size)

    @property
    def metadata(self) -> dict[str, str]:
        """What an ONNX file says of itself, each value as JSON."""
        facts = {
            **self.model.to_dict(),
            "card": self.model.card,
            "preprocessing": "decode to image_size by fit, scale to 0..1, subtract mean, divide "
            "by std, per channel; float32 (batch, channel, height, width)",
            "vitlab": __version__,
        }
        return {name: json.dumps(value) for name, value in facts.items()}


def write_onnx(job: Job, folder: Path) -> dict[str, Logits]:
    """Write fp32 ONNX."""
    to_onnx(job.model.module, job.example, folder / MODEL, job.metadata)
    return {MODEL: Session(folder / MODEL)}


def write_int8(job: Job, folder: Path) -> dict[str, Logits]:
    """Write int8 ONNX, calibrated on training images."""
    examples = open_examples(job.model.run, job.data, job.data_root)
    train, _ = job.model.run.split.index
    places = np.random.default_rng(CALIBRATION_SEED).permutation(train)[:CALIBRATION_IMAGES]
    images = job.model.prepare(examples.images[np.sort(places)])
    exact = folder / "exact.onnx"
    to_onnx(job.model.module, job.example, exact, job.metadata)
    to_int8(exact, folder / MODEL, images.numpy())
    exact.unlink()
    return {MODEL: Session(folder / MODEL)}


def write_torch(job: Job, folder: Path) -> dict[str, Logits]:
    """Write a program of torch.export."""
    file = folder / "model.pt2"
    program = torch.export.export(
        job.model.module, (job.example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    program.example_inputs = None  # they would be stored as a pickle
    torch.export.save(program, file, extra_files={"vitlab.json": json.dumps(job.metadata)})
    return {file.name: logits_of(torch.export.load(file).module())}


def write_timm(job: Job, folder: Path) -> dict[str, Logits]:
    """Write weights under timm's names and the arguments of timm's model."""
    config, description = job.model.run.config, job.model.to_dict()
    file = timm.write(job.model.module, config, description, folder)
    return {file.name: logits_of(timm.read(folder, config))}


def write_hub(job: Job, folder: Path) -> dict[str, Logits]:
    """Write weights, config, ONNX and a card, as the Hugging Face Hub wants them."""
    file = hub.write(job.model, folder)
    again = hub.read(file, job.model.run.config, job.model.preprocessing.input_size)
    return {**write_onnx(job, folder), file.name: logits_of(again)}


TARGETS: dict[Target, Callable[[Job, Path], dict[str, Logits]]] = {
    "onnx": write_onnx,
    "onnx-int8": write_int8,
    "torch": write_torch,
    "timm": write_timm,
    "hub": write_hub,
}
"""What writes each kind into a folder; it returns how each model file computes logits."""


def export(
    run: Run | str | os.PathLike[str],
    target: Target,
    out: str | os.PathLike[str] | None = None,
    *,
    data: Data = None,
    data_root: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Write a run's model for another program, and prove that it answers as the run does.

    Args:
        run: a Run, its path, or the name of a shipped model, of which a copy is exported.
        target: a key of TARGETS.
        out: folder to write; default one named after the target in the run's own `export`.
        data: images and labels in memory instead of `config.data.dataset`.
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.

    Returns:
        `folder`, and what parity.json holds: on which images, how far logits differ, in how many
        the class is the same, the accuracy before and after where labels are known, and the
        checkpoint and files it speaks of.

    Raises:
        RunError: no sound checkpoint, or a folder that cannot be or must not be written.
        DataError: int8 without the run's training images.
        VitlabError: a package that is missing, a model that the target cannot hold, or answers
            that differ; nothing is left behind then.
    """
    if target not in TARGETS:
        raise VitlabError(f"{target!r} is no kind of export: {', '.join(TARGETS)}")
    run = open_run(run)
    checkpoint = run.checkpoint()
    count = INT8_IMAGES if target == "onnx-int8" else parity.IMAGES
    sample = parity.draw(run, Preprocessing.of(run, checkpoint), count, data, data_root)
    return _export(run, checkpoint, target, sample, out, data, data_root)


def exported(run: Run) -> Path:
    """The folder of a run's own ONNX export of its last checkpoint, written if it is not there.

    It is compared on images that need no data set, so nothing is read but the run.
    """
    checkpoint, folder = run.checkpoint(), run.exports / "onnx"
    if current(folder, checkpoint):
        return folder
    _export(run, checkpoint, "onnx", parity.crops(Preprocessing.of(run, checkpoint)))
    return folder


def discard_unfinished(run: Run) -> None:
    """Remove what is left of a run's own ONNX export whose process was killed.

    Nothing is removed while another process writes it.
    """
    folder = run.exports / "onnx"
    with suppress(RunError, OSError):
        if unfinished(folder).exists():
            with writing(folder):
                shutil.rmtree(unfinished(folder), ignore_errors=True)


def current(folder: Path, checkpoint: Checkpoint) -> bool:
    """True if an export is of this checkpoint and its files are as they were written."""
    try:
        found = json.loads((folder / PARITY).read_text(encoding="utf-8"))
        return found["checkpoint_sha256"] == checkpoint.sha256 and all(
            sha256(folder / name) == one["sha256"] for name, one in found["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _export(
    run: Run,
    checkpoint: Checkpoint,
    target: Target,
    sample: Sample,
    out: str | os.PathLike[str] | None = None,
    data: Data = None,
    data_root: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    model = TrainedModel(run, checkpoint, torch.device("cpu"))
    folder = Path(out) if out is not None else run.exports / target
    with appearing(folder) as hidden:
        files = TARGETS[target](Job(model, data, data_root), hidden)
        if model.detector is not None and (hidden / MODEL).exists():
            write_detector(hidden / DETECTOR, model.detector, checkpoint.sha256)
        before = parity.compute(logits_of(model.module), model, sample.images)
        checked = {
            name: parity.compare(
                before,
                parity.compute(logits, model, sample.images),
                sample.labels,
                exact=target != "onnx-int8",
            )
            for name, logits in files.items()
        }
        worst = max(checked.values(), key=lambda one: (not one["passed"], one["max_difference"]))
        found = {
            "target": target,
            "run": run.name,
            "checkpoint_sha256": checkpoint.sha256,
            "images": len(sample.images),
            "of": sample.description,
            **worst,
            "checked_by": checkers(target),
            "vitlab": __version__,
            "files": {
                file.name: {
                    "bytes": file.stat().st_size,
                    "sha256": sha256(file),
                    **checked.get(file.name, {}),
                }
                for file in sorted(hidden.iterdir())
            },
        }
        if not found["passed"]:
            raise VitlabError(
                f"{target} does not answer as {run.name} does, and was not written: "
                + "; ".join(sentences(found))
            )
        write_json(hidden / PARITY, found)
    return {"folder": str(folder), **found}


def sentences(found: dict[str, Any]) -> list[str]:
    """What a comparison found, in words."""
    rounding = found["tolerance"]
    said = [
        f"compared on {found['images']:,} {found['of']}, by {found['checked_by']}",
        f"logits differ by up to {found['max_difference']:.1e}"
        + (f" (up to {rounding:.1e} is rounding)" if rounding is not None else ""),
        f"the likeliest class is the same in {found['top1_agreement']:.2%} of images",
    ]
    said += [
        f"{task.title} {found[task.score]['before']:.2%} before, "
        f"{found[task.score]['after']:.2%} after"
        for task in TASKS.values()
        if task.score in found
    ]
    return said


def checkers(target: Target) -> str:
    """What read the files back to compare them."""
    if target == "timm":
        return timm.reader()
    if target == "torch":
        return f"torch {torch.__version__}"
    runtime = f"ONNX Runtime {needed('onnxruntime').__version__}"
    return f"{runtime} and vitlab" if target == "hub" else runtime


def logits_of(module: nn.Module) -> Logits:
    """A module as a function of numpy arrays."""

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return logits


def unfinished(folder: Path) -> Path:
    """The hidden folder in which an export is written."""
    return folder.with_name(f".{folder.name}.tmp")


def writing(folder: Path) -> Lock:
    """What keeps others from writing the same export."""
    return Lock(folder.with_name(f".{folder.name}.lock"))


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A hidden folder that takes the place of another once the block is done, or vanishes.

    RunError if the other holds something that is not an export, or cannot be written.
    """
    try:
        if folder.exists() and not (folder / PARITY).is_file() and any(folder.iterdir()):
            raise RunError(f"{folder} holds something that is no export: choose another --out")
        folder.parent.mkdir(parents=True, exist_ok=True)
        hidden = unfinished(folder)
        with writing(folder):
            try:
                shutil.rmtree(hidden, ignore_errors=True)
                hidden.mkdir()
                yield hidden
                shutil.rmtree(folder, ignore_errors=True)
                hidden.rename(folder)
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror or error}") from error

"""A run directory: everything one training leaves behind, and the only file that knows its names.

    config.json                complete and strict; written first, never again
    provenance.json            command, versions, hardware, threads, data fingerprint and statistics
    split.npz                  the images it was given, by their content: trained on, validated on
    metrics.jsonl              one object a line, in order of step
    checkpoints/step-NNNNNN/   model, average and optimizer as safetensors, state.json, and a
                               manifest.json of sizes and hashes
    finished.json              final numbers; its presence means the run is finished
    teacher/                   a run of its own, where the config names a teacher
    tensorboard/               the metrics as events, where asked for
    results.json results.csv timing.json predictions/ figures/     owned by evaluate
    features/                  owned by features
    explain/                   owned by explain
    export/                    owned by export
    report/                    owned by report

Nothing here is a pickle. A checkpoint is written in a hidden folder and renamed when it is
complete, and is believed only while its files match its manifest. Which checkpoint is the last
and which the best is read off the folder each time, so no pointer can ever be wrong.
"""

import itertools
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vitlab.config import Config
from vitlab.errors import ConfigError, RunError
from vitlab.files import (
    Lock,
    append_json,
    as_json,
    read_json_lines,
    replacing,
    sha256,
    sync_folder,
    write_bytes,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    import numpy as np

KEEP = 2
"""Newest checkpoints kept beside the best: two, so that a damaged one has a predecessor."""

Which = Literal["last", "best"]

TRAINED, VALIDATED = 1, 2


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint folder: the training state before step `step`."""

    path: Path

    @property
    def step(self) -> int:
        """Number of steps taken when it was written."""
        return int(self.path.name.removeprefix("step-"))

    @cached_property
    def state(self) -> dict[str, Any]:
        """What a human can read of it: step, clocks, validation so far."""
        return _read_json(self.path / "state.json")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of what the model takes."""
        height, width = self.state["image_size"]
        return height, width

    @property
    def model(self) -> Path:
        """Weights under training, as safetensors."""
        return self.path / "model.safetensors"

    @property
    def average(self) -> Path:
        """The weight average, as safetensors; exists when the config has one."""
        return self.path / "average.safetensors"

    @property
    def optimizer(self) -> Path:
        """Moments and momenta by parameter name, as safetensors."""
        return self.path / "optimizer.safetensors"

    @cached_property
    def damage(self) -> str | None:
        """What is wrong with its files, or None."""
        try:
            return self.inspect()
        except OSError as error:
            return f"{Path(error.filename or self.path).name} cannot be read: {error.strerror}"

    def inspect(self) -> str | None:
        """What is wrong with its files, or None; OSError if the disk does not hand them out."""
        try:
            manifest = (self.path / "manifest.json").read_text(encoding="utf-8")
            for name, expected in _entries(manifest).items():
                size = (self.path / name).stat().st_size
                if size != expected["bytes"]:
                    return f"{name} has {size} bytes instead of {expected['bytes']}"
                if _content(self.path / name) != expected["sha256"]:
                    return f"the content of {name} has changed"
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except (ValueError, TypeError, KeyError):
            return "manifest.json is not as it was written"
        return None

    @property
    def sha256(self) -> str:
        """Hash of the manifest, and so of everything in the checkpoint."""
        return sha256(self.path / "manifest.json")


class SplitRecord(NamedTuple):
    """Which images a run was given, by their keys (`vitlab.data.LabelledImages.keys`)."""

    keys: "np.ndarray"
    """uint64 (N,), in the order of the examples."""
    part: "np.ndarray"
    """uint8 (N,): TRAINED, VALIDATED, or 0 for an image that was left out."""
    before: "np.ndarray"
    """uint64 (M,): images that the weights it started from were trained on."""

    @property
    def trained(self) -> "np.ndarray":
        """Keys of all images that its weights were ever trained on."""
        import numpy as np

        return np.union1d(self.keys[self.part == TRAINED], self.before)

    @property
    def index(self) -> "tuple[np.ndarray, np.ndarray]":
        """Index of the training and of the validation images into the examples."""
        import numpy as np

        return np.flatnonzero(self.part == TRAINED), np.flatnonzero(self.part == VALIDATED)


class Run:
    """A run on disk. Reading is strict and never writes.

    Args:
        path: the run directory; RunError if it holds no readable config.json.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not (self.path / "config.json").is_file():
            raise RunError(f"{self.path} is not a run: it holds no config.json")
        try:
            self.config = Config.from_dict(_read_json(self.path / "config.json"))
        except ConfigError as error:
            raise RunError(f"{self.path / 'config.json'}: {error}") from error

    @classmethod
    def create(cls, path: Path, config: Config) -> "Run":
        """Begin a run in a claimed folder, config first; refuse one that holds something."""
        if any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise RunError(f"{path} is not empty: choose another --name, or --resume it")
        _sweep(path)
        with _storing(path):
            write_json(path / "config.json", config.to_dict())
        return cls(path)

    @staticmethod
    def begun(path: Path) -> bool:
        """True where there is a run already."""
        return (path / "config.json").is_file()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.resolve().name

    # Readers

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the run comes from: versions, hardware, data fingerprint and statistics."""
        found = _read_json(self.provenance_file)
        for choice in found.values():
            if isinstance(choice, dict) and "word" in choice:  # the name of earlier versions
                choice["value"] = choice.pop("word")
        return found

    @property
    def provenance_file(self) -> Path:
        """File of the provenance; runs of earlier versions have it under another name."""
        before = self.path / "origin.json"
        return before if before.exists() else self.path / "provenance.json"

    @property
    def split(self) -> "SplitRecord":
        """Which images it was trained and validated on; RunError where that is not known."""
        import numpy as np  # here, because the command line shows help without it

        try:
            with np.load(self.path / "split.npz", allow_pickle=False) as stored:
                return SplitRecord(**{name: stored[name] for name in SplitRecord._fields})
        except FileNotFoundError:
            raise RunError(
                f"{self.path} has no split.npz: it is of an earlier vitlab, whose split depended "
                "on the order of the files. It can be looked at, asked and compared; to judge it "
                "anew, train it again"
            ) from None
        except Exception as error:  # a damaged archive fails in many ways
            raise RunError(f"{self.path / 'split.npz'} is damaged: {error}") from error

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Every line of metrics.jsonl, in order."""
        return read_json_lines(self.path / "metrics.jsonl")

    @property
    def finished(self) -> dict[str, Any] | None:
        """Final numbers, or None while the run is not finished."""
        file = self.path / "finished.json"
        return _read_json(file) if file.exists() else None

    @property
    def results(self) -> dict[str, Any]:
        """Evaluations so far, by split; fractions from 0 to 1."""
        file = self.path / "results.json"
        return _read_json(file) if file.exists() else {}

    @property
    def timing(self) -> Path:
        """File of how long an answer takes; beside the results, which repeat themselves."""
        return self.path / "timing.json"

    def predictions(self, split: str) -> Path:
        """File of logits, labels and indices of a split, as npz."""
        return self.path / "predictions" / f"{split}.npz"

    @property
    def figures(self) -> Path:
        """Folder of the pictures that evaluate draws."""
        return self.path / "figures"

    @property
    def features(self) -> Path:
        """Folder of what is known of its layers."""
        return self.path / "features"

    @property
    def explanations(self) -> Path:
        """Folder of what it looks at, and which pictures of that are true."""
        return self.path / "explain"

    @property
    def exports(self) -> Path:
        """Folder of what other programs run of it, one folder per kind."""
        return self.path / "export"

    @property
    def reports(self) -> Path:
        """Folder of the page and the slides that tell of it."""
        return self.path / "report"

    @property
    def teacher(self) -> Path:
        """Folder of the run that its teacher is, where `train.teacher` names one."""
        return self.path / "teacher"

    @property
    def events(self) -> Path:
        """Folder of the metrics as events for TensorBoard."""
        return self.path / "tensorboard"

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoint folders, oldest first, unchecked."""
        folders = (self.path / "checkpoints").glob("step-*")
        found = [Checkpoint(path) for path in folders if re.fullmatch(r"step-\d+", path.name)]
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def checkpoint(self, which: Which = "last") -> Checkpoint:
        """The newest sound checkpoint, or the sound one of the highest validation accuracy.

        Damaged ones are passed over with a warning that names the damage.
        """
        sound = []
        for checkpoint in reversed(self.checkpoints()):
            if checkpoint.damage is None:
                sound.append(checkpoint)
                if which == "last":
                    break
            else:
                warnings.warn(
                    f"{checkpoint.path} is damaged ({checkpoint.damage}): "
                    "falling back to an earlier checkpoint",
                    stacklevel=2,
                )
        if not sound:
            raise RunError(f"{self.path} holds no sound checkpoint: start the training again")
        return best_of(sound) if which == "best" else sound[0]

    def weights(self, checkpoint: Checkpoint) -> Path:
        """The file of a checkpoint's weights to answer with: the average where there is one."""
        return checkpoint.average if self.config.optim.average_decay else checkpoint.model

    def copy_record(self, folder: Path, metrics: Iterable[Mapping[str, Any]]) -> "Run":
        """Copy what is not weights into another folder: config, origin, metrics, final numbers."""
        copy = Run.create(folder, self.config)
        copy.write_provenance(self.provenance)
        lines = [json.dumps(record) + "\n" for record in metrics]
        write_text(copy.path / "metrics.jsonl", "".join(lines))
        if self.finished is not None:
            copy.finish(self.finished)
        return copy

    # Writers: train holds the run's lock while it calls them, evaluate its own

    @staticmethod
    @contextmanager
    def claim(path: Path) -> Iterator[Path]:
        """Make a run's folder if need be and hold the right to write it.

        RunError names the holder if another process has it.
        """
        with ExitStack() as held:
            with _making(path):
                path.mkdir(parents=True, exist_ok=True)
                held.enter_context(Lock(path / ".lock"))
            yield path

    @staticmethod
    @contextmanager
    def claim_free(path: Path) -> Iterator[Path]:
        """Claim the first of PATH, PATH-2, PATH-3, ... that does not exist, and yield it.

        A folder can be made only once, so trainings that start at once get one each.
        """
        free = path
        for number in itertools.count(2):
            with _making(free), suppress(FileExistsError):
                free.mkdir(parents=True)
                break
            free = path.with_name(f"{path.name}-{number}")
        with Run.claim(free):
            yield free

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Store where the run comes from."""
        with _storing(self.path):
            write_json(self.path / "provenance.json", provenance)

    def write_split(self, split: "SplitRecord") -> None:
        """Store which images the run was given."""
        import numpy as np

        with _storing(self.path), replacing(self.path / "split.npz") as file:
            np.savez(file, **split._asdict())

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line of metrics."""
        with _storing(self.path):
            append_json(self.path / "metrics.jsonl", record)

    def truncate_metrics(self, step: int) -> None:
        """Forget the metrics of steps after `step`, which will be taken again."""
        kept = [json.dumps(record) + "\n" for record in self.metrics if record["step"] <= step]
        with _storing(self.path):
            write_text(self.path / "metrics.jsonl", "".join(kept))

    def write_results(self, results: Mapping[str, Any], table: str | None = None) -> None:
        """Store the evaluations by split, and the same numbers as the text of a CSV file."""
        if table is not None:
            write_text(self.path / "results.csv", table)
        write_json(self.path / "results.json", results)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Hold the right to write what evaluate finds, also while the run is being trained.

        RunError names the holder if another process has it, and the file that cannot be written.
        """
        try:
            with Lock(self.path / ".evaluate.lock"):
                yield
        except OSError as error:
            raise RunError(
                f"cannot write results into {self.path}: {error.strerror} ({error.filename}); make "
                "room or the folder writable, or evaluate a copy of it"
            ) from error

    def write_checkpoint(self, step: int, files: Mapping[str, bytes], state: Any) -> None:
        """Store a checkpoint of safetensors files and a readable state, then prune old ones."""
        folder = self.path / "checkpoints"
        hidden = folder / f".step-{step:06d}.tmp"
        shutil.rmtree(hidden, ignore_errors=True)
        contents = {**files, "state.json": as_json(state).encode()}
        with _storing(self.path, sum(map(len, contents.values()))):
            try:
                for name, data in contents.items():
                    write_bytes(hidden / name, data)
                manifest = {
                    name: {"bytes": len(data), "sha256": _content(hidden / name)}
                    for name, data in contents.items()
                }
                write_json(hidden / "manifest.json", manifest)
                target = folder / f"step-{step:06d}"
                shutil.rmtree(target, ignore_errors=True)
                hidden.rename(target)
            except OSError:
                shutil.rmtree(hidden, ignore_errors=True)
                raise
            sync_folder(folder)
            self._prune()

    def _prune(self) -> None:
        # A disk that fails to hand out a checkpoint is no reason to remove it: the error stops us.
        sound = [checkpoint for checkpoint in self.checkpoints() if checkpoint.inspect() is None]
        keep = {checkpoint.step for checkpoint in (*sound[-KEEP:], best_of(sound))}
        for checkpoint in self.checkpoints():
            if checkpoint.step not in keep:
                # Renamed first: a half-removed folder must not look like a checkpoint.
                doomed = checkpoint.path.with_name(f".{checkpoint.path.name}.old")
                checkpoint.path.rename(doomed)
                shutil.rmtree(doomed)

    def sweep(self) -> None:
        """Remove what an interrupted writer left half-done."""
        _sweep(self.path)

    def finish(self, numbers: Mapping[str, Any]) -> None:
        """Declare the run finished; the last write of a training."""
        with _storing(self.path):
            write_json(self.path / "finished.json", numbers)


def _sweep(path: Path) -> None:
    for pattern in (".*.tmp", "checkpoints/.*"):
        for leftover in path.glob(pattern):
            with _storing(path):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def best_of(checkpoints: Iterable[Checkpoint]) -> Checkpoint:
    """The checkpoint of the highest validation accuracy (the first of equals), else the newest."""

    def merit(checkpoint: Checkpoint) -> tuple[float, int]:
        judged = checkpoint.state["judged"].get("validation", {})
        if "accuracy" not in judged or not math.isfinite(judged.get("loss", 0.0)):
            return -1.0, checkpoint.step
        return judged["accuracy"], -checkpoint.step

    return max(checkpoints, key=merit)


_HASHES: dict[tuple[int, ...], str] = {}


def _content(path: Path) -> str:
    """Hash of a file, read once as long as nobody changes it.

    A training looks at its older checkpoints whenever it writes one, and has other things to do.
    """
    stat = path.stat()
    key = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
    if key not in _HASHES:
        _HASHES[key] = sha256(path)
    return _HASHES[key]


def _entries(manifest: str) -> dict[str, Any]:
    """Size and hash of each file of a checkpoint; ValueError for a text that is not ours."""
    entries = json.loads(manifest)
    if not isinstance(entries, dict) or manifest != as_json(entries):
        raise ValueError("not a manifest")
    return entries


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: the run was never started or is damaged") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON: {error}") from error


@contextmanager
def _making(path: Path) -> Iterator[None]:
    """Turn a folder that cannot be made into a RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write a run at {path}: {error.strerror}; choose another folder with --out or "
            "VITLAB_RUNS"
        ) from error


@contextmanager
def _storing(path: Path, size: int = 0) -> Iterator[None]:
    """Turn a disk that does not take what a training writes into a RunError that says so."""
    try:
        yield
    except OSError as error:
        needed = f"{size / 1e6:.1f} MB needed, " if size else ""
        free = shutil.disk_usage(path).free / 1e6
        raise RunError(
            f"cannot write to {path}: {error.strerror} ({needed}{free:.1f} MB free). Checkpoints "
            "so far are intact; make room or the disk sound, and --resume the run"
        ) from error

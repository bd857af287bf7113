"""A run directory: everything one training leaves behind, and the only file that knows its names.

    config.json                complete and strict; written first, never again
    provenance.json            command, versions, hardware, threads, data fingerprint and statistics
    split.npz                  the images it was given, by their content: trained on, validated on
    metrics.jsonl              one object a line, in order of step
    checkpoints/step-NNNNNN/   model, average and optimizer as safetensors, state.json, and a
                               manifest.json of sizes and hashes
    finished.json              final numbers; its presence means the run is finished
    tensorboard/               the metrics as events, where asked for
    results.json results.csv timing.json predictions/ figures/     written by evaluate
    selection.json             what fit tried beside it
    detector.npz best-detector.npz     by which images unlike the training images are known,
                               written by evaluate
    features/                  written by features
    explain/                   written by explain
    export/                    written by export
    audit/                     written by audit
    report/                    written by report
    inside.html                written by inside
    .lock .evaluate.lock       held by the process that trains it, and by one that evaluates it

What the files hold is in `vitlab.records`. Nothing here is a pickle. A checkpoint is written in a
hidden folder and renamed when it is complete, and is loaded only while its files match its
manifest. Which checkpoint is the last and which the best is read from the folder each time, so no
pointer can ever be wrong. A trial of a study is the run STUDY/runs/NAME; where it has no result,
STUDY/trials/NAME.json says why.
"""

import itertools
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from vitlab.config import Config
from vitlab.errors import ConfigError, RunError
from vitlab.files import (
    Lock,
    append_json,
    as_json,
    read_json,
    read_json_lines,
    replacing,
    sha256,
    sync_folder,
    write_bytes,
    write_json,
    write_text,
)
from vitlab.records import (
    CheckpointChoice,
    CheckpointState,
    Failure,
    Faithfulness,
    FinalNumbers,
    MetricsLine,
    Provenance,
    Results,
    Split,
    SplitResult,
    Timing,
)

if TYPE_CHECKING:
    import numpy as np

CONFIG, PROVENANCE, METRICS = "config.json", "provenance.json", "metrics.jsonl"
FINISHED, RESULTS, TIMING = "finished.json", "results.json", "timing.json"
SELECTION, AUDIT = "selection.json", "audit.json"
LOCK = ".lock"

STUDY, SUMMARY = "study.json", "summary.json"
"""The plan of a study and what was found, in the study's folder."""

KEEP = 2
"""Newest checkpoints kept beside the best: two, so that a damaged one has a predecessor."""

TRAINED, VALIDATED = 1, 2

PRETRAINED = Path(__file__).parent / "pretrained"
"""The runs that ship, each a folder of its own name."""


def shipped_names() -> list[str]:
    """Names of the models that ship."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG}"))


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint folder: the training state before step `step`."""

    path: Path

    @property
    def step(self) -> int:
        """Number of steps taken when it was written."""
        return int(self.path.name.removeprefix("step-"))

    @cached_property
    def state(self) -> CheckpointState:
        """What a human can read of it: step, clocks, evaluation at this step, best so far."""
        state = read_json(self.path / "state.json")
        if "judged" in state:  # the name of earlier versions
            state["evaluation"] = state.pop("judged")
        if "image_size" in state:
            state["image_size"] = tuple(state["image_size"])
        return state

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of what the model takes."""
        return self.state["image_size"]

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
        """What is wrong with its files, or None; a disk that cannot read them is damage too."""
        try:
            return self.inspect()
        except OSError as error:
            return f"{Path(error.filename or self.path).name} cannot be read: {error.strerror}"

    def inspect(self) -> str | None:
        """What is wrong with its files, or None; OSError if the disk cannot read them."""
        try:
            manifest = (self.path / "manifest.json").read_text(encoding="utf-8")
            for name, expected in _entries(manifest).items():
                size = (self.path / name).stat().st_size
                if size != expected["bytes"]:
                    return f"{name} has {size} bytes instead of {expected['bytes']}"
                if _file_hash(self.path / name) != expected["sha256"]:
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
    def index(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> "tuple[np.ndarray, np.ndarray]":
        """Index of the training and of the validation images into the examples."""
        import numpy as np

        return np.flatnonzero(self.part == TRAINED), np.flatnonzero(self.part == VALIDATED)


class Run:
    """A run on disk. Reading is strict and never writes.

    Args:
        path: the run directory, or the name of a shipped model where no run of that name lies;
            RunError if it holds no readable config.json.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.exists(self.path) and str(path) in shipped_names():
            self.path = PRETRAINED / path
        file = self.path / CONFIG
        if not file.is_file():
            why = f"it holds no {CONFIG}" if self.path.exists() else "there is nothing there"
            raise RunError(
                f"{self.path} is not a run: {why}. Models that ship are "
                f"{', '.join(shipped_names())}"
            )
        try:
            self.config = Config.from_dict(read_json(file))
        except ConfigError as error:
            raise RunError(f"{file}: {error}") from error

    @classmethod
    def create(cls, path: Path, config: Config) -> "Run":
        """Begin a run in a locked folder, config first; refuse one that holds something."""
        if any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise RunError(f"{path} is not empty: choose another --name, or --resume it")
        _sweep(path)
        with _write_errors(path):
            write_json(path / CONFIG, config.to_dict())
        return cls(path)

    @staticmethod
    def exists(path: Path) -> bool:
        """True where there is a run."""
        return (path / CONFIG).is_file()

    @staticmethod
    def is_finished(path: Path) -> bool:
        """True where there is a finished run."""
        return (path / FINISHED).is_file()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.resolve().name

    REMADE = (".*", "figures", "predictions", "results.csv", TIMING)
    """Patterns of what evaluate makes again on the machine of whoever has a copy."""

    @staticmethod
    def small_files(path: Path) -> list[Path]:
        """A run's files without weights and photographs: a few hundred kilobytes."""
        patterns = ("*.json", METRICS, "predictions/*.npz", "figures/*.svg", "figures/*.csv",
                    "teacher/*.json*")  # fmt: skip
        return [file for pattern in patterns for file in sorted(path.glob(pattern))]

    @property
    def study(self) -> Path:
        """Folder of the study whose trial it is, if it is one."""
        return self.path.resolve().parent.parent

    # Readers

    @property
    def provenance(self) -> Provenance:
        """Where the run comes from: versions, hardware, data fingerprint and statistics."""
        return _upgraded(read_json(self._provenance_file))

    @property
    def has_provenance(self) -> bool:
        """False for a run that stopped before its first step."""
        return self._provenance_file.is_file()

    @property
    def _provenance_file(self) -> Path:
        before = self.path / "origin.json"  # its name in earlier versions
        return before if before.exists() else self.path / PROVENANCE

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
                "on the order of the files. It can be shown, used and compared; to evaluate it "
                "again, train it again"
            ) from None
        except Exception as error:  # a damaged archive fails in many ways
            raise RunError(f"{self.path / 'split.npz'} is damaged: {error}") from error

    @property
    def metrics(self) -> list[MetricsLine]:
        """Every line of metrics.jsonl, in order."""
        return read_json_lines(self.path / METRICS)

    @property
    def finished(self) -> FinalNumbers | None:
        """Final numbers, or None while the run is not finished."""
        return read_json(self.finished_file) if self.finished_file.exists() else None

    @property
    def final_numbers(self) -> FinalNumbers:
        """Final numbers; RunError while the run is not finished."""
        finished = self.finished
        if finished is None:
            raise RunError(f"{self.path} is not finished: `vitlab train --resume {self.path}`")
        return finished

    @property
    def finished_file(self) -> Path:
        """File of the final numbers; without it, the run can be resumed."""
        return self.path / FINISHED

    @property
    def status(self) -> tuple[str, str]:
        """Finished, unfinished, or what a study wrote of a trial without a result; and why."""
        if self.finished is not None:
            return "finished", ""
        if failure := read_failure(self.study, self.name):
            return failure["status"], failure["reason"]
        return "unfinished", f"go on with `vitlab train --resume {self.path}`"

    @property
    def results(self) -> Results:
        """Evaluations so far, by split; fractions from 0 to 1."""
        file = self.path / RESULTS
        return read_json(file) if file.exists() else {}

    def result(self, split: Split) -> SplitResult:
        """The evaluation of its last checkpoint on a split; RunError where there is none."""
        found = self.results.get(split)
        if found is None:
            raise RunError(
                f"{self.path} has no {split} result: `vitlab evaluate {self.path} --split {split}`"
            )
        return found

    @property
    def timing(self) -> Timing | None:
        """How long an answer takes; beside the results, which are the same on every machine."""
        file = self.path / TIMING
        return read_json(file) if file.exists() else None

    @property
    def selection(self) -> dict[str, Any] | None:
        """What `vitlab.fit` tried before it chose this run; None where it did not."""
        file = self.path / SELECTION
        return read_json(file) if file.exists() else None

    def predictions(self, split: str) -> Path:
        """File of logits, labels and indices of a split, as npz."""
        return self.path / "predictions" / f"{split}.npz"

    def detector(self, which: CheckpointChoice) -> Path:
        """File of what tells images that are unlike the training images, as npz."""
        return self.path / ("detector.npz" if which == "last" else "best-detector.npz")

    @property
    def figures(self) -> Path:
        """Folder of the pictures that evaluate draws."""
        return self.path / "figures"

    @property
    def features(self) -> Path:
        """Folder of what probes find in its layers."""
        return self.path / "features"

    @property
    def features_file(self) -> Path:
        """Numbers of those probes."""
        return self.features / "features.json"

    @property
    def explanations(self) -> Path:
        """Folder of attribution maps, and of how faithful they are."""
        return self.path / "explain"

    def faithfulness_file(self, split: Split) -> Path:
        """How faithful its attribution maps are on a split."""
        folder = self.explanations / "test" if split == "test" else self.explanations
        return folder / "faithfulness.json"

    def faithfulness(self, split: Split, checkpoint_sha256: str) -> Faithfulness | None:
        """How faithful the maps of a checkpoint are on a split; None where it was not tested.

        RunError if its file is damaged.
        """
        file = self.faithfulness_file(split)
        stored: dict[str, Any] = read_json(file) if file.exists() else {}
        if stored.get("checkpoint_sha256") != checkpoint_sha256:
            return None
        return cast(Faithfulness, stored)

    def map_verdicts(self, split: Split, checkpoint_sha256: str) -> dict[str, str]:
        """By method, what the test of its maps came to; empty where there is none of a checkpoint.

        RunError if its file is damaged.
        """
        tested = self.faithfulness(split, checkpoint_sha256)
        methods = tested["methods"] if tested else ()
        return {one["method"]: one["verdict"] for one in methods if "verdict" in one}

    @property
    def audit(self) -> Path:
        """Folder of what may be wrong with its images."""
        return self.path / "audit"

    @property
    def inside(self) -> Path:
        """The page in which its model runs."""
        return self.path / "inside.html"

    @property
    def ships(self) -> bool:
        """True of a run that comes with vitlab, in whose folder nothing is written."""
        return self.path.resolve().parent == PRETRAINED

    @property
    def exports(self) -> Path:
        """Folder of the model in other formats, one folder per format."""
        return self.path / "export"

    @property
    def reports(self) -> Path:
        """Folder of the report and its slides."""
        return self.path / "report"

    @property
    def teacher(self) -> Path:
        """Folder of the run whose answers it learned, where `train.teacher` names a recipe.

        It lies beside this one; in runs of earlier versions inside it.
        """
        inside = self.path / "teacher"
        if inside.is_dir():
            return inside
        name = self.provenance.get("teacher") if self.has_provenance else None
        return self.path.resolve().with_name(name or f"{self.name}-teacher")

    @property
    def events(self) -> Path:
        """Folder of the metrics as events for TensorBoard."""
        return self.path / "tensorboard"

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoint folders, oldest first, unchecked."""
        folders = (self.path / "checkpoints").glob("step-*")
        found = [Checkpoint(path) for path in folders if re.fullmatch(r"step-\d+", path.name)]
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def checkpoint(self, which: CheckpointChoice = "last") -> Checkpoint:
        """The newest sound checkpoint, or the sound one of the highest validation accuracy.

        Damaged ones are passed over with a warning that names the damage.
        """
        sound: list[Checkpoint] = []
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

    def copy_record(self, folder: Path, metrics: Iterable[MetricsLine]) -> "Run":
        """Copy all but weights and results into another folder, with these lines of metrics."""
        copy = Run.create(folder, self.config)
        copy.write_provenance(self.provenance)
        copy._replace_metrics(metrics)
        if self.finished is not None:
            copy.finish(self.finished)
        return copy

    # Writers: train holds the run's lock while it calls them, evaluate its own

    @staticmethod
    @contextmanager
    def lock(path: Path) -> Generator[Path]:
        """Make a run's folder if need be, and be the only process that writes it.

        RunError names the process that holds the lock, if there is one.
        """
        with ExitStack() as held:
            with _folder_errors(path):
                path.mkdir(parents=True, exist_ok=True)
                held.enter_context(Lock(path / LOCK))
            yield path

    @staticmethod
    @contextmanager
    def lock_new(path: Path) -> Generator[Path]:
        """Make and lock the first of PATH, PATH-2, PATH-3, ... that does not exist, and yield it.

        A folder can be made only once, so trainings that start at once get one each.
        """
        new = path
        for number in itertools.count(2):
            with _folder_errors(new), suppress(FileExistsError):
                new.mkdir(parents=True)
                break
            new = path.with_name(f"{path.name}-{number}")
        with Run.lock(new):
            yield new

    @staticmethod
    def is_locked(path: Path) -> bool:
        """True while another process writes a run."""
        if not (path / LOCK).exists():
            return False
        try:
            with Lock(path / LOCK):
                return False
        except RunError:
            return True

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Store where the run comes from."""
        with _write_errors(self.path):
            write_json(self.path / PROVENANCE, provenance)

    def write_split(self, split: "SplitRecord") -> None:
        """Store which images the run was given."""
        import numpy as np

        with _write_errors(self.path), replacing(self.path / "split.npz") as file:
            np.savez(file, **split._asdict())

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line of metrics."""
        with _write_errors(self.path):
            append_json(self.path / METRICS, record)

    def truncate_metrics(self, step: int) -> None:
        """Remove the metrics of steps after `step`, which will be taken again."""
        self._replace_metrics(line for line in self.metrics if line["step"] <= step)

    def _replace_metrics(self, lines: Iterable[MetricsLine]) -> None:
        with _write_errors(self.path):
            write_text(self.path / METRICS, "".join(json.dumps(line) + "\n" for line in lines))

    def write_selection(self, found: Mapping[str, Any]) -> None:
        """Store what was tried before this run was chosen."""
        with _write_errors(self.path):
            write_json(self.path / SELECTION, found)

    def write_results(self, results: Mapping[str, Any], table: str | None = None) -> None:
        """Store the evaluations by split, and the same numbers as the text of a CSV file."""
        if table is not None:
            write_text(self.path / "results.csv", table)
        write_json(self.path / RESULTS, results)

    def write_timing(self, timing: Timing) -> None:
        """Store how long an answer takes."""
        write_json(self.path / TIMING, timing)

    @contextmanager
    def evaluating(self) -> Generator[None]:
        """Be the only process that writes what evaluate finds, also while the run is trained.

        RunError names the process that holds the lock, or the file that cannot be written.
        """
        try:
            with Lock(self.path / ".evaluate.lock"):
                yield
        except OSError as error:
            raise RunError(
                f"cannot write results into {self.path}: {error.strerror} ({error.filename}); make "
                "room or the folder writable, or evaluate a copy of it"
            ) from error

    def write_checkpoint(
        self, step: int, files: Mapping[str, bytes], state: Mapping[str, Any]
    ) -> None:
        """Store a checkpoint of safetensors files and a readable state, then prune old ones."""
        folder = self.path / "checkpoints"
        hidden = folder / f".step-{step:06d}.tmp"
        shutil.rmtree(hidden, ignore_errors=True)
        contents = {**files, "state.json": as_json(state).encode()}
        with _write_errors(self.path, sum(map(len, contents.values()))):
            try:
                for name, data in contents.items():
                    write_bytes(hidden / name, data)
                manifest = {
                    name: {"bytes": len(data), "sha256": _file_hash(hidden / name)}
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
        # A disk that fails to read a checkpoint is no reason to remove it: the error stops us.
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
        with _write_errors(self.path):
            write_json(self.finished_file, numbers)


def read_failure(study: Path, trial: str) -> Failure | None:
    """Why a trial of a study has no result, if the study wrote that down."""
    file = failure_file(study, trial)
    return read_json(file) if file.is_file() else None


def failure_file(study: Path, trial: str) -> Path:
    """Where a study writes why a trial has no result."""
    return study / "trials" / f"{trial}.json"


def _upgraded(provenance: Any) -> Provenance:
    """Provenance as this version names it: the value of a choice was once called its word."""
    for name in ("precision", "compilation", "determinism", "attention", "layout"):
        choice = provenance.get(name, {})
        if "word" in choice:
            choice["value"] = choice.pop("word")
    return provenance


def _sweep(path: Path) -> None:
    for pattern in (".*.tmp", "checkpoints/.*"):
        for leftover in path.glob(pattern):
            with _write_errors(path):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def best_of(checkpoints: Iterable[Checkpoint]) -> Checkpoint:
    """The checkpoint of the highest validation score (the first of equals), else the newest."""

    def merit(checkpoint: Checkpoint) -> tuple[float, int]:
        validation = checkpoint.state["evaluation"].get("validation", {})
        score = validation.get("accuracy", validation.get("mean_average_precision"))
        if score is None or not math.isfinite(validation.get("loss", 0.0)):
            return -1.0, checkpoint.step
        return score, -checkpoint.step

    return max(checkpoints, key=merit)


_HASHES: dict[tuple[int, ...], str] = {}


def _file_hash(path: Path) -> str:
    """Hash of a file, which is read once as long as nobody changes it.

    A training checks its older checkpoints whenever it writes one, and that must take no time.
    """
    stat = path.stat()
    key = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
    if key not in _HASHES:
        _HASHES[key] = sha256(path)
    return _HASHES[key]


def _entries(manifest: str) -> dict[str, Any]:
    """Size and hash of each file of a checkpoint; ValueError unless it is as it was written."""
    entries = json.loads(manifest)
    if not isinstance(entries, dict) or manifest != as_json(entries):
        raise ValueError("not a manifest")
    return cast(dict[str, Any], entries)


@contextmanager
def _folder_errors(path: Path) -> Generator[None]:
    """Turn a folder that cannot be made into a RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write a run at {path}: {error.strerror}; choose another folder with --out or "
            "VITLAB_RUNS"
        ) from error


@contextmanager
def _write_errors(path: Path, size: int = 0) -> Generator[None]:
    """Turn a failed write of a training into a RunError, with the space needed and left."""
    try:
        yield
    except OSError as error:
        needed = f"{size / 1e6:.1f} MB needed, " if size else ""
        free = shutil.disk_usage(path).free / 1e6
        raise RunError(
            f"cannot write to {path}: {error.strerror} ({needed}{free:.1f} MB free). Checkpoints "
            "so far are intact; make room or the disk sound, and --resume the run"
        ) from error

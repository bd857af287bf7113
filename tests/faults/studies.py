"""G: trials that fail, controllers that are killed, and indices that are lost."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

from harness import case
from trial import TINY, Command, Process, Vitlab, fingerprint, tested, until

from vitlab.run import Run

COMMON = tuple(word for word in TINY[1:] if word not in ("--device", "cpu"))


def study(folder: Path, file: Path, *words: object, real: bool = False) -> Process:
    """The command that conducts a study into FOLDER/study; the same one goes on with it."""
    start = Command if real else Vitlab
    return start(
        "study", file, *words, "--yes", "--device", "cpu", "--out", folder / "study", folder=folder
    )


def definition(folder: Path, fates: dict[str, str], words: tuple[str, ...] = COMMON) -> Path:
    """A study of digits whose arms have the given fields."""
    pairs = zip(words[::2], words[1::2], strict=True)
    fields = {name[2:].replace("-", "_"): value for name, value in pairs}
    common = "\n".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())
    arms = "\n".join(f"[vary.fate.{json.dumps(name)}]\n{text}" for name, text in fates.items())
    file = folder / "fates.toml"
    head = 'question = "?"\nrecipe = "digits"\nseeds = 1'
    file.write_text(f"{head}\n[common]\n{common}\n{arms}\n")
    return file


def trials(folder: Path) -> dict[str, Path]:
    """Run folders of a study by the word of their arm."""
    plan = json.loads((folder / "study" / "study.json").read_text())
    return {
        trial["arm"].removeprefix("fate="): folder / "study" / trial["run"]
        for trial in plan["trials"]
    }


def statuses(folder: Path) -> dict[str, str]:
    """How the trials of a study ended, by the word of their arm."""
    found = {}
    for arm, run in trials(folder).items():
        file = folder / "study" / "trials" / f"{run.name}.json"
        if Run.exists(run) and Run(run).finished:
            found[arm] = "finished"
        elif file.exists():
            found[arm] = json.loads(file.read_text())["status"]
    return found


def touched(path: Path) -> dict[Path, int]:
    """When each file below a folder was last written."""
    return {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}


FATES = {
    "fine": 'model.norm = "rms"',
    "raises": 'model.norm_place = "post"',
    "diverges": "optim.lr = 1e30",
    "needs petabytes": "model.ffn_ratio = 1e12",
    "is killed": "train.epochs = 900",
}


def victim(run: Path) -> int | None:
    """The process that holds a run, once it has a checkpoint."""
    if not list(run.glob("checkpoints/step-*")):
        return None
    return int((run / ".lock").read_text().split()[1])


@case("G01", "six trials: one raises, one diverges, one runs out of memory, one is killed")
def fates(folder: Path, scale: float) -> str:
    file = definition(folder, FATES)
    raising = folder / "study" / "runs" / "02-fate=raises-seed0"
    raising.mkdir(parents=True)
    (raising / "notes.txt").write_text("somebody else's")
    process = study(folder, file, "--workers", "2", real=True)
    until(lambda: (folder / "study" / "study.json").exists(), process)
    doomed = trials(folder)["is killed"]
    end = time.monotonic() + 120
    while not (pid := victim(doomed)):
        assert process.poll() is None and time.monotonic() < end, process.said()
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    error = process.refuse("4 of 6 trials have no result", code=4)
    expected = {
        "baseline": "finished",
        "fine": "finished",
        "raises": "failed",
        "diverges": "diverged",
        "needs petabytes": "out of memory",
        "is killed": "killed",
    }
    assert statuses(folder) == expected, statuses(folder)
    summary = (folder / "study" / "summary.md").read_text()
    for word in ("failed", "diverged", "out of memory", "killed"):
        assert word in error and word in summary, word
    return "2 results, 4 statuses with reasons, exit code 4, all in the summary"


THREE = {"one": 'model.norm = "rms"', "two": "train.epochs = 200", "three": "model.depth = 2"}


@case("G02", "kill -9 of the controller in the middle of a study, and the same command again")
def controller_killed(folder: Path, scale: float) -> str:
    file = definition(folder, THREE)
    process = study(folder, file, "--workers", "1")
    until(lambda: (folder / "study" / "study.json").exists(), process)
    runs = trials(folder)
    until(lambda: victim(runs["two"]), process)
    process.kill()
    before = {arm: touched(runs[arm]) for arm in ("baseline", "one")}
    hashes = {arm: fingerprint(Run(runs[arm]).checkpoint()) for arm in before}
    assert set(statuses(folder)) == {"baseline", "one"}
    study(folder, file, "--workers", "1").succeed()
    for arm in before:
        assert touched(runs[arm]) == before[arm], f"{arm} was touched"
        assert fingerprint(Run(runs[arm]).checkpoint()) == hashes[arm]
    assert set(statuses(folder).values()) == {"finished"} and len(statuses(folder)) == 4
    steps = [line["step"] for line in Run(runs["two"]).metrics if line["split"] == "train"]
    assert steps == list(range(1, 201))
    return "finished trials untouched, the third went on, none stuck"


@case("G04", "one worker and two, in another order")
def workers(folder: Path, scale: float) -> str:
    fates = {"rms": 'model.norm = "rms"', "deep": "model.depth = 2", "wide": "model.width = 32"}
    found = []
    for count, order in ((1, list(fates)), (2, list(fates)[::-1])):
        place = folder / str(count)
        place.mkdir()
        file = definition(place, {name: fates[name] for name in order})
        study(place, file, "--workers", str(count)).succeed()
        runs = trials(place)
        found.append({arm: fingerprint(Run(run).checkpoint()) for arm, run in runs.items()})
    assert found[0] == found[1]
    return f"{len(found[0])} of {len(found[0])} trials equal"


@case("G05", "a study's plan, summary and tables deleted or cut short", minutes=10)
def lost_index(folder: Path, scale: float) -> str:
    file = definition(folder, {"rms": 'model.norm = "rms"'})
    study(folder, file, "--workers", "1").succeed()
    place = folder / "study"
    before = {run: touched(run) for run in trials(folder).values()}
    found = numbers(place)
    (place / "study.json").write_text("{")
    study(folder, file, "--workers", "1").refuse("study.json", "remove it", code=1)
    for name in ("study.json", "summary.md", "arms.csv", "points.csv"):
        (place / name).unlink()
    (place / "summary.json").write_text("{")
    shutil.rmtree(place / "trials")
    study(folder, file, "--workers", "1").succeed()
    assert numbers(place) == found
    assert {run: touched(run) for run in before} == before, "a run was touched"
    index = tested(
        "tests/compare/test_leaderboard.py"
        "::test_the_index_is_made_from_the_runs_and_losing_it_loses_nothing"
    )
    return (
        f"6 files of a study rebuilt from its runs, which stayed as they were; models.csv: {index}"
    )


def numbers(place: Path) -> object:
    """What a study found, without the times that were estimated before it ran."""
    text = (place / "summary.json").read_text()
    return json.loads(re.sub(r'"\w*seconds\w*": [^,\n]+', '"seconds": 0', text))

"""Running a study: what a trial that fails, a kill and a second start may and may not do."""

import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vitlab.errors import ConfigError, Interrupted, PartialError, RunError, VitlabError
from vitlab.files import Lock
from vitlab.recipes import ALL_RECIPES, command
from vitlab.run import Run
from vitlab.study.define import Definition, Value, from_options
from vitlab.study.engines import ENGINES, Processes, build_engine
from vitlab.study.plan import Plan, Trial
from vitlab.study.prepare import open_plan, prepare, timed
from vitlab.study.results import accuracy, status
from vitlab.study.run import (
    Scheduler,
    check_results,
    diagnose,
    evaluate_best,
    open_follow_up,
    run_study,
)

PETABYTES = 1e12
"""Times the width: a hidden layer that no machine has the memory for."""

FATES = {
    "fine": Value({"model.norm": "rms"}),
    "raises": Value({"model.norm_place": "post"}),
    "diverges": Value({"optim.lr": 1e30}),
    "needs petabytes": Value({"model.ffn_ratio": PETABYTES}),
    "is killed": Value({"train.epochs": 40}),
}


def study(tiny, axes, **more) -> Plan:
    """The plan of a study of digits."""
    asked = {"name": "s", "question": "?", "recipe": "digits", "seeds": (0,), "overrides": tiny}
    return prepare(Definition(**asked | {"axes": axes} | more), threads=1)


def norms(tiny, **more) -> Plan:
    """A study of two arms."""
    return study(tiny, {"model.norm": {"rms": Value({"model.norm": "rms"})}}, **more)


def train(plan: Plan, folder: Path, engine, **more) -> None:
    """Run all trials, without the summary and its pictures."""
    plan.save(folder)
    Scheduler(plan=plan, folder=folder, engine=engine, device="cpu", quiet=True, **more).run(
        plan.all
    )


def statuses(folder: Path, plan: Plan) -> list[str]:
    return [status(folder, trial)[0] for trial in plan.all]


def touched(folder: Path, trials: list[Trial]) -> dict[Path, int]:
    """When each file of some runs was last written."""
    files = [file for trial in trials for file in (folder / trial.run).rglob("*")]
    assert files
    return {file: file.stat().st_mtime_ns for file in files}


def kill_once_it_has_a_checkpoint(run: Path) -> None:
    """kill -9 the process that holds a run's lock."""
    while not list(run.glob("checkpoints/step-*")):
        time.sleep(0.02)
    pid = int((run / ".lock").read_text().split()[1])
    os.kill(pid, signal.SIGKILL)


class OneProcess(Processes):
    """Starts a process for what is killed, and runs everything else in this one."""

    def __init__(self, inline):
        super().__init__(2)
        self.inline = inline

    def start(self, command: list[str], stem: Path):
        here = "killed" not in stem.name
        return self.inline.start(command, stem) if here else super().start(command, stem)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, tiny, inline) -> tuple[Path, Plan]:
    """Six trials, one of which is a process that somebody kills."""
    folder = tmp_path_factory.mktemp("faults")
    plan = study(tiny, {"fate": FATES})
    runs = {trial.arm: folder / trial.run for trial in plan.trials}
    runs["fate=raises"].mkdir(parents=True)
    (runs["fate=raises"] / "notes.txt").write_text("somebody else's")
    killer = threading.Thread(
        target=kill_once_it_has_a_checkpoint, args=(runs["fate=is killed"],), daemon=True
    )
    killer.start()
    train(plan, folder, OneProcess(inline))
    return folder, plan


def test_a_trial_that_fails_takes_no_other_with_it_and_says_why(faulty):
    folder, plan = faulty
    expected = [
        ("finished", ""), ("finished", ""), ("failed", "is not empty"),
        ("diverged", "gradient norm"), ("out of memory", "a step of 64 images"),
        ("killed", "SIGKILL"),
    ]  # fmt: skip
    found = [status(folder, trial) for trial in plan.trials]
    assert [now for now, _ in found] == [now for now, _ in expected]
    assert all(word in reason for (_, reason), (_, word) in zip(found, expected, strict=True))
    with pytest.raises(PartialError, match="4 of 6 trials have no result") as error:
        check_results(plan, folder)
    assert all(reason in str(error.value) for _, reason in found)
    assert error.value.exit_code == 4
    assert Run(folder / plan.trials[-1].run).provenance["threads"] == plan.threads == 1
    assert accuracy(folder, plan.trials[3]) is None
    assert 0 <= (accuracy(folder, plan.trials[0]) or -1) <= 1


def test_a_second_start_touches_nothing_finished_and_goes_on_with_what_was_killed(faulty, inline):
    folder, plan = faulty
    killed = plan.trials[-1]
    steps = Run(folder / killed.run).checkpoint().step
    before = touched(folder, plan.trials[:2])
    inline.started.clear()
    train(Plan.load(folder), folder, inline)
    assert inline.started == [killed.name]
    assert touched(folder, plan.trials[:2]) == before
    assert status(folder, killed) == ("finished", "")
    log = [record for record in Run(folder / killed.run).metrics if record["split"] == "train"]
    assert 0 < steps < log[-1]["step"] == 80
    train(plan, folder, inline, retry=True)
    assert set(inline.started[1:]) == {trial.name for trial in plan.trials[2:5]}
    assert statuses(folder, plan)[2:5] == ["failed", "diverged", "out of memory"]


@pytest.mark.parametrize(
    ("code", "log", "expected"),
    [
        (1, "vitlab: no such data set", ("failed", "no such data set")),
        (3, "epoch 1\nvitlab: loss nan\n- lower optim.lr", ("diverged", "loss nan\n- lower opt")),
        (
            1,
            "vitlab: careful\nTraceback (most recent\nValueError: no",
            ("failed", "ValueError: no"),
        ),
        (1, "Traceback (\ntorch.OutOfMemoryError: CUDA out of memory", ("out of memory", "torch.")),
        (1, "", ("failed", "it printed nothing")),
        (-9, "epoch 1", ("killed", "SIGKILL")),
        (137, "epoch 1", ("killed", "SIGKILL")),
        (255, "vitlab: no such thing", ("failed", "no such thing")),
        (143, "vitlab: stopped at step 3", ("killed", "SIGTERM")),
    ],
)
def test_an_exit_code_and_a_log_make_a_status(tmp_path, code, log, expected):
    (tmp_path / "log").write_text(log)
    reached, reason = diagnose(code, tmp_path / "log")
    assert reached == expected[0]
    assert expected[1] in reason


def test_a_run_that_another_process_trains_is_waited_for(tmp_path, tiny, scored):
    plan, engine = norms(tiny), scored(lambda config: 0.5)
    held = tmp_path / plan.trials[0].run
    held.mkdir(parents=True)
    lock = Lock(held / ".lock")
    lock.__enter__()
    release = threading.Timer(1, lock.__exit__)
    release.start()
    train(plan, tmp_path, engine)
    assert engine.started == [trial.name for trial in reversed(plan.trials)]
    assert statuses(tmp_path, plan) == ["finished", "finished"]


def test_a_plan_that_was_lost_finds_its_trials_again(tmp_path, tiny, scored):
    engine = scored(lambda config: 0.5)
    train(norms(tiny), tmp_path, engine)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(RunError, match="remove it"):
        Plan.load(tmp_path)
    train(norms(tiny), tmp_path, engine)
    assert len(engine.started) == 2


def test_two_processes_do_not_run_one_study(tmp_path, tiny, scored):
    engine = scored(lambda config: 0.5)
    with Lock(tmp_path / ".lock"), pytest.raises(RunError, match="being written by pid"):
        run_study(norms(tiny), tmp_path, engine, quiet=True)
    assert not engine.started


class Endless:
    """An engine whose trials run until they are asked to stop."""

    workers = 2

    def __init__(self):
        self.asked = self.killed = 0

    def start(self, command: list[str], stem: Path) -> "Endless":
        signal.raise_signal(signal.SIGTERM)
        return self

    def poll(self) -> int | None:
        return 143 if self.asked else None

    def stop(self) -> None:
        self.asked += 1

    def kill(self) -> None:
        self.killed += 1


def test_a_signal_lets_trials_write_their_checkpoints_and_fails_none(tmp_path, tiny):
    plan, engine = norms(tiny), Endless()
    with pytest.raises(Interrupted) as error:
        run_study(plan, tmp_path, engine, quiet=True)
    assert error.value.exit_code == 143
    assert (engine.asked, engine.killed) == (2, 0)
    assert statuses(tmp_path, plan) == ["planned", "planned"]


def test_a_plan_is_timed_and_an_arm_that_cannot_take_a_step_keeps_its_place(tiny):
    plan = timed(study(tiny, {"fate": FATES}), device="cpu")
    seconds = {arm.name: arm.seconds for arm in plan.arms}
    assert seconds.pop("fate=needs petabytes") is None
    assert seconds.pop("fate=diverges") is None
    assert all(value > 0 for value in seconds.values())
    assert seconds["fate=is killed"] > 10 * seconds["baseline"]
    assert plan.total_seconds == pytest.approx(sum(seconds.values()))


def test_a_folder_keeps_its_plan_and_refuses_another(tmp_path, tiny):
    asked = from_options(["model.norm=rms"], "digits", seeds=1).with_overrides(tiny)
    plan = open_plan(asked, tmp_path, device="cpu")
    plan.save(tmp_path)
    assert open_plan(asked, tmp_path, device="cpu") == plan == Plan.load(tmp_path)
    for other in (replace(asked, seeds=(0, 1)), asked.with_overrides({"train.epochs": 2})):
        with pytest.raises(RunError, match="holds another study"):
            open_plan(other, tmp_path, device="cpu")
    with pytest.raises(RunError, match="holds another study"):
        open_plan(asked, tmp_path, threads=2, device="cpu")


def test_a_recipe_that_changes_later_changes_no_trial_that_was_planned(tmp_path, tiny, monkeypatch):
    plan = norms(tiny)
    plan.save(tmp_path)
    before = [plan.config(trial) for trial in plan.trials]
    digits = ALL_RECIPES["digits"]
    monkeypatch.setitem(ALL_RECIPES, "digits", lambda: digits().override({"model.init_std": 0.7}))
    later = Plan.load(tmp_path)
    assert [later.config(trial) for trial in later.trials] == before
    assert f"--model.init_std {digits().model.init_std}" in command(before[0])


def test_the_best_values_meet_the_baseline_with_new_seeds(tmp_path, tiny, scored):
    axes = {
        "model.norm": {"rms": Value({"model.norm": "rms"})},
        "width": {
            "more": Value({"model.width": 32, "model.heads": 4}),
            "less": Value({"model.width": 8}),
        },
        "optim.lr": {"0.1": Value({"optim.lr": 0.1})},
    }
    plan = study(tiny, axes)
    train(plan, tmp_path / "s", scored(lambda c: c.model.width / 100 - (c.optim.lr == 0.1) / 10))
    folder, best = open_follow_up(plan, tmp_path / "s", device="cpu")
    assert folder == tmp_path / "s-best"
    assert [arm.changes for arm in best.arms] == [{}, {"model.width": 32, "model.heads": 4}]
    assert best.seeds == [1, 2, 3, 4, 5]
    best.save(folder)
    assert open_follow_up(plan, tmp_path / "s")[1] == best


def test_of_rivals_the_best_of_each_is_an_arm(tmp_path, tiny, scored):
    muon = {"optim.optimizer": "muon"}
    axes = {
        "AdamW": {"slow": Value({"optim.lr": 1e-4}), "fast": Value({"optim.lr": 1e-2})},
        "Muon": {"slow": Value({**muon, "optim.muon_lr": 0.01}), "fast": Value(muon)},
    }
    plan = study(tiny, axes, rivals=True)
    train(plan, tmp_path / "s", scored(lambda config: config.optim.lr + config.optim.muon_lr))
    _, best = open_follow_up(plan, tmp_path / "s", device="cpu")
    optim = {trial.arm: best.config(trial).optim for trial in best.trials}
    assert (optim["baseline"].optimizer, optim["baseline"].lr) == ("adamw", 1e-2)
    rival = optim["rival=Muon"]
    assert (rival.optimizer, rival.lr, rival.muon_lr) == ("muon", 2e-3, 0.02)


def test_without_a_better_arm_there_is_nothing_to_train_again(tmp_path, tiny, scored):
    plan = norms(tiny)
    train(plan, tmp_path, scored(lambda config: 0.9 - (config.model.norm == "rms") / 2))
    with pytest.raises(VitlabError, match="no arm of s was better than its baseline"):
        open_follow_up(plan, tmp_path)


def test_the_baseline_and_the_best_arm_are_evaluated_on_the_test_split_once(
    tmp_path, studies, monkeypatch, undrawn
):
    accuracies = {"baseline": (0.5, 0.51, 0.49), "model.norm=rms": (0.6, 0.61, 0.6),
                  "model.depth=6": (0.7, 0.71, None)}  # fmt: skip
    changes = {"baseline": {}, "model.norm=rms": {"model.norm": "rms"},
               "model.depth=6": {"model.depth": 6}}  # fmt: skip
    studies.write(tmp_path / "s", accuracies, changes=changes)
    opened = []

    def evaluate(run, split, **_):
        opened.append(run.name)
        accuracy = run.finished["validation"]["accuracy"] - 0.02
        run.write_results({split: {"step": 40, "accuracy": accuracy, "images": 1000}})

    monkeypatch.setattr("vitlab.study.run.evaluate", evaluate)
    for _ in range(2):
        (found,) = evaluate_best(tmp_path / "s")["comparisons"]
        names = [f"{arm}-seed{seed}" for arm in ("00-baseline", "01-model.norm=rms")
                 for seed in range(3)]  # fmt: skip
        assert opened == names
    assert found["recipe"] == "vit-tiny (model.norm=rms)" and found["verdict"] == "better"
    assert found["difference"] == pytest.approx(0.31 / 3)
    page = (tmp_path / "s" / "test" / "compare.md").read_text()
    assert "on the test split" in page
    assert "the test split was opened for 6 runs" in (tmp_path / "s" / "summary.md").read_text()
    studies.write(tmp_path / "t", {"baseline": (0.5,), "model.norm=rms": (None,)})
    with pytest.raises(RunError, match="have to finish"):
        evaluate_best(tmp_path / "t")


def test_job_parameters_are_for_engines_that_have_jobs(tmp_path):
    for job, told in (("timeout_min", "write NAME=VALUE"), ("timeout_min=5", "has jobs")):
        with pytest.raises(ConfigError, match=told):
            build_engine("processes", tmp_path, size=1, threads=1, device="cpu", jobs=[job])


def test_an_engine_takes_as_many_workers_as_there_is_room_for(tmp_path):
    def workers(size: int, **more) -> int:
        return build_engine(
            "processes", tmp_path, size=size, threads=1, device="cpu", **more
        ).workers

    assert workers(1) == 1
    assert workers(1000) == len(os.sched_getaffinity(0))
    assert workers(1000, workers=3) == 3
    assert "slurm" in ENGINES


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs SLURM: sbatch is not installed")
def test_slurm_runs_trials_and_says_how_one_failed(tmp_path, tiny):
    fates = {name: FATES[name] for name in ("fine", "diverges")}
    plan = study(tiny, {"fate": fates})
    # The folder has to be one that the compute nodes see; here they are this machine.
    engine = build_engine("slurm", tmp_path, size=3, threads=1, device="cpu")
    train(plan, tmp_path, engine)
    assert statuses(tmp_path, plan) == ["finished", "finished", "diverged"]

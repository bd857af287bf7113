"""The guided search: what it proposes, what it remembers, and that it repeats nothing."""

import math
from itertools import islice
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from vitlab.config import Config
from vitlab.study.define import from_options
from vitlab.study.plan import Plan
from vitlab.study.prepare import prepare
from vitlab.study.results import accuracy
from vitlab.study.run import Scheduler
from vitlab.study.search import open_journal, proposals, tell

RATES = "optim.lr=log:1e-9..1e-1"


@pytest.fixture
def engine(scored):
    """Trials that are the better, the nearer their learning rate is to 1e-3."""

    def score(config: Config) -> float:
        return 1 - abs(math.log10(config.optim.lr) + 3) / 10

    return scored(score)


def search(folder: Path, tiny, vary: list[str], trials: int, **more) -> Plan:
    asked = from_options(vary, "digits", design="search", trials=trials, **more)
    plan = prepare(asked.with_overrides(tiny), threads=1)
    plan.save(folder)
    return plan


def run(plan: Plan, folder: Path, engine, count: int | None = None) -> None:
    """Run all that the search proposes, or only so many trials of it."""
    trials = islice(proposals(plan, folder), count)
    Scheduler(plan=plan, folder=folder, engine=engine, device="cpu", quiet=True).run(trials)


def test_a_search_tries_the_baseline_and_then_as_many_arms_as_asked(tmp_path, tiny, engine):
    plan = search(tmp_path, tiny, [RATES, "model.norm=layer,rms", "model.depth=1..2"], 5)
    assert plan.exploratory and plan.size == 6
    run(plan, tmp_path, engine)
    assert len(engine.started) == len(plan.arms) == 6
    assert plan.arms[0].baseline and not plan.arms[0].changes
    for arm in plan.arms[1:]:
        assert 1e-9 <= arm.changes["optim.lr"] <= 1e-1
        assert arm.changes["model.norm"] in ("layer", "rms") and arm.changes["model.depth"] in (
            1,
            2,
        )
        assert arm.parameters > 0 and arm.explanation
    assert Plan.load(tmp_path) == plan


def test_a_search_finds_what_is_better(tmp_path, tiny, engine):
    plan = search(tmp_path, tiny, [RATES], 20)
    run(plan, tmp_path, engine)
    found = [accuracy(tmp_path, trial) or 0 for trial in plan.trials[1:]]
    assert max(found) > 0.95
    assert sum(found[-5:]) > sum(found[:5]), "what it has learned guides what it tries"


def test_a_search_that_was_stopped_goes_on_and_repeats_nothing(tmp_path, tiny, engine):
    plan = search(tmp_path, tiny, [RATES], 4)
    run(plan, tmp_path, engine, count=2)
    begun = list(islice(proposals(plan, tmp_path), len(plan.trials) + 1))
    assert len(plan.arms) == 3 and len(engine.started) == 2
    run(Plan.load(tmp_path), tmp_path, engine)
    assert engine.started[2] == begun[-1].name, "what was planned is trained first"
    assert len(engine.started) == len(set(engine.started)) == 5
    arms = Plan.load(tmp_path).arms
    assert len({arm.changes["optim.lr"] for arm in arms[1:]}) == 4


def test_a_plan_that_was_lost_is_rebuilt_from_the_journal(tmp_path, tiny, engine):
    plan = search(tmp_path, tiny, [RATES, "model.norm=layer,rms"], 3)
    run(plan, tmp_path, engine)
    again = search(tmp_path, tiny, [RATES, "model.norm=layer,rms"], 3)
    run(again, tmp_path, engine)
    assert (again.arms, again.trials) == (plan.arms, plan.trials)
    assert len(engine.started) == 4


def test_a_proposal_that_was_never_planned_is_forgotten(tmp_path, tiny, engine):
    plan = search(tmp_path, tiny, [RATES], 1)
    open_journal(tmp_path, seed=7).ask()
    run(plan, tmp_path, engine)
    journal = open_journal(tmp_path, seed=8)
    tell(journal, plan, tmp_path)
    assert [trial.state.name for trial in journal.trials] == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize(
    ("score", "seeds", "heard"),
    [(lambda config: 0.5 + config.train.seed / 10, 2, 0.55), (lambda config: -1, 1, 0.0)],
    ids=["the mean over seeds", "no accuracy where a seed has no result"],
)
def test_optuna_hears_of_every_arm(tmp_path, tiny, scored, score, seeds, heard):
    plan = search(tmp_path, tiny, [RATES], 2, seeds=seeds)
    run(plan, tmp_path, scored(score))
    journal = open_journal(tmp_path, seed=0)
    tell(journal, plan, tmp_path)
    assert [trial.value for trial in journal.trials] == pytest.approx([heard] * 2)


def test_an_exhausted_search_ends(tmp_path, tiny, engine):
    plan = search(tmp_path, tiny, ["model.norm=layer,rms", "model.heads=2,3"], 10)
    run(plan, tmp_path, engine)
    assert [arm.changes["model.heads"] for arm in plan.arms[1:]] == [2, 2]
    assert {arm["name"].split(", ")[1] for arm in plan.refused} == {"model.heads=3"}

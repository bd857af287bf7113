"""A guided search: Optuna proposes arms, one after another, from what the earlier ones came to.

Its journal lies in the study's folder. An arm is written into study.json before it is trained,
so a search that is stopped or killed goes on with the very arms it had begun. What was found by
looking at results is exploratory: it is ranked, and compared with new seeds or not at all.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vitlab.config import field_types
from vitlab.errors import ConfigError, VitlabError
from vitlab.fields import bare
from vitlab.study.define import Range
from vitlab.study.plan import Arm, Plan, Trial, written
from vitlab.study.prepare import with_cost
from vitlab.study.results import accuracy, status

Space = dict[str, tuple[Any, Callable[[Any], Any]]]
"""Axis -> Optuna's distribution, and what makes a field's value of what is drawn from it."""

TRIES = 100
"""Proposals in a row that may be known or impossible before the search counts as exhausted."""


def proposals(plan: Plan, folder: Path, data_root: str | None = None) -> Iterator[Trial]:
    """Yield the trials of the baseline, then of each arm that Optuna proposes, until the budget.

    Asked for the next trial, it first tells Optuna what has finished since: one of several
    workers waits for none of the others.
    """
    study = open_journal(folder, len(plan.arms))
    adopt(study, plan, data_root)
    yield from list(plan.trials)
    while len(plan.arms) <= plan.budget:
        tell(study, plan, folder)
        arm = propose(study, plan, data_root)
        if arm is None:
            break
        added = plan.add(arm)
        plan.save(folder)
        yield from added


def open_journal(folder: Path, seed: int) -> Any:
    """The Optuna study of a folder; a new seed for each start, or it would repeat its draws."""
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise VitlabError("a guided search needs Optuna: pip install 'vitlab[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = JournalFileBackend(str(folder / "search.journal"))
    return optuna.create_study(
        study_name="search",
        storage=optuna.storages.JournalStorage(backend),
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        load_if_exists=True,
    )


def adopt(study: Any, plan: Plan, data_root: str | None) -> None:
    """Plan what the journal knows and study.json does not, in the order of its first planning."""
    axes = space(plan.axes)
    planned = {arm.name for arm in plan.arms}
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get("arm", "baseline") not in planned:
            plan.add(with_cost(arm_of(trial, axes), plan, data_root))


def tell(study: Any, plan: Plan, folder: Path) -> None:
    """Tell Optuna the mean accuracy of every arm whose trials are over."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished():
            continue
        trials = [one for one in plan.trials if one.arm == trial.user_attrs.get("arm")]
        reached = {status(folder, one)[0] for one in trials}
        if not trials:
            study.tell(trial.number, state=TrialState.FAIL)  # it was drawn, and never an arm
        elif not reached & {"planned", "interrupted", "killed"}:
            # A seed without a result counts as accuracy 0: such places are to be avoided.
            values = [accuracy(folder, one) or 0.0 for one in trials]
            study.tell(trial.number, sum(values) / len(values))


def propose(study: Any, plan: Plan, data_root: str | None) -> Arm | None:
    """An arm that is new and possible, or None if the search seems exhausted."""
    from optuna.trial import TrialState

    axes = space(plan.axes)
    tried = [arm.changes for arm in plan.arms]
    for _ in range(TRIES):
        trial = study.ask({axis: distribution for axis, (distribution, _) in axes.items()})
        arm = arm_of(trial, axes)
        if arm.changes not in tried:
            try:
                arm = with_cost(arm, plan, data_root)
                trial.set_user_attr("arm", arm.name)
                return arm
            except ConfigError as error:
                plan.refused.append({"name": arm.name, "reason": "; ".join(error.problems)})
                tried.append(arm.changes)
        study.tell(trial, state=TrialState.FAIL)
    return None


def arm_of(trial: Any, axes: Space) -> Arm:
    """The arm that a trial of Optuna stands for."""
    changes = {axis: value(trial.params[axis]) for axis, (_, value) in axes.items()}
    name = ", ".join(f"{axis}={written(value)}" for axis, value in changes.items())
    return Arm(name=name, changes=changes)


def space(axes: dict[str, list[Any]]) -> Space:
    """The axes in Optuna's terms: ranges as they are, values as categories."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: Space = {}
    for axis, values in axes.items():
        bounds = Range.read(values[0]) if isinstance(values[0], str) else None
        if bounds is None:
            named = {written(value): value for value in values}
            found[axis] = CategoricalDistribution(list(named)), named.__getitem__
        elif bare(field_types()[axis]) is int:
            low, high = int(bounds.low), int(bounds.high)
            found[axis] = IntDistribution(low, high, log=bounds.log), int
        else:
            distribution = FloatDistribution(bounds.low, bounds.high, log=bounds.log)
            found[axis] = distribution, three_digits
    return found


def three_digits(value: float) -> float:
    """A number as a person would choose it: finer steps than these make no arm another."""
    return float(f"{value:.3g}")

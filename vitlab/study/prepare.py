"""From a definition to a plan: which arms can be, what they cost, and how long they will take."""

import dataclasses
import functools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitlab.config import (
    BESIDE,
    AugmentConfig,
    Config,
    DataConfig,
    OptimConfig,
    refuse_multilabel,
)
from vitlab.data import open_dataset
from vitlab.device import choose_device
from vitlab.errors import ConfigError, RunError, VitlabError
from vitlab.fields import field_help
from vitlab.models import describe_parts
from vitlab.models.cost import cost, training_macs
from vitlab.recipes import ALL_RECIPES, RECIPES, recipe
from vitlab.run import STUDY
from vitlab.study.define import Definition, Range
from vitlab.study.plan import Arm, Plan, arm_config, left_out, written
from vitlab.training.setup import CLEAN_IMAGES, TrainingSetup
from vitlab.training.step import StepResults

STEP_MACS, FEWEST_IMAGES = 20e9, 16
"""Multiply-adds that a timed step on a CPU may take, and images it has at least.

Of a large batch of a large model a part is timed, which scales: the optimiser's share is small.
"""

LONG = 24 * 3600
"""Seconds of all trials, one after another, from which on a smaller recipe is worth naming."""

TIMED_STEPS = 3
"""Timed steps of each image size; the first of them warms up and does not count."""


cost_of = functools.cache(cost)


def prepare(definition: Definition, *, threads: int, data_root: str | None = None) -> Plan:
    """Work out the arms, with parameters and multiply-adds; nothing is written or timed.

    An arm that no config can be is listed as refused. ConfigError if the baseline is one of
    these, or if no other arm is left.
    """
    plan = Plan(
        name=definition.name,
        question=definition.question,
        recipe=definition.recipe,
        design=definition.design,
        seeds=list(definition.seeds),
        axes={axis: values_of(axis, values) for axis, values in definition.axes.items()},
        overrides=definition.overrides,
        family=definition.family,
        exploratory=definition.exploratory,
        rivals=definition.rivals,
        threads=threads,
        budget=definition.budget,
        margin=definition.margin,
    )
    baseline = arm_config(plan.recipe, plan.overrides, {})
    for arm in definition.arms():
        try:
            counted = with_cost(arm, plan, data_root)
        except ConfigError as error:
            if arm.baseline:
                raise
            plan.refused.append({"name": arm.name, "reason": "; ".join(error.problems)})
            continue
        if arm.baseline or arm_config(plan.recipe, plan.overrides, arm.changes) != baseline:
            plan.add(counted)
    if plan.axes and len(plan.arms) == 1 and plan.design != "search":
        reasons = [f"{arm['name']}: {arm['reason']}" for arm in plan.refused]
        raise ConfigError(reasons or ["every value is what the recipe has already"])
    for arm in plan.arms:
        plan.add_probes(arm, definition.rates)
    return plan


def open_plan(
    definition: Definition,
    folder: Path,
    *,
    threads: int | None = None,
    device: str = "auto",
    data_root: str | None = None,
    progress: Callable[[str], None] = lambda arm: None,
) -> Plan:
    """The plan that a folder holds, or a new one with times, which is not written yet.

    Threads of a trial default to one, whatever the machine: their number moves the last bits.
    RunError if the folder holds another study.
    """
    if not (folder / STUDY).exists():
        plan = prepare(definition, threads=threads or 1, data_root=data_root)
        return timed(plan, device=device, data_root=data_root, progress=progress)
    stored = Plan.load(folder)
    asked = prepare(definition, threads=threads or stored.threads, data_root=data_root)
    if asked.question_asked != stored.question_asked:
        raise RunError(f"{folder} holds another study than this: choose another --out")
    return stored


def values_of(axis: str, values: dict[str, Any] | Range) -> list[Any]:
    """The values of an axis as study.json has them: of a field, names, or a range."""
    if isinstance(values, Range):
        return [str(values)]
    return [value.changes[axis] if set(value.changes) == {axis} else name
            for name, value in values.items()]  # fmt: skip


def with_cost(arm: Arm, plan: Plan, data_root: str | None = None) -> Arm:
    """An arm with its parameters, multiply-adds and explanation; ConfigError if it cannot be."""
    config = arm_config(plan.recipe, plan.overrides, arm.changes)
    refuse_multilabel(config.data, "a study compares accuracies", BESIDE)
    if not config.data.validation_fraction:
        raise ConfigError(["data.validation_fraction=0 leaves a study nothing to compare by"])
    data = replace(open_dataset(config.data, root=data_root).config, train_fraction=1.0)
    # Arms that differ in these alone have one model, which is counted once.
    whole = cost_of(replace(config, data=data, augment=AugmentConfig(), optim=OptimConfig()))
    return replace(
        arm,
        parameters=whole.parameters,
        macs=whole.macs,
        explanation=arm.explanation or explanation(arm, plan, config),
        config=config.to_dict(),
    )


def explanation(arm: Arm, plan: Plan, config: Config) -> str:
    """What sets an arm apart, as the models, the recipes or the fields describe it."""
    if arm.baseline:
        common = ", ".join(f"{path} {written(value)}" for path, value in plan.overrides.items())
        if common:
            return f"The recipe {config.recipe} with {common}."
        return f"The recipe {config.recipe}. {first_line(config.recipe)}"
    parts = describe_parts(config.model)
    sentences = []
    for path, value in arm.changes.items():
        section, _, name = path.partition(".")
        if path == "recipe":
            sentences.append(f"The recipe {value}. {first_line(value)}")
        elif section == "model" and name in parts:
            sentences.append(parts[name])
        elif value is not False or len(arm.changes) == 1:
            about = field_help(type(getattr(config, section)))[name]
            sentences.append(f"{path} is {written(value)}. {about}")
    if missing := left_out(plan.recipe, plan.overrides, arm.changes):
        sentences.append(f"It has no {' and no '.join(missing)}.")
    return " ".join(sentences)


def first_line(recipe: str) -> str:
    """What a recipe is, in a sentence."""
    return (ALL_RECIPES[recipe].__doc__ or "").split("\n")[0]


def timed(
    plan: Plan,
    *,
    device: str = "auto",
    data_root: str | None = None,
    progress: Callable[[str], None] = lambda arm: None,
) -> Plan:
    """The plan with an estimate of each arm's time, from a few training steps of every arm.

    `progress` is called with the name of each arm before it is timed. An arm that cannot take a
    step keeps its place without an estimate: its trials will say why.
    """
    where, before = choose_device(device), torch.get_num_threads()
    estimate = TimeEstimate(where, data_root)
    torch.set_num_threads(plan.threads)
    arms = []
    try:
        for arm in plan.arms:
            progress(arm.name)
            config = plan.arm_config(arm)
            try:
                arms.append(replace(arm, seconds=estimate.seconds(config, arm.macs)))
            except (VitlabError, RuntimeError, MemoryError):
                arms.append(arm)
    finally:
        torch.set_num_threads(before)
        if where.type == "cuda":
            torch.cuda.empty_cache()  # the trials will want it
    return dataclasses.replace(plan, arms=arms)


def smaller(
    plan: Plan,
    definition: Definition,
    *,
    device: str = "auto",
    data_root: str | None = None,
    progress: Callable[[str], None] = lambda arm: None,
) -> Plan | None:
    """A planned study, with times, of the recipe that trains with the fewest multiply-adds.

    Recipes are those with a result for the same data set and kind of model; one of which more
    arms are refused is passed over. None where the study would take no less time.
    """
    own, refused = recipe(plan.recipe), {arm["name"] for arm in plan.refused}
    work: dict[str, float] = {}
    for name in RECIPES:
        other = recipe(name)
        if (other.model.kind, other.data.dataset) == (own.model.kind, own.data.dataset):
            with suppress(ConfigError):
                config = arm_config(name, definition.overrides, {})
                data = open_dataset(config.data, root=data_root).config
                work[name] = training_macs(replace(config, data=data), config.train.epochs, 1)
    for name in sorted(work, key=work.__getitem__):
        with suppress(ConfigError):
            found = prepare(
                replace(definition, recipe=name), threads=plan.threads, data_root=data_root
            )
            if name != plan.recipe and {arm["name"] for arm in found.refused} <= refused:
                found = timed(found, device=device, data_root=data_root, progress=progress)
                return found if found.total_seconds < plan.total_seconds else None
    return None


class TimeEstimate:
    """Estimates how long a config trains; what two configs share is measured once."""

    def __init__(self, device: torch.device, data_root: str | None):
        self._device = device
        self._root = data_root
        self._examples: dict[DataConfig, Any] = {}
        self._measured: dict[str, tuple[float, float]] = {}

    def seconds(self, config: Config, macs: int) -> float:
        """Seconds of a training on the images it will see, validations included."""
        data = open_dataset(config.data, root=self._root).config
        source = replace(data, train_fraction=1.0)
        if source not in self._examples:
            self._examples[source] = open_dataset(source, root=self._root).examples
        examples = self._examples[source]
        training, validation = map(len, examples.split(data))

        batch = config.train.batch_size
        if self._device.type == "cpu":
            batch = min(batch, max(FEWEST_IMAGES, int(STEP_MACS / (3 * macs))))
        # As many images as a step needs: moving all of them takes longer. Rounded, so that arms
        # which differ in their number of images alone share one measurement.
        share = min(1.0, float(f"{2 * batch / training * data.train_fraction:.2g}"))
        trial = replace(
            config,
            data=replace(data, train_fraction=share),
            train=replace(config.train, batch_size=batch, accumulate=1, compile="off", seed=0),
        )
        if trial.sha256 not in self._measured:
            self._measured[trial.sha256] = self._measure(trial, examples)
        small, full = self._measured[trial.sha256]
        train = config.train
        trained = small * train.small_epochs + full * (train.epochs - train.small_epochs)
        evaluated = (
            train.epochs / train.evaluate_epochs * (validation + min(training, CLEAN_IMAGES))
        )
        # A forward pass is a third of a step.
        return trained * training + evaluated * full / 3

    def _measure(self, config: Config, examples: Any) -> tuple[float, float]:
        """Seconds per image of a step at the small and at the full size."""
        with torch.random.fork_rng():
            dataset = open_dataset(config.data, examples)
            setup = TrainingSetup.build(config, dataset, self._device, initial=False)
            training_step, batches, per_image = setup.build_step(), setup.batches, {}
            for step in (0, batches.steps - batches.steps_per_epoch):
                size = batches.size(step)
                if size in per_image:
                    continue
                training_step.resize(size)
                batch, results = batches.batch(step), StepResults(training_step)
                seconds = []
                for _ in range(TIMED_STEPS):
                    start = time.perf_counter()
                    training_step.set_scalars(1e-3, seed=0)
                    results.add(training_step(*batch))
                    results.read()  # waits for the device, and refuses what diverged
                    seconds.append(time.perf_counter() - start)
                per_image[size] = min(seconds[1:]) / len(batch[0])
        sizes = list(per_image.values())
        return sizes[0], sizes[-1]

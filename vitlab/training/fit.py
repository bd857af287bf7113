"""The training loop: set up, then step, log, evaluate and save, then finish.

Everything random is a function of (seed, step): logging, evaluating or saving more often changes
no weight, and a resumed run needs nothing but the step it stopped at. The test split cannot be
reached from here.
"""

import math
import os
import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vitlab.config import Config
from vitlab.data import Data, Dataset, Root, open_dataset
from vitlab.data.augment import normalize
from vitlab.data.augment import targets as make_targets
from vitlab.data.batches import resize
from vitlab.device import choose_device, deterministic, enough_memory, multiplies_bf16
from vitlab.diagnosis import diagnose
from vitlab.errors import Interrupted, RunError, VitlabError
from vitlab.formatting import duration
from vitlab.inference import open_examples
from vitlab.measured import remark
from vitlab.pretrained.backbones import resolve
from vitlab.recipes import command
from vitlab.run import Run
from vitlab.training.autotune import rules, stored_settings
from vitlab.training.distributed import SINGLE, ProcessGroup, init_distributed
from vitlab.training.energy import EnergyMeter
from vitlab.training.evaluation import (
    Chance,
    alarm,
    all_right,
    evaluate,
    reason_to_stop,
    update_best,
)
from vitlab.training.head import fit_head
from vitlab.training.logging import ConsoleLogger, MetricsLogger, require_tensorboard
from vitlab.training.memory import out_of_memory, out_of_memory_building, refuse_excess
from vitlab.training.optim import lr_schedule
from vitlab.training.preflight import check, introduce, read_images
from vitlab.training.provenance import (
    differences,
    final_numbers,
    provenance_of,
    reset_peak_memory,
    split_record,
)
from vitlab.training.setup import TrainingSetup
from vitlab.training.signals import StopRequest, stop_request
from vitlab.training.state import Clock
from vitlab.training.step import StepResults
from vitlab.training.teacher import teacher_answers, teacher_config

NO_RUN = "stopped before the first step: no run was begun"


def train(
    config: Config,
    *,
    data: Data = None,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    device: str = "auto",
    data_root: Root = None,
    tensorboard: bool = False,
    quiet: bool = False,
    scaled: Collection[str] = (),
) -> Run:
    """Train a config into a new run directory.

    In each of the processes that `torchrun` starts, this takes part in one training of all. A
    config with `train.teacher` trains that recipe first, into a run beside its own.

    Args:
        config: the experiment; what it leaves to the data set is filled in.
        data: training images and labels in memory, instead of `config.data.dataset`.
        out: folder of runs; default $VITLAB_RUNS, else `runs`.
        name: name of the run; default the recipe and the seed, numbered when taken.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.
        tensorboard: write the metrics as events for TensorBoard too.
        quiet: print nothing.
        scaled: fields that are scaled to the number of images, as `scale_to_images` has them; the
            command line scales those that are not given.

    Raises:
        ConfigError, DataError: before anything is written.
        RunError: a name that is taken, or weights to start from that do not fit.
        DivergenceError: at a loss or gradient that is not finite.
        Interrupted: after SIGINT, SIGTERM or SIGHUP, once the checkpoint is written; before the
            first step at once, and nothing is.
    """
    clock = Clock()
    if tensorboard:
        require_tensorboard()
    path = new_path(config, out, name)
    group, where = init_distributed(choose_device(device))
    logger = ConsoleLogger(quiet or not group.is_main)
    with (
        stop_request(passed_on=group.world_size > 1) as stop,
        deterministic(config.train.deterministic),
        torch.random.fork_rng(),
    ):
        with stop.immediately(NO_RUN):
            with group.main_first():
                dataset = open_dataset(config.data, data, data_root)
                asked, config = config, resolve(replace(config, data=dataset.config))
                config = check(config, dataset, where, group, logger, scaled)
            how = command(replace(config, data=asked.data, model=asked.model))
            setup = _set_up(config, dataset, where, group, clock)
        with group.create_run(path, config, numbered=name is None) as run:
            _begin(run, setup, how, logger, stop)
            teacher = _teacher(run, setup, data, data_root, tensorboard, logger)
            _learn(run, setup, logger, stop, teacher, tensorboard)
    return run


def resume(
    path: str | os.PathLike[str],
    *,
    data: Data = None,
    device: str = "auto",
    data_root: Root = None,
    tensorboard: bool = False,
    quiet: bool = False,
) -> Run:
    """Go on with a run from its newest sound checkpoint, to the weights it would have had.

    A finished run is returned untouched.
    """
    clock = Clock()
    if tensorboard:
        require_tensorboard()
    run = Run(path)
    group, where = init_distributed(choose_device(device))
    logger = ConsoleLogger(quiet or not group.is_main)
    if run.finished is not None:
        logger.say(f"{run.path} is already complete")
        return run
    with (
        group.reopen_run(run.path) as run,
        stop_request(passed_on=group.world_size > 1) as stop,
        deterministic(run.config.train.deterministic),
        torch.random.fork_rng(),
    ):
        config, begun = run.config, bool(run.checkpoints())
        with stop.immediately(_before_first_step(run)):
            with group.main_first():
                given = open_examples(run, data, data_root) if begun else data
                dataset = open_dataset(config.data, given, data_root)
                read_images(dataset)
                refuse_excess(config, where, dataset.train_count, group.world_size, resumed=True)
            setup = _set_up(config, dataset, where, group, clock, run if begun else None)
        if begun:
            _restore(run, setup, logger)
        else:
            _begin(run, setup, command(config), logger, stop)
        teacher = _teacher(run, setup, data, data_root, tensorboard, logger)
        _learn(run, setup, logger, stop, teacher, tensorboard, resumed=True)
    return run


def _learn(
    run: Run,
    setup: TrainingSetup,
    logger: ConsoleLogger,
    stop: StopRequest,
    teacher: Run | None,
    tensorboard: bool,
    resumed: bool = False,
) -> None:
    """Take the steps that a run still lacks, or fit its head alone; finish it and say so."""
    if setup.config.optim.optimizer == "lbfgs":
        reason = None
        with stop.immediately(_before_first_step(run)):
            fit_head(run, setup, logger, tensorboard)
    else:
        options = {"teacher": teacher, "tensorboard": tensorboard, "resumed": resumed}
        reason = fit(run, setup, logger, stop, **options)
    run.finish(final_numbers(setup, reason, teacher))
    logger.say(f"finished {run.path} in {duration(setup.state.clock.wall)}")
    if setup.group.is_main:
        logger.say(diagnose(run))
        if comparison := remark(run):
            logger.say(comparison)
    setup.group.barrier()  # whoever returns from here finds a finished run


def fit(
    run: Run,
    setup: TrainingSetup,
    logger: ConsoleLogger,
    stop: StopRequest,
    *,
    teacher: Run | None = None,
    tensorboard: bool = False,
    resumed: bool = False,
) -> str | None:
    """Take the steps that a run still lacks.

    Args:
        run: begun and locked; its metrics end where the state is.
        setup: what is trained, at the step of the run's newest checkpoint.
        logger: prints what happens.
        stop: a signal that ends the loop after the step at hand, with a checkpoint.
        teacher: a finished run whose answers a model with a distillation token learns.
        tensorboard: write the metrics as events too.
        resumed: the run was begun before, so that its config can no longer be changed.

    Returns:
        Why it ended before its last step, if it did.
    """
    config, state, batches, group = setup.config, setup.state, setup.batches, setup.group
    train, steps, per_epoch = config.train, batches.steps, batches.steps_per_epoch
    score, chance = config.data.score, Chance.of(config, setup.images.host_labels)
    step = setup.build_step(teacher_answers(teacher, setup) if teacher else None)
    results = StepResults(step, run)
    energy = EnergyMeter(setup.device)
    reset_peak_memory(setup.device)
    # What was evaluated is in the checkpoint: a run that ended here ends here once more.
    reason = reason_to_stop(config, state, per_epoch)
    with (
        enough_memory(partial(out_of_memory, config, setup.device, resumed)),
        logger,
        MetricsLogger(run, tensorboard and group.is_main) as metrics,
    ):
        while state.step < steps and reason is None:
            # Step: the result stays on the device
            begun = time.perf_counter()
            step.resize(batches.size(state.step))
            reductions = state.plateau.reductions
            lr_scale = lr_schedule(config.optim, state.step, per_epoch, steps, reductions)
            images, targets = batches.batch(state.step)
            step.set_scalars(lr_scale, setup.dropout_seed(state.step))
            results.add(step(images, targets))
            state.step, state.evaluation = state.step + 1, {}
            state.add_step_time(time.perf_counter() - begun)
            while step.fallbacks:
                message = step.fallbacks.pop(0)
                state.alarms.append(f"at step {state.step}: {message}")
                logger.warn(message)

            # What is due, and before it the device is waited for. A CPU has nothing queued: its
            # every step is read, and a divergence seen at once.
            epoch = state.step / per_epoch
            logging = state.step % train.log_steps == 0 or state.step == steps
            evaluating = due(state.step, train.evaluate_epochs, per_epoch, steps)
            # The plateau rule looks at every epoch, so that the cadence of evaluations changes
            # no weight.
            plateau = config.optim.schedule == "plateau" and state.step % per_epoch == 0
            saving = due(state.step, train.checkpoint_epochs, per_epoch, steps)
            signal = group.all_reduce_max(stop.signal)
            waiting = setup.device.type == "cpu" or logging or evaluating or plateau
            if waiting or saving or signal:
                grad_norm = results.read()
                speed = state.images_per_second(train.batch_size)
                logger.step(state.step, steps, train.epochs, state.recent[-1], speed)

                # Log
                if logging:
                    metrics.log(
                        {
                            "step": state.step,
                            "epoch": epoch,
                            "split": "train",
                            "loss": sum(state.recent) / len(state.recent),
                            "lr": config.optim.lr * lr_scale,
                            "grad_norm": grad_norm,
                            "images_per_second": speed,
                        }
                    )
                    state.recent, state.recent_seconds = [], 0.0

            # Evaluate
            best = False
            if evaluating or plateau:
                numbers = evaluate(setup)
                if plateau:
                    loss = numbers["validation"]["loss"]
                    state.plateau.update(loss, config.optim.plateau_patience)
                if evaluating:
                    state.evaluation = numbers
                    best = update_best(state, score)
                    for split, values in numbers.items():
                        metrics.log({"step": state.step, "epoch": epoch, "split": split, **values})
                    logger.evaluation(epoch, numbers, best, score)
                    clean = numbers["train_clean"]
                    if message := alarm(config, epoch, clean["loss"], clean[score], chance):
                        state.alarms.append(message)
                        logger.warn(message)
                reason = reason_to_stop(config, state, per_epoch)
            if not results:  # while a GPU works on steps, nobody asks it for its joules
                state.clock.tick(energy.read())

            # Save: what diverged was refused above
            if saving or best or signal or reason:
                state.save(run)
            if signal:
                raise Interrupted(
                    f"stopped at step {state.step:,} of {steps:,}; go on with "
                    f"`vitlab train --resume {run.path}`",
                    signal,
                )
    return reason if state.step < steps else None


def due(step: int, every: float, steps_per_epoch: int, steps: int) -> bool:
    """True at the steps where something is due that happens `every` so many epochs, and last."""
    interval = max(1, round(every * steps_per_epoch))
    return step > 0 and (step % interval == 0 or step == steps)


def _set_up(
    config: Config,
    dataset: Dataset,
    device: torch.device,
    group: ProcessGroup,
    clock: Clock,
    begun: Run | None = None,
) -> TrainingSetup:
    """Set up a training whose clock runs since its images were asked for.

    Args:
        begun: the run it goes on with, computed as it was so far.
    """
    images = dataset.examples.images
    with enough_memory(partial(out_of_memory_building, config, images, device)):
        settings = stored_settings(begun.provenance, device) if begun else None
        setup = TrainingSetup.build(
            config, dataset, device, group, settings=settings, initial=begun is None
        )
    setup.state.clock = clock
    clock.prepared()
    return setup


def _begin(
    run: Run, setup: TrainingSetup, how: str | None, logger: ConsoleLogger, stop: StopRequest
) -> None:
    """Write where a new run comes from, and say what was chosen for it.

    Args:
        how: the command line that makes its config.
    """
    run.write_split(split_record(setup))
    run.truncate_metrics(-1)
    teacher = {"teacher": run.teacher.name} if setup.config.train.teacher else {}
    run.write_provenance(provenance_of(setup, how) | teacher)
    with (
        stop.immediately(_before_first_step(run)),
        enough_memory(partial(out_of_memory, setup.config, setup.device)),
    ):
        introduce(run, setup, logger)
    if setup.weights is not None:
        setup.state.save(run)  # from here on the run does not need its source again


def _restore(run: Run, setup: TrainingSetup, logger: ConsoleLogger) -> None:
    """Bring a training to where its run stands."""
    state = setup.state
    state.load(run.checkpoint())
    for difference in differences(run.provenance, provenance_of(setup, None)):
        state.alarms.append(f"resumed at step {state.step}: {difference}")
        logger.warn(difference)
    run.truncate_metrics(state.step)
    if setup.settings.precision.value == "bf16" and not multiplies_bf16(setup.device):
        logger.warn("this run goes on in bf16, which is slow here: it is not native")
    logger.say(f"resuming {run.path} at step {state.step:,} of {setup.batches.steps:,}")


def _teacher(
    run: Run,
    setup: TrainingSetup,
    data: Data,
    data_root: Root,
    tensorboard: bool,
    logger: ConsoleLogger,
) -> Run | None:
    """The finished run that `train.teacher` asks for: trained, resumed or found finished."""
    if run.config.train.teacher is None:
        return None
    path = run.teacher
    teacher = Run(path) if setup.group.all_reduce_max(int(Run.exists(path))) else None
    inside = path.parent == run.path  # where earlier versions had it
    if teacher is not None and not inside and teacher.config != teacher_config(run.config):
        raise RunError(
            f"{path} is another run than the teacher of {run.path}: move it away, and go on with "
            f"`vitlab train --resume {run.path}`"
        )
    options: dict[str, Any] = {
        "data": data,
        "device": str(setup.device),
        "data_root": data_root,
        "tensorboard": tensorboard,
        "quiet": logger.console.quiet,
    }
    try:
        if teacher is None:
            config = teacher_config(run.config)
            logger.say(f"the teacher of {run.path} comes first: {config.recipe}")
            teacher = train(config, out=path.parent, name=path.name, **options)
        elif teacher.finished is None:
            logger.say(f"the teacher of {run.path} comes first")
            teacher = resume(path, **options)
    except Interrupted as stopped:
        raise Interrupted(
            f"stopped in the teacher; go on with `vitlab train --resume {run.path}`",
            stopped.exit_code - 128,
        ) from None
    setup.state.clock.skip()
    return teacher


def _before_first_step(run: Run) -> str:
    return f"stopped before a step was taken; go on with `vitlab train --resume {run.path}`"


def new_path(config: Config, out: str | os.PathLike[str] | None, name: str | None) -> Path:
    """Where a new run of a config goes; VitlabError for a name that no folder can have."""
    folder = Path(out or os.environ.get("VITLAB_RUNS") or "runs")
    if name is not None:
        if name in ("", ".", "..") or Path(name).name != name or name.startswith("."):
            raise VitlabError(f"name {name!r} is no folder name: use letters, digits, - and _")
        return folder / name
    return folder / f"{config.recipe}-seed{config.train.seed}"


def overfit_one_batch(
    config: Config,
    *,
    data: Data = None,
    device: str = "auto",
    data_root: Root = None,
    quiet: bool = False,
    steps: int = 300,
) -> dict[str, Any]:
    """Prove that a set-up can learn: fit a single plain batch, at the peak learning rate.

    Returns:
        {"learned": bool, "steps": int, "loss": float, "accuracy": float}; learned means every
        image of the batch classified correctly within `steps`. Nothing is written.
    """
    plain = {
        f"model.{name}": 0.0
        for name in ("dropout", "attention_dropout", "embed_dropout", "drop_path")
        if hasattr(config.model, name)
    }
    dataset = open_dataset(config.data, data, data_root)
    config = resolve(replace(config.override(plain), data=dataset.config))
    where, logger = choose_device(device), ConsoleLogger(quiet)
    check(config, dataset, where, SINGLE, logger)
    with enough_memory(partial(out_of_memory, config, where)), torch.random.fork_rng():
        setup = TrainingSetup.build(config, dataset, where, settings=rules(config, where))
        state, step = setup.state, setup.build_step()
        results, loss, accuracy = StepResults(step), math.inf, 0.0
        images = setup.images[: config.train.batch_size]
        labels = setup.images.labels[: config.train.batch_size]
        images = resize(normalize(images, setup.mean, setup.std), state.image_size)
        targets = make_targets(labels, labels, 1.0, 0.0, config.data.classes or 0)
        while state.step < steps and accuracy < 1:
            step.set_scalars(min(1.0, (state.step + 1) / 20), setup.dropout_seed(state.step))
            results.add(step(images, targets))
            state.step += 1
            results.read()
            loss = state.recent[-1]
            with torch.inference_mode():
                state.model.eval()
                accuracy = float(all_right(state.model(images), labels).float().mean())
                state.model.train()
    learned = accuracy == 1
    verdict = "this set-up can learn" if learned else "this set-up does not learn: look at the rate"
    logger.say(f"{accuracy:.1%} of {len(labels)} images after {state.step} steps: {verdict}")
    return {"learned": learned, "steps": state.step, "loss": loss, "accuracy": accuracy}

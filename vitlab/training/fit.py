"""The training loop: build, resume, step, log, judge, finish.

The loop runs one time more than there are steps, and the last pass only judges, so the
final validation is not written twice. Everything random is a function of (seed, step):
logging, judging or saving more often changes no weight, and a resumed run needs nothing but
the step it stopped at. The test split cannot be reached from here.
"""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vitlab.config import Config, DataConfig, text
from vitlab.data import (
    ARRAYS,
    KNOWN,
    LabelledImages,
    class_counts,
    from_arrays,
    open_dataset,
)
from vitlab.data.augment import normalize
from vitlab.data.batches import resize
from vitlab.device import (
    choose_device,
    choose_threads,
    deterministic,
    enough_memory,
    multiplies_bf16,
)
from vitlab.errors import DataError, DivergenceError, Interrupted, VitlabError
from vitlab.fields import text
from vitlab.inference import open_examples
from vitlab.measured import remark
from vitlab.models.cost import cost
from vitlab.pretrained.weights import read_weights
from vitlab.recipes import command, recipe, shortened
from vitlab.run import Run
from vitlab.training.autotune import Settings, rules, stored
from vitlab.training.console import ConsoleLogger
from vitlab.training.distributed import Ranks, join
from vitlab.training.journal import MetricsLogger, require
from vitlab.training.memory import (
    described,
    many_tokens,
    out_of_memory,
    out_of_memory_building,
    out_of_memory_judging,
    refuse_excess,
    tight,
)
from vitlab.training.optim import rate
from vitlab.training.preflight import alarm, copies, refuse, warnings_for
from vitlab.training.provenance import (
    determinism,
    device_name,
    differences,
    peak_memory,
    provenance_of,
    reset_peak_memory,
    seen_before,
    split_of,
)
from vitlab.training.session import Session, Step
from vitlab.training.state import Clock
from vitlab.training.stop import StopRequest, reason_to_stop, stop_request

Data = LabelledImages | tuple[np.ndarray, np.ndarray] | None

NO_RUN = "stopped before the first step: no run was begun"


def train(
    config: Config,
    *,
    data: Data = None,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
    tensorboard: bool = False,
    quiet: bool = False,
) -> Run:
    """Train a config into a new run directory.

    In each of the processes that `torchrun` starts, this takes part in one training of all.

    Args:
        config: the experiment; what it leaves to the data set is filled in.
        data: training images and labels in memory, instead of `config.data.dataset`.
        out: folder of runs; default $VITLAB_RUNS, else `runs`.
        name: name of the run; default the recipe and the seed, numbered when taken.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.
        tensorboard: write the metrics as events for TensorBoard too.
        quiet: print nothing.

    Raises:
        ConfigError, DataError: before anything is written.
        RunError: a name that is taken, or weights to start from that do not fit.
        DivergenceError: at a loss or gradient that is not finite.
        Interrupted: after SIGINT, SIGTERM or SIGHUP, once the checkpoint is written; before the
            first step at once, and nothing is.
    """
    clock = Clock()
    if tensorboard:
        require()
    path = _new_path(config, out, name)
    words = command(config)
    ranks, where = join(choose_device(device))
    logger = ConsoleLogger(quiet or not ranks.first)
    with stop_request(passed_on=ranks.world > 1) as stop:
        with ranks.in_turn(), stop.at_once(NO_RUN):
            config, data = _resolved(config, data, data_root)
            known = KNOWN.get(config.data.dataset)
            count = len(data.images) if data else known.train if known else 1
            count *= (1 - config.data.validation_fraction) * config.data.train_fraction
            _announce(config, where, ranks, logger)
            _fits(config, where, max(1, int(count)), ranks.world)
            examples = _loaded(config, data, data_root)
            refuse(config, examples, ranks.world)
            images = len(examples.split(config.data)[0])
            _fits(config, where, images, ranks.world)
            for warning in tight(config, where, images, ranks.world):
                logger.warn(warning)
            if config.train.teacher is not None:
                refuse(teacher_of(config), examples, ranks.world)
            told = []
            if config.data.dataset != ARRAYS:
                told = open_dataset(config.data, root=data_root).description
        work = Work(
            config, examples, where, ranks, logger, tensorboard, clock, stop, NO_RUN, told=told
        )
        return _train(work, ranks.create(path, config, numbered=name is None), words)


def resume(
    path: str | os.PathLike[str],
    *,
    data: Data = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
    tensorboard: bool = False,
    quiet: bool = False,
) -> Run:
    """Go on with a run from its newest sound checkpoint, to the weights it would have had.

    A finished run is returned untouched.
    """
    clock = Clock()
    if tensorboard:
        require()
    run = Run(path)
    ranks, where = join(choose_device(device))
    logger = ConsoleLogger(quiet or not ranks.first)
    if run.finished is not None:
        logger.say(f"{run.path} is already complete")
        return run
    with ranks.reopen(run.path) as run, stop_request(passed_on=ranks.world > 1) as stop:
        early, begun, config = _stopped_early(run), bool(run.checkpoints()), run.config
        with ranks.in_turn(), stop.at_once(early):
            if begun:
                examples = open_examples(run, data, data_root)
            else:
                examples = _loaded(*_resolved(config, data, data_root), data_root)
            images = len(examples.split(config.data)[0])
            _fits(config, where, images, ranks.world, resumed=True)
        settings = stored(run.provenance, where) if begun else None
        work = Work(
            config, examples, where, ranks, logger, tensorboard, clock, stop, early, settings,
            resumed=True,
        )  # fmt: skip
        return _train(work, nullcontext(run), command(config), begun)


def overfit_one_batch(
    config: Config,
    *,
    data: Data = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
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
    config, data = _resolved(config.override(plain), data, data_root)
    where = choose_device(device)
    logger = ConsoleLogger(quiet)
    for warning in many_tokens(config):
        logger.warn(warning)
    examples = _loaded(config, data, data_root)
    refuse(config, examples)
    _fits(config, where, len(examples.split(config.data)[0]))
    with enough_memory(partial(out_of_memory, config, where)), torch.random.fork_rng():
        weights, settings = _weights(config), rules(config, where)
        session = Session.build(config, examples, where, weights=weights, settings=settings)
        state = session.state
        images, labels = session.images[: config.train.batch_size], session.images.labels
        labels = labels[: config.train.batch_size]
        batch = resize(normalize(images, session.mean, session.std), state.image_size)
        targets = F.one_hot(labels, config.data.classes or 0).float()
        loss, accuracy = math.inf, 0.0
        while state.step < steps and accuracy < 1:
            session.take_step((batch, targets), share=min(1.0, (state.step + 1) / 20))
            loss = session.read()[-1].loss
            with torch.inference_mode():
                state.model.eval()
                accuracy = float((state.model(batch).argmax(1) == labels).float().mean())
                state.model.train()
    learned = accuracy == 1
    verdict = "this set-up can learn" if learned else "this set-up does not learn: look at the rate"
    logger.say(f"{accuracy:.1%} of {len(labels)} images after {state.step} steps: {verdict}")
    return {"learned": learned, "steps": state.step, "loss": loss, "accuracy": accuracy}


def due(step: int, every: float, steps_per_epoch: int, steps: int) -> bool:
    """True at the steps where something is due that happens `every` so many epochs, and last."""
    interval = max(1, round(every * steps_per_epoch))
    return step > 0 and (step % interval == 0 or step == steps)


@dataclass(frozen=True)
class Work:
    """What a training is given: the experiment, its images, where it runs and who hears of it."""

    config: Config
    examples: LabelledImages
    device: torch.device
    ranks: Ranks
    logger: ConsoleLogger
    tensorboard: bool
    clock: Clock
    """Runs since the images were asked for."""
    stop: StopRequest
    early: str
    """What is said where a signal stops it before the run is open."""
    settings: Settings | None = None
    """How a run that is resumed was computed from its beginning."""
    told: Sequence[str] = ()
    """What of the data set is used for what, and what is not."""
    resumed: bool = False
    """The run was begun before, so that its config can no longer be changed."""


def _train(
    work: Work, opening: AbstractContextManager[Run], words: str | None, begun: bool = False
) -> Run:
    """Build a session, open the run, and train it to its end.

    In this order, because what cannot be built should leave no run behind.
    """
    config, examples, logger = work.config, work.examples, work.logger
    before, seen = (np.empty(0, np.uint64), 0) if begun else seen_before(config, examples)
    with _sitting(work):
        with (
            work.stop.at_once(work.early),
            enough_memory(partial(out_of_memory_building, config, examples.images, work.device)),
        ):
            weights = None if begun else _weights(config)
            session = Session.build(
                config, examples, work.device, work.ranks, weights, work.settings
            )
        session.state.clock = clock = work.clock
        clock.prepared()
        with opening as run:
            if config.train.teacher is not None:
                session.learn_from(_teacher(run, work))
                clock.skip()
            with logger:
                if not begun:
                    run.write_split(split_of(examples, config, before))
                _take_up(run, session, work, words, begun, seen)
                journal = MetricsLogger(run, work.tensorboard and work.ranks.first)
                with journal, _looking_back(run):
                    reason = _loop(run, session, logger, journal, work.stop)
                run.finish(_final_numbers(run, session, reason))
            logger.say(f"finished {run.path} in {duration(session.state.clock.wall)}")
            if work.ranks.first and (words_on_it := remark(run)):
                logger.say(words_on_it)
            work.ranks.agree(0)  # whoever returns from here finds a finished run
    return run


def _announce(config: Config, device: torch.device, ranks: Ranks, logger: ConsoleLogger) -> None:
    """Say what a training will be, before it reads images or takes memory."""
    logger.header([("device", device_name(device)), ("threads", choose_threads(device))])
    logger.header(described(config, device, ranks.world))
    for warning in many_tokens(config):
        logger.warn(warning)


def _fits(
    config: Config, device: torch.device, images: int, world: int = 1, resumed: bool = False
) -> None:
    """Refuse what cannot fit into memory, the teacher of a config included."""
    refuse_excess(config, device, images, world, resumed)
    if config.train.teacher is not None:
        refuse_excess(teacher_of(config), device, images, world, resumed)


@contextmanager
def _sitting(work: Work) -> Iterator[None]:
    """What holds while a model is built and trained; running out of memory brings advice."""
    with (
        enough_memory(partial(out_of_memory, work.config, work.device, work.resumed)),
        torch.random.fork_rng(),
        deterministic(work.config.train.deterministic),
    ):
        yield


@contextmanager
def _looking_back(run: Run) -> Iterator[None]:
    """Let a training that diverged name what is left of it."""
    try:
        yield
    except DivergenceError as error:
        kept = run.checkpoints()
        last = kept[-1].path if kept else "none yet"
        raise DivergenceError(f"{error}\nThe last good checkpoint: {last}") from error


def _teacher(run: Run, work: Work) -> Run:
    """Train a run's teacher as a run of its own inside it, as far as that is still to be done."""
    path, logger = run.teacher, ConsoleLogger(work.logger.console.quiet)
    found = Run(path) if Run.exists(path) else None
    if found is not None and found.finished is not None:
        return found
    config = teacher_of(run.config)
    opening = work.ranks.create(path, config) if found is None else work.ranks.reopen(path)
    begun = bool(found and found.checkpoints())
    settings = stored(found.provenance, work.device) if found and begun else None
    logger.say(f"the teacher of {run.path} comes first: {config.recipe}")
    if not begun:
        _announce(config, work.device, work.ranks, logger)
    try:
        work = replace(work, config=config, logger=logger, clock=Clock(), settings=settings)
        return _train(work, opening, command(config), begun)
    except Interrupted as stopped:
        raise Interrupted(
            f"stopped in the teacher; go on with `vitlab train --resume {run.path}`",
            stopped.exit_code - 128,
        ) from None


def teacher_of(config: Config) -> Config:
    """The config of a teacher: its recipe, on the images and with the numbers of its student."""
    assert config.train.teacher is not None
    teacher = recipe(config.train.teacher)
    epochs = config.train.teacher_epochs or teacher.train.epochs
    # A shorter training keeps its share of small images.
    small = teacher.train.small_epochs * epochs // teacher.train.epochs
    train = replace(
        teacher.train,
        epochs=epochs,
        small_epochs=small,
        small_size=teacher.train.small_size if small else None,
        drop_last=False,  # its batches may be larger than all the images of its student
        seed=config.train.seed,
        precision=config.train.precision,
        compile=config.train.compile,
        deterministic=config.train.deterministic,
    )
    return replace(teacher, data=config.data, train=train)


def _take_up(
    run: Run, session: Session, work: Work, words: str | None, begun: bool, seen: int
) -> None:
    """Bring the session to where the run stands, and say what was chosen."""
    state, batches, logger = session.state, session.batches, work.logger
    origin = provenance_of(session, work.examples, words, seen)
    session.meter.read()
    reset_peak_memory(session.device)
    if begun:
        checkpoint = run.checkpoint()
        session.resize(checkpoint.state["image_size"])
        state.load(checkpoint)
        for difference in differences(run.provenance, origin):
            state.alarms.append(f"resumed at step {state.step}: {difference}")
            logger.warn(difference)
        run.truncate_metrics(state.step)
        if session.settings.precision.value == "bf16" and not multiplies_bf16(session.device):
            logger.warn("this run goes on in bf16, which is slow here: it is not native")
        logger.say(f"resuming {run.path} at step {state.step:,} of {batches.steps:,}")
        return
    run.truncate_metrics(-1)
    run.write_provenance(origin)
    with work.stop.at_once(_stopped_early(run)):
        _introduce(run, session, work, seen)
    if session.start is not None:
        state.save(run)  # from here on the run does not need its source again


def _introduce(run: Run, session: Session, work: Work, seen: int) -> None:
    """Say what was chosen for a new run, how long it will take and what may go wrong."""
    config, batches, logger = run.config, session.batches, work.logger
    logger.header(
        [
            ("run", run.path),
            *session.settings._asdict().items(),
            ("compilation", session.compilation),
            ("determinism", determinism(session)),
            *([("processes", session.ranks.world)] if session.ranks.world > 1 else []),
            (
                "data",
                f"{config.data.dataset}: {len(session.images):,} training and "
                f"{len(session.validation):,} validation images, {config.data.classes} classes",
            ),
            ("classes", class_counts(work.examples.labels, work.examples.class_names)),
            *(("" if place else "images", line) for place, line in enumerate(work.told)),
            *_greys(work.examples),
            ("steps", f"{batches.steps:,}: {config.train.epochs} epochs of "
                      f"{batches.steps_per_epoch:,} batches of {config.train.batch_size}"),
            *(
                ("", f"{name}={brief(value)} in proportion, {brief(usual)} in the recipe")
                for name, (usual, value) in shortened(config).items()
            ),
            ("time", f"about {duration(session.estimate())}, from two trial steps"),
        ]
    )  # fmt: skip
    if seen:
        logger.warn(
            f"{seen:,} of the {len(session.validation):,} validation images were trained on by "
            f"{config.train.weights}: the validation accuracy says little about new images"
        )
    if session.start is not None:
        report = str(session.start.report).splitlines()
        logger.header([("weights", session.start.source), *(("", line) for line in report)])
    if config.train.precision not in ("auto", session.settings.precision.value):
        logger.warn(f"train.precision is {session.settings.precision}")
    for warning in warnings_for(config, len(session.images)):
        logger.warn(warning)
    if warning := copies(config, work.examples):
        logger.warn(warning)


def _greys(examples: LabelledImages) -> Iterator[tuple[str, str]]:
    """A line on what of 16 bits is looked at."""
    if examples.grey_range:
        low, high = examples.grey_range
        yield "", f"16-bit grey levels {low:,} to {high:,} become 0 to 255: data.grey_range"


def _stopped_early(run: Run) -> str:
    return f"stopped before a step was taken; go on with `vitlab train --resume {run.path}`"


def _loop(
    run: Run, session: Session, logger: ConsoleLogger, journal: MetricsLogger, stop: StopRequest
) -> str | None:
    """Take all steps that are left, or fewer: then the reason for stopping early is returned."""
    state, batches, train = session.state, session.batches, session.config.train
    start = state.step
    for step in range(start, batches.steps + 1):
        if step > start:
            signal = session.ranks.agree(stop.signal)
            saving = due(step, train.checkpoint_epochs, batches.steps_per_epoch, batches.steps)
            if saving or signal:
                _read(session, logger)  # what diverged must not be stored
            best = _judge(session, logger, journal)
            if not session.pending:  # while a GPU works on steps, nobody asks it for its joules
                state.clock.tick(session.meter.read())
            enough = reason_to_stop(train, state, batches.steps_per_epoch)
            if saving or best or signal or enough:
                state.save(run)
            if signal:
                raise Interrupted(
                    f"stopped at step {step:,} of {batches.steps:,}; go on with "
                    f"`vitlab train --resume {run.path}`",
                    signal,
                )
        if step == batches.steps:
            break
        # What was judged is in the checkpoint: a run that is resumed here stops here once more.
        if reason := reason_to_stop(train, state, batches.steps_per_epoch):
            return reason
        _step(session, logger, journal)
    return None


def _step(session: Session, logger: ConsoleLogger, journal: MetricsLogger) -> None:
    """Take a step and, where a line of metrics is due, write it."""
    state, batches, config = session.state, session.batches, session.config
    begun = time.perf_counter()
    session.resize(batches.size(state.step))
    share = rate(
        config.optim,
        state.step,
        batches.steps_per_epoch,
        batches.steps,
        state.plateau.reductions,
    )
    session.take_step(batches.batch(state.step), share)
    state.count(time.perf_counter() - begun)
    for message in session.stepper.tell():
        state.alarms.append(f"at step {state.step}: {message}")
        logger.warn(message)
    logging = state.step % config.train.log_steps == 0 or state.step == batches.steps
    # A CPU has nothing queued: its every step is read, and a divergence seen at once.
    if not (logging or session.device.type == "cpu"):
        return
    taken = _read(session, logger)
    if logging:
        journal.add(
            {
                "step": state.step,
                "epoch": state.step / batches.steps_per_epoch,
                "split": "train",
                "loss": sum(state.recent) / len(state.recent),
                "lr": config.optim.lr * share,
                "grad_norm": taken[-1].grad_norm,
                "images_per_second": state.speed(config.train.batch_size),
            }
        )
        state.recent, state.recent_seconds = [], 0.0


def _read(session: Session, logger: ConsoleLogger) -> list[Step]:
    """Wait for the steps that are queued on the device; their time is that of steps."""
    state, train = session.state, session.config.train
    begun = time.perf_counter()
    taken = session.read()
    state.count(time.perf_counter() - begun)
    if taken:
        speed = state.speed(train.batch_size)
        logger.step(state.step, session.batches.steps, train.epochs, taken[-1].loss, speed)
    return taken


def _judge(session: Session, logger: ConsoleLogger, journal: MetricsLogger) -> bool:
    """Validate where it is due; True if the validation accuracy is the best so far.

    The plateau rule judges at the end of every epoch, whether or not that is written down, so
    that the cadence of validations changes no weight.
    """
    state, config = session.state, session.config
    per_epoch, steps = session.batches.steps_per_epoch, session.batches.steps
    judging = due(state.step, config.train.evaluate_epochs, per_epoch, steps)
    plateau = config.optim.schedule == "plateau" and state.step % per_epoch == 0
    if not (judging or plateau):
        return False
    _read(session, logger)
    with enough_memory(partial(out_of_memory_judging, session.device)):
        numbers = session.judge()
    if plateau:
        state.plateau.judge(numbers["validation"]["loss"], config.optim.plateau_patience)
    if not judging:
        return False
    epoch = state.step / per_epoch
    state.judged = numbers
    for split, values in numbers.items():
        journal.add({"step": state.step, "epoch": epoch, "split": split, **values})
    validation = numbers.get("validation", {"accuracy": -1.0, "loss": math.nan})
    best = math.isfinite(validation["loss"]) and (
        validation["accuracy"] > state.best.get("accuracy", -1)
    )
    if best:
        state.best = {"step": state.step, **validation}
    logger.judged(epoch, numbers, best)
    clean = numbers["train_clean"]
    if message := alarm(config, epoch, clean["loss"], clean["accuracy"]):
        state.alarms.append(message)
        logger.warn(message)
    return best


def _final_numbers(run: Run, session: Session, reason: str | None) -> dict[str, Any]:
    state, batches, config = session.state, session.batches, session.config
    whole = cost(config)
    epochs = config.train.epochs if reason is None else state.step / batches.steps_per_epoch
    early = {"stopped": {"reason": reason, "planned_epochs": config.train.epochs}}
    return {
        "step": state.step,
        "epochs": epochs,
        **(early if reason else {}),
        **state.judged,
        "best": state.best,
        "parameters": whole.parameters,
        "macs": whole.macs,
        "megabytes": whole.parameters * 4 / 1e6,
        "images_per_second": state.step * config.train.batch_size / state.clock.steps,
        "seconds_per_epoch": state.clock.steps / epochs,
        "seconds_per_step": state.clock.steps / state.step,
        "clock": _clocks(run, session),
        "peak_memory_bytes": peak_memory(session.device),
        "alarms": state.alarms,
    }


def _clocks(run: Run, session: Session) -> dict[str, Any]:
    """What a run cost, its teacher's training included."""
    clock, ranks = session.state.clock, session.ranks
    total: dict[str, Any] = {
        "wall_seconds": clock.wall,
        "process_seconds": ranks.total(torch.tensor(clock.process, dtype=torch.float64)).item(),
        "preparation_seconds": clock.preparation,
        "step_seconds": clock.steps,
        "capture_seconds": clock.capture,
    }
    # The counters of other ranks' chips are not read.
    if clock.joules is not None and ranks.world == 1:
        total["joules"] = clock.joules
    if session.config.train.teacher is None:
        return total
    finished = Run(run.teacher).finished
    assert finished is not None
    teacher = finished["clock"]
    both = {name: total[name] + teacher[name] for name in total if name in teacher}
    return {**both, "teacher": teacher}


def resolve(data: DataConfig, root: str | os.PathLike[str] | None) -> DataConfig:
    """A config with nothing left open."""
    return open_dataset(data, root=root).config


def load_train(data: DataConfig, root: str | os.PathLike[str] | None) -> LabelledImages:
    """The training images of a config."""
    return open_dataset(data, root=root).examples


def _resolved(
    config: Config, data: Data, root: str | os.PathLike[str] | None
) -> tuple[Config, LabelledImages | None]:
    """Fill in what a config left to its images; return these too if they were given."""
    if data is None and config.data.dataset == ARRAYS:
        raise DataError("the images were arrays in memory: hand them in again as data=")
    if data is None:
        return replace(config, data=resolve(config.data, root)), None
    examples = data.canonical() if isinstance(data, LabelledImages) else from_arrays(*data)
    height, width, channels = examples.images.shape[1:]
    found = {
        "image_size": (height, width),
        "channels": channels,
        "classes": len(examples.class_names),
    }
    for name, value in found.items():
        if getattr(config.data, name) not in (None, value):
            raise DataError(
                f"data.{name}={getattr(config.data, name)} does not fit the images given: {value}"
            )
    return replace(config, data=replace(config.data, dataset=ARRAYS, **found)), examples


def _loaded(
    config: Config, given: LabelledImages | None, root: str | os.PathLike[str] | None
) -> LabelledImages:
    """The training images of a resolved config."""
    if given is not None:
        return given
    height, width = config.data.image_size or (0, 0)
    pixels = height * width * (config.data.channels or 0)
    with enough_memory(
        lambda: (
            f"out of memory while reading {config.data.dataset}: an image of {height} x {width} "
            f"pixels takes {pixels:,} bytes. Set a smaller --data.image_size, or stop what else "
            "uses this memory"
        )
    ):
        return load_train(config.data, root)


def _weights(config: Config) -> dict[str, torch.Tensor] | None:
    """The tensors that a config wants its model to start from."""
    return None if config.train.weights is None else read_weights(config.train.weights)


def _new_path(config: Config, out: str | os.PathLike[str] | None, name: str | None) -> Path:
    folder = Path(out or os.environ.get("VITLAB_RUNS") or "runs")
    if name is not None:
        if name in ("", ".", "..") or Path(name).name != name or name.startswith("."):
            raise VitlabError(f"name {name!r} is no folder name: use letters, digits, - and _")
        return folder / name
    return folder / f"{config.recipe}-seed{config.train.seed}"


def brief(value: Any) -> str:
    """A value of a config in words, a fraction to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else text(value)


def duration(seconds: float) -> str:
    """Seconds in words: 41 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"

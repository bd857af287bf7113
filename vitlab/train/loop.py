"""The training loop: build, resume, step, log, judge, finish.

The loop runs one time more than there are steps, and the last pass only judges, so the
final validation is not written twice. Everything random is a function of (seed, step):
logging, judging or saving more often changes no weight, and a resumed run needs nothing but
the step it stopped at. The test split cannot be reached from here.
"""

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vitlab.config import Config
from vitlab.data import ARRAYS, Examples, from_arrays, load_train, resolve
from vitlab.data.augment import normalize
from vitlab.data.batches import resize
from vitlab.device import choose_device, deterministic
from vitlab.errors import DataError, Interrupted, VitlabError
from vitlab.models.cost import cost
from vitlab.recipes import command
from vitlab.run import Run
from vitlab.train.console import Narrator
from vitlab.train.optim import rate
from vitlab.train.origin import determinism, device_name, differences, origin_of, peak_memory
from vitlab.train.preflight import alarm, warnings_for
from vitlab.train.session import Session
from vitlab.train.stop import StopRequest, stop_request

Data = Examples | tuple[np.ndarray, np.ndarray] | None


def train(
    config: Config,
    *,
    data: Data = None,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> Run:
    """Train a config into a new run directory.

    Args:
        config: the experiment; what it leaves to the data set is filled in.
        data: training images and labels in memory, instead of `config.data.dataset`.
        out: folder of runs; default $VITLAB_RUNS, else `runs`.
        name: name of the run; default the recipe and the seed, numbered when taken.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache.
        quiet: print nothing.

    Raises:
        ConfigError, DataError: before anything is written.
        DivergenceError: at a loss or gradient that is not finite.
        Interrupted: after SIGINT or SIGTERM, once the checkpoint is written.
    """
    where = choose_device(device)
    path = _new_path(config, out, name)
    words = command(config)
    config, examples = _read(config, data, data_root)
    with Run.claim(path):
        run = Run.create(path, config)
        return _train(run, examples, where, Narrator(quiet), words)


def resume(
    path: str | os.PathLike[str],
    *,
    data: Data = None,
    device: str = "auto",
    data_root: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> Run:
    """Go on with a run from its newest sound checkpoint, to the weights it would have had.

    A finished run is returned untouched.
    """
    run = Run(path)
    narrator = Narrator(quiet)
    if run.finished is not None:
        narrator.say(f"{run.path} is already complete")
        return run
    with Run.claim(run.path):
        run.sweep()
        _, examples = _read(run.config, data, data_root)
        return _train(run, examples, choose_device(device), narrator, command(run.config))


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
    config, examples = _read(config.override(plain), data, data_root)
    where = choose_device(device)
    narrator = Narrator(quiet)
    with torch.random.fork_rng():
        session = Session.build(config, examples, where)
        state = session.state
        images, labels = session.images[: config.train.batch_size], session.images.labels
        labels = labels[: config.train.batch_size]
        batch = resize(normalize(images, session.mean, session.std), state.image_size)
        targets = F.one_hot(labels, config.data.classes or 0).float()
        loss, accuracy = math.inf, 0.0
        while state.step < steps and accuracy < 1:
            loss = session.take_step((batch, targets), share=min(1.0, (state.step + 1) / 20)).loss
            with torch.inference_mode():
                state.model.eval()
                accuracy = float((state.model(batch).argmax(1) == labels).float().mean())
                state.model.train()
    learned = accuracy == 1
    verdict = "this set-up can learn" if learned else "this set-up does not learn: look at the rate"
    narrator.say(f"{accuracy:.1%} of {len(labels)} images after {state.step} steps: {verdict}")
    return {"learned": learned, "steps": state.step, "loss": loss, "accuracy": accuracy}


def due(step: int, every: float, steps_per_epoch: int, steps: int) -> bool:
    """True at the steps where something is due that happens `every` so many epochs, and last."""
    interval = max(1, round(every * steps_per_epoch))
    return step > 0 and (step % interval == 0 or step == steps)


def _train(
    run: Run,
    examples: Examples,
    device: torch.device,
    narrator: Narrator,
    words: str | None,
) -> Run:
    try:
        with (
            torch.random.fork_rng(),
            deterministic(run.config.train.deterministic),
            stop_request() as stop,
            narrator,
        ):
            session = Session.build(run.config, examples, device)
            _take_up(run, session, examples, narrator, words)
            _loop(run, session, narrator, stop)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(run.config) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise _out_of_memory(run.config) from error
        raise
    return run


def _take_up(
    run: Run,
    session: Session,
    examples: Examples,
    narrator: Narrator,
    words: str | None,
) -> None:
    """Bring the session to where the run stands, and say what was chosen."""
    config, state, batches = run.config, session.state, session.batches
    origin = origin_of(session, examples, words)
    if run.checkpoints():
        checkpoint = run.checkpoint()
        state.resize(tuple(checkpoint.state["image_size"]))
        state.load(checkpoint)
        for difference in differences(run.origin, origin):
            state.alarms.append(f"resumed at step {state.step}: {difference}")
            narrator.warn(difference)
        run.truncate_metrics(state.step)
        narrator.say(f"resuming {run.path} at step {state.step:,} of {batches.steps:,}")
        return
    run.truncate_metrics(-1)
    run.write_origin(origin)
    whole = cost(config)
    narrator.header(
        [
            ("run", run.path),
            ("device", f"{device_name(session.device)}, CPU threads: {torch.get_num_threads()}"),
            ("precision", session.precision),
            ("compilation", session.compilation),
            ("determinism", determinism(session)),
            (
                "data",
                f"{config.data.dataset}: {len(session.images):,} training and "
                f"{len(session.validation):,} validation images, {config.data.classes} classes",
            ),
            ("model", f"{config.model.kind}: {whole.parameters:,} parameters, "
                      f"{whole.macs / 1e6:.1f} M multiply-adds per image"),
            ("steps", f"{batches.steps:,}: {config.train.epochs} epochs of "
                      f"{batches.steps_per_epoch:,} batches of {config.train.batch_size}"),
            ("time", f"about {duration(session.estimate())}, from two trial steps"),
        ]
    )  # fmt: skip
    if config.train.precision not in ("auto", session.precision.word):
        narrator.warn(f"train.precision is {session.precision}")
    for warning in warnings_for(config, len(session.images)):
        narrator.warn(warning)


def _loop(run: Run, session: Session, narrator: Narrator, stop: StopRequest) -> None:
    state, batches, train = session.state, session.batches, run.config.train
    start = state.step
    for step in range(start, batches.steps + 1):
        if step > start:
            best = _judge(run, session, narrator)
            state.clock.tick()
            saving = due(step, train.checkpoint_epochs, batches.steps_per_epoch, batches.steps)
            if saving or best or stop.signal:
                state.save(run)
            if stop.signal:
                raise Interrupted(
                    f"stopped at step {step:,} of {batches.steps:,}; go on with "
                    f"`vitlab train --resume {run.path}`",
                    stop.signal,
                )
        if step < batches.steps:
            _step(run, session, narrator)
    run.finish(_final_numbers(session))
    narrator.say(f"finished {run.path} in {duration(state.clock.wall)}")


def _step(run: Run, session: Session, narrator: Narrator) -> None:
    """Take a step and, where a line of metrics is due, write it."""
    state, batches, config = session.state, session.batches, run.config
    begun = time.perf_counter()
    if batches.size(state.step) != state.image_size:
        state.resize(batches.size(state.step))
    share = rate(
        config.optim,
        state.step,
        batches.steps_per_epoch,
        batches.steps,
        state.plateau.reductions,
    )
    taken = session.take_step(batches.batch(state.step), share)
    seconds = time.perf_counter() - begun
    state.clock.steps += seconds
    state.recent_seconds += seconds
    speed = config.train.batch_size * len(state.recent) / state.recent_seconds
    narrator.step(state.step, batches.steps, config.train.epochs, taken.loss, speed)
    if state.step % config.train.log_steps == 0 or state.step == batches.steps:
        run.append_metrics(
            {
                "step": state.step,
                "epoch": state.step / batches.steps_per_epoch,
                "split": "train",
                "loss": sum(state.recent) / len(state.recent),
                "lr": config.optim.lr * share,
                "grad_norm": taken.grad_norm,
                "images_per_second": speed,
            }
        )
        state.recent, state.recent_seconds = [], 0.0


def _judge(run: Run, session: Session, narrator: Narrator) -> bool:
    """Validate where it is due; True if the validation accuracy is the best so far.

    The plateau rule judges at the end of every epoch, whether or not that is written down, so
    that the cadence of validations changes no weight.
    """
    state, config = session.state, run.config
    per_epoch, steps = session.batches.steps_per_epoch, session.batches.steps
    judging = due(state.step, config.train.evaluate_epochs, per_epoch, steps)
    plateau = config.optim.schedule == "plateau" and state.step % per_epoch == 0
    if not (judging or plateau):
        return False
    numbers = session.judge()
    if plateau:
        state.plateau.judge(numbers["validation"]["loss"], config.optim.plateau_patience)
    if not judging:
        return False
    epoch = state.step / per_epoch
    state.judged = numbers
    for split, values in numbers.items():
        run.append_metrics({"step": state.step, "epoch": epoch, "split": split, **values})
    validation = numbers.get("validation", {"accuracy": -1.0, "loss": math.nan})
    best = math.isfinite(validation["loss"]) and (
        validation["accuracy"] > state.best.get("accuracy", -1)
    )
    if best:
        state.best = {"step": state.step, **validation}
    narrator.judged(epoch, numbers, best)
    if message := alarm(config, epoch, **numbers["train_clean"]):
        state.alarms.append(message)
        narrator.warn(message)
    return best


def _final_numbers(session: Session) -> dict[str, Any]:
    state, batches, config = session.state, session.batches, session.config
    whole = cost(config)
    return {
        "step": state.step,
        "epochs": config.train.epochs,
        **state.judged,
        "best": state.best,
        "parameters": whole.parameters,
        "macs": whole.macs,
        "megabytes": whole.parameters * 4 / 1e6,
        "images_per_second": state.step * config.train.batch_size / state.clock.steps,
        "seconds_per_epoch": state.clock.steps / config.train.epochs,
        "seconds_per_step": state.clock.steps / batches.steps,
        "clock": {
            "wall_seconds": state.clock.wall,
            "process_seconds": state.clock.process,
            "step_seconds": state.clock.steps,
        },
        "peak_memory_bytes": peak_memory(session.device),
        "alarms": state.alarms,
    }


def _read(
    config: Config, data: Data, root: str | os.PathLike[str] | None
) -> tuple[Config, Examples]:
    """Read the training images and fill in what the config left to them."""
    if data is None and config.data.dataset == ARRAYS:
        raise DataError("the images were arrays in memory: hand them in again as data=")
    if data is None:
        config = replace(config, data=resolve(config.data, root))
        return config, load_train(config.data, root)
    examples = data if isinstance(data, Examples) else from_arrays(*data)
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


def _new_path(config: Config, out: str | os.PathLike[str] | None, name: str | None) -> Path:
    folder = Path(out or os.environ.get("VITLAB_RUNS") or "runs")
    if name is not None:
        if name in ("", ".", "..") or Path(name).name != name or name.startswith("."):
            raise VitlabError(f"name {name!r} is no folder name: use letters, digits, - and _")
        return folder / name
    stem = f"{config.recipe}-seed{config.train.seed}"
    candidates = (folder / stem, *(folder / f"{stem}-{number}" for number in range(2, 10_000)))
    return next(path for path in candidates if not path.exists())


def duration(seconds: float) -> str:
    """Seconds in words: 41 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"


def _out_of_memory(config: Config) -> VitlabError:
    half = max(1, config.train.batch_size // 2)
    return VitlabError(
        f"out of memory with train.batch_size={config.train.batch_size}: try {half}, "
        "a smaller model, or train.precision=bf16 where the device has it. "
        "Checkpoints so far are intact"
    )

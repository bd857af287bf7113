"""The training loop: build, resume, step, log, judge, finish.

The loop runs one time more than there are steps, and the last pass only judges, so the
final validation is not written twice. Everything random is a function of (seed, step):
logging, judging or saving more often changes no weight, and a resumed run needs nothing but
the step it stopped at. The test split cannot be reached from here.
"""

import copy
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab import __version__
from vitlab.config import Config
from vitlab.data import Examples, from_arrays, index_sha256, load_train, resolve, statistics
from vitlab.data import train_validation
from vitlab.data.augment import normalize
from vitlab.data.batches import Batches, Images, resize
from vitlab.device import Choice, autocast, choose_compile, choose_device, choose_precision
from vitlab.errors import ConfigError, DataError, DivergenceError, Interrupted, VitlabError
from vitlab.models import build_model
from vitlab.models.cost import cost
from vitlab.predict import compute_logits
from vitlab.recipes import command
from vitlab.run import Run
from vitlab.train.console import Narrator
from vitlab.train.optim import rate
from vitlab.train.preflight import alarm, warnings_for
from vitlab.train.state import TrainState

CLEAN_IMAGES = 5_000
"""Training images, fixed and unaugmented, on which training accuracy is measured."""

START_IMAGES = 5_000
"""Training images that a model's start() sees."""

WEIGHTS, DROPOUT = 101, 102
"""Numbers of the weights and of dropout among what draws from a seed, after batches.ORDER."""

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
    config, examples = _read(config, data, data_root)
    where = choose_device(device)
    path = _new_path(config, out, name)
    with Run.claim(path):
        run = Run.create(path, config)
        return _train(run, examples, where, Narrator(quiet))


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
        config, examples = _read(run.config, data, data_root)
        return _train(run, examples, choose_device(device), narrator)


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
    plain = {f"model.{name}": 0.0 for name in ("dropout", "attention_dropout", "embed_dropout",
             "drop_path") if hasattr(config.model, name)}
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


@dataclass
class Step:
    """What one step measured."""

    loss: float
    grad_norm: float
    rate: float


@dataclass
class Session:
    """A config and its data made ready: what one sitting of a training works with."""

    config: Config
    device: torch.device
    images: Images
    validation: Images
    clean: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batches: Batches
    state: TrainState
    forward: nn.Module
    precision: Choice
    compilation: Choice
    split: dict[str, str]

    @classmethod
    def build(cls, config: Config, examples: Examples, device: torch.device) -> "Session":
        """Split, measure and move the data; build the model at the size of step 0."""
        seed = config.train.seed
        train_index, validation_index = train_validation(examples.labels, config.data)
        mean, std = statistics(examples.images[train_index])
        images = Images(examples, train_index, device)
        batches = Batches(images, config, mean, std)
        if batches.steps == 0:
            raise ConfigError(
                [
                    f"train.drop_last=True leaves no batch: {len(images)} training images are fewer "
                    f"than train.batch_size={config.train.batch_size}"
                ]
            )
        precision = choose_precision(config.train, device)
        compilation = choose_compile(config.train, device, batches.steps)
        if config.train.deterministic:
            torch.use_deterministic_algorithms(True)
        torch.manual_seed(address(seed, 0, WEIGHTS))
        size = batches.size(0)
        model = build_model(replace(config, data=replace(config.data, image_size=size)))
        # Convolutions are a fifth faster with channels last; other layers do not mind.
        model.to(device, memory_format=torch.channels_last).train()
        if (start := getattr(model, "start", None)) is not None:
            some = np.random.default_rng(seed).permutation(len(images))[:START_IMAGES]
            start(resize(normalize(images[some], mean, std), size))
        clean = np.random.default_rng(config.data.split_seed).permutation(len(images))
        state = TrainState.build(model, config.optim, size, precision.word)
        return cls(
            config=config,
            device=device,
            images=images,
            validation=Images(examples, validation_index, device),
            clean=np.sort(clean[:CLEAN_IMAGES]),
            mean=mean,
            std=std,
            batches=batches,
            state=state,
            forward=torch.compile(model) if compilation.word == "on" else model,  # type: ignore[arg-type]
            precision=precision,
            compilation=compilation,
            split={
                "train": index_sha256(train_index),
                "validation": index_sha256(validation_index),
            },
        )

    def take_step(self, batch: tuple[Tensor, Tensor], share: float) -> Step:
        """Move the weights once, every learning rate at `share` of its peak."""
        state, optim = self.state, self.config.optim
        images, targets = batch
        torch.manual_seed(address(self.config.train.seed, state.step, DROPOUT))
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share
            optimizer.zero_grad()
        with autocast(self.device, self.precision.word):
            logits = self.forward(images)
        loss = F.cross_entropy(logits.float(), targets)
        state.scaler.scale(loss).backward()
        for optimizer in state.optimizers:
            state.scaler.unscale_(optimizer)
        gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        step = Step(float(loss), float(norm), share)
        # With a scaler, gradients that overflow are its business: it skips the update.
        sound = math.isfinite(step.loss) and (
            math.isfinite(step.grad_norm) or state.scaler.is_enabled()
        )
        if not sound:
            raise DivergenceError(self._diagnosis(step))
        if optim.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(state.model.parameters(), optim.clip_norm, norm)
        for optimizer in state.optimizers:
            state.scaler.step(optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update_parameters(state.model)
        state.step += 1
        state.recent.append(step.loss)
        state.judged = {}
        return step

    def judge(self, splits: tuple[str, ...]) -> dict[str, dict[str, float]]:
        """Loss and accuracy of the judged model on some of train_clean and validation."""
        sets = {
            "train_clean": lambda: (self.images[self.clean], self._labels(self.clean)),
            "validation": lambda: (self.validation[:], self.validation.labels),
        }
        numbers = {}
        for split in splits:
            images, labels = sets[split]()
            if not len(labels):
                continue
            logits = compute_logits(
                self.state.result,
                images,
                mean=self.mean,
                std=self.std,
                size=self.state.image_size,
                precision=self.precision.word,
            )
            numbers[split] = {
                "loss": float(F.cross_entropy(logits, labels)),
                "accuracy": float((logits.argmax(1) == labels).double().mean()),
            }
        return numbers

    def estimate(self) -> float:
        """Seconds the whole run will take, from trial steps on a copy of the model."""
        config, seconds = self.config, 0.0
        for size, epochs in (
            (config.train.small_size, config.train.small_epochs),
            (config.data.image_size, config.train.epochs - config.train.small_epochs),
        ):
            if size is None:
                continue
            with torch.random.fork_rng():
                trial = copy.deepcopy(self.state.model)
                resize_model = trial.resize
                assert callable(resize_model)
                resize_model(size)
                shape = (config.train.batch_size, config.data.channels or 0, *size)
                images = torch.zeros(shape, device=self.device)
                for _ in range(2):  # the first one warms up
                    start = time.perf_counter()
                    with autocast(self.device, self.precision.word):
                        loss = trial(images).float().sum()
                    loss.backward()
                    loss.item()  # waits for the device
                    last = time.perf_counter() - start
            seconds += last * self.batches.steps_per_epoch * epochs
        return seconds

    def _labels(self, index: np.ndarray) -> Tensor:
        return self.images.labels[torch.from_numpy(index).to(self.device)]

    def _diagnosis(self, step: Step) -> str:
        optim = self.config.optim
        return (
            f"loss {step.loss} with gradient norm {step.grad_norm:.3g} at step {self.state.step} "
            f"(learning rate {optim.lr * step.rate:.3g}): stopped before the update.\n"
            f"- lower optim.lr (now {optim.lr:g}) or lengthen optim.warmup_epochs "
            f"(now {optim.warmup_epochs:g})\n"
            f"- clip gradients: optim.clip_norm=1 (now {optim.clip_norm:g})\n"
            f"- use train.precision=fp32 (now {self.precision.word}) or model.qk_norm=true"
        )


def address(*parts: int) -> int:
    """Turn the address of a random draw into a seed for torch."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def due(step: int, every: float, steps_per_epoch: int, steps: int) -> bool:
    """True at the steps where something that happens `every` so many epochs is due, and at the end."""
    interval = max(1, round(every * steps_per_epoch))
    return step > 0 and (step % interval == 0 or step == steps)


def _train(run: Run, examples: Examples, device: torch.device, narrator: Narrator) -> Run:
    try:
        with torch.random.fork_rng(), _stop_request() as stop, narrator:
            session = Session.build(run.config, examples, device)
            _take_up(run, session, examples, narrator)
            _loop(run, session, narrator, stop)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(run.config) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise _out_of_memory(run.config) from error
        raise
    return run


def _take_up(run: Run, session: Session, examples: Examples, narrator: Narrator) -> None:
    """Bring the session to where the run stands, and say what was chosen."""
    config, state, batches = run.config, session.state, session.batches
    origin = _origin(session, examples)
    if run.checkpoints():
        checkpoint = run.checkpoint()
        _check_origin(run.origin, origin, narrator)
        state.resize(tuple(checkpoint.state["image_size"]))
        state.load(checkpoint)
        run.truncate_metrics(state.step)
        narrator.say(f"resuming {run.path} at step {state.step:,} of {batches.steps:,}")
        return
    run.truncate_metrics(-1)
    run.write_origin(origin)
    whole = cost(config)
    narrator.header(
        [
            ("run", run.path),
            ("device", f"{device_name(session.device)}, {torch.get_num_threads()} threads"),
            ("precision", session.precision),
            ("compilation", session.compilation),
            ("determinism", _determinism(session)),
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
    for warning in warnings_for(config, len(session.images)):
        narrator.warn(warning)


def _loop(run: Run, session: Session, narrator: Narrator, stop: "StopRequest") -> None:
    config, state, batches = run.config, session.state, session.batches
    train, optim = config.train, config.optim
    start, begun = state.step, time.perf_counter()
    base = copy.copy(state.clock)
    process = time.process_time()
    log_time, log_step = begun, start
    for step in range(start, batches.steps + 1):
        if step > start:
            epoch_ended = step % batches.steps_per_epoch == 0
            plateau = optim.schedule == "plateau" and epoch_ended
            best = False
            if due(step, train.evaluate_epochs, batches.steps_per_epoch, batches.steps):
                numbers = session.judge(("train_clean", "validation"))
                best = _take_note(run, state, numbers, step / batches.steps_per_epoch)
                narrator.judged(step / batches.steps_per_epoch, numbers, best)
                _watch(run.config, state, numbers, step / batches.steps_per_epoch, narrator)
                if plateau:
                    state.plateau.judge(numbers["validation"]["loss"], optim.plateau_patience)
            elif plateau:
                loss = session.judge(("validation",))["validation"]["loss"]
                state.plateau.judge(loss, optim.plateau_patience)
            now = time.perf_counter()
            state.clock.wall = base.wall + now - begun
            state.clock.process = base.process + time.process_time() - process
            saving = due(step, train.checkpoint_epochs, batches.steps_per_epoch, batches.steps)
            if saving or best or stop.signal:
                state.save(run)
            if stop.signal:
                raise Interrupted(
                    f"stopped at step {step:,} of {batches.steps:,}; go on with "
                    f"`vitlab train --resume {run.path}`",
                    stop.signal,
                )
        if step == batches.steps:
            break
        if batches.size(step) != state.image_size:
            state.resize(batches.size(step))
        clock = time.perf_counter()
        share = rate(optim, step, batches.steps_per_epoch, batches.steps, state.plateau.reductions)
        taken = session.take_step(batches.batch(step), share)
        now = time.perf_counter()
        state.clock.steps += now - clock
        speed = train.batch_size * (step + 1 - log_step) / (now - log_time)
        narrator.step(step + 1, batches.steps, train.epochs, taken.loss, speed)
        if (step + 1) % train.log_steps == 0 or step + 1 == batches.steps:
            run.append_metrics(
                {
                    "step": step + 1,
                    "epoch": (step + 1) / batches.steps_per_epoch,
                    "split": "train",
                    "loss": sum(state.recent) / len(state.recent),
                    "lr": optim.lr * share,
                    "grad_norm": taken.grad_norm,
                    "images_per_second": speed,
                }
            )
            state.recent = []
            log_time, log_step = now, step + 1
    run.finish(_final_numbers(session))
    narrator.say(f"finished {run.path} in {duration(state.clock.wall)}")


def _take_note(
    run: Run, state: TrainState, numbers: dict[str, dict[str, float]], epoch: float
) -> bool:
    """Store a judgement; True if its validation accuracy is the best so far."""
    state.judged = numbers
    for split, values in numbers.items():
        run.append_metrics({"step": state.step, "epoch": epoch, "split": split, **values})
    validation = numbers.get("validation")
    if validation is None:
        return False
    finite = math.isfinite(validation["loss"])
    best = finite and validation["accuracy"] > state.best.get("accuracy", -1)
    if best:
        state.best = {"step": state.step, **validation}
    return best


def _watch(
    config: Config,
    state: TrainState,
    numbers: dict[str, dict[str, float]],
    epoch: float,
    narrator: Narrator,
) -> None:
    clean = numbers["train_clean"]
    message = alarm(config, epoch, clean["loss"], clean["accuracy"])
    if message is not None:
        state.alarms.append(message)
        narrator.warn(message)


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


def _read(config: Config, data: Data, root: str | os.PathLike[str] | None) -> tuple[Config, Examples]:
    """Read the training images and fill in what the config left to them."""
    if data is None:
        config = replace(config, data=resolve(config.data, root))
        return config, load_train(config.data, root)
    examples = data if isinstance(data, Examples) else from_arrays(*data)
    height, width, channels = examples.images.shape[1:]
    found = {"image_size": (height, width), "channels": channels, "classes": len(examples.class_names)}
    for name, value in found.items():
        if getattr(config.data, name) not in (None, value):
            raise DataError(
                f"data.{name}={getattr(config.data, name)} does not fit the images given: {value}"
            )
    return replace(config, data=replace(config.data, dataset="arrays", **found)), examples


def _new_path(config: Config, out: str | os.PathLike[str] | None, name: str | None) -> Path:
    folder = Path(out or os.environ.get("VITLAB_RUNS") or "runs")
    if name is not None:
        if name in ("", ".", "..") or Path(name).name != name or name.startswith("."):
            raise VitlabError(f"name {name!r} is no folder name: use letters, digits, - and _")
        return folder / name
    stem = f"{config.recipe}-seed{config.train.seed}"
    candidates = (folder / stem, *(folder / f"{stem}-{number}" for number in range(2, 10_000)))
    return next(path for path in candidates if not path.exists())


def _origin(session: Session, examples: Examples) -> dict[str, Any]:
    return {
        "command": command(session.config),
        "vitlab": __version__,
        "commit": commit(),
        "config_sha256": session.config.sha256,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(session.device),
        "device_type": session.device.type,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": session.precision._asdict(),
        "compilation": session.compilation._asdict(),
        "determinism": _determinism(session)._asdict(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": {
            "fingerprint": examples.fingerprint,
            "class_names": list(examples.class_names),
            "mean": list(session.mean),
            "std": list(session.std),
            "train_images": len(session.images),
            "validation_images": len(session.validation),
            "split_sha256": session.split,
        },
    }


def _determinism(session: Session) -> Choice:
    if session.device.type == "cpu":
        return Choice("on", "a CPU at a fixed number of threads repeats itself bit by bit")
    if session.config.train.deterministic:
        return Choice("on", "asked for")
    return Choice("off", "train.deterministic=true costs speed on a GPU")


def _check_origin(stored: dict[str, Any], now: dict[str, Any], narrator: Narrator) -> None:
    """Refuse other data; warn of what makes a resumed run differ in its last bits."""
    if stored["data"]["fingerprint"] != now["data"]["fingerprint"]:
        raise DataError(
            "the data set is not the one this run began with "
            f"(fingerprint {now['data']['fingerprint'][:12]}, "
            f"not {stored['data']['fingerprint'][:12]}): point --data-root at the original"
        )
    for name in ("threads", "torch", "device", "cpu_capability"):
        if stored[name] != now[name]:
            narrator.warn(
                f"{name} was {stored[name]} and is {now[name]}: resuming is not bit-exact"
            )


def commit() -> str | None:
    """Hash of the source tree's commit, with a + if it has changes; None outside a checkout."""
    folder = Path(__file__).parent
    words = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def device_name(device: torch.device) -> str:
    """The hardware behind a device, in its maker's words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
        return name or platform.machine()
    return platform.processor() or device.type


def peak_memory(device: torch.device) -> int:
    """Bytes at the highest point: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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


@dataclass
class StopRequest:
    """The signal that asked the loop to stop, once one has."""

    signal: int = 0


@contextmanager
def _stop_request() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second SIGINT stops at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _: object) -> None:
        if request.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = number

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

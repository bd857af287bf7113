"""One sitting of a training: a config and its data made ready, and the step that moves weights.

Everything random is a function of (seed, step, purpose), so a session that is built anew and
told the step goes on exactly where another stopped.
"""

import copy
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from vitlab.config import Config
from vitlab.data import LabelledImages, index_sha256, statistics
from vitlab.data.augment import normalize
from vitlab.data.batches import Batches, DeviceImages, resize
from vitlab.data.sampling import class_weights
from vitlab.device import (
    LAYOUTS,
    Choice,
    autocast,
    choose_compile,
    to_device,
)
from vitlab.errors import DivergenceError
from vitlab.inference import BATCH, compute_logits, open_model
from vitlab.models import build_model
from vitlab.models.attention import set_attention_backend
from vitlab.models.weights import LoadReport, load_weights
from vitlab.pretrained.weights import read_class_names
from vitlab.run import Run
from vitlab.training.autotune import SECONDS, Settings, Words, choose, rules, step_images
from vitlab.training.distributed import ALONE, Ranks
from vitlab.training.energy import Meter
from vitlab.training.optim import rate
from vitlab.training.state import TrainState
from vitlab.training.step import Stepper

CLEAN_IMAGES = 5_000
"""Training images, fixed and unaugmented, on which training accuracy is measured."""

START_IMAGES = 5_000
"""Training images that a model's start() sees."""

START_PIXELS = START_IMAGES * 32 * 32
"""Pixels that it sees at once: all of those images, where they are as small as CIFAR's."""

WEIGHTS, DROPOUT = 101, 102
"""Numbers of the weights and of dropout among what draws from a seed, after batches.ORDER."""


@dataclass
class Step:
    """What one step measured."""

    loss: float
    grad_norm: float


@dataclass(frozen=True)
class Start:
    """Weights from elsewhere that a model starts from."""

    source: str
    sha256: str
    """Hash of the tensors by name, in the form of safetensors."""
    report: LoadReport

    @classmethod
    def into(
        cls, model: nn.Module, weights: dict[str, Tensor], source: str, classes: Sequence[str]
    ) -> "Start":
        """Fill a model for classes of these names with the weights of a source, named as a word."""
        report = load_weights(model, weights, read_class_names(source), classes)
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        return cls(source, hashlib.sha256(save(tensors)).hexdigest(), report)


@dataclass
class Session:
    """A config and its data made ready: what one sitting of a training works with."""

    config: Config
    device: torch.device
    images: DeviceImages
    validation: DeviceImages
    clean: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batches: Batches
    state: TrainState
    stepper: Stepper
    ranks: Ranks
    meter: Meter
    start: Start | None
    """The weights that the model starts from, if they are not random."""
    settings: Settings
    trial: dict[Words, float]
    """Images per second of what was tried before the settings were chosen."""
    compilation: Choice
    split: dict[str, str]
    pending: list[Tensor] = field(default_factory=list)
    """(loss, gradient norm) of steps that nobody has read yet, on the device."""

    @classmethod
    def build(
        cls,
        config: Config,
        examples: LabelledImages,
        device: torch.device,
        ranks: Ranks = ALONE,
        weights: dict[str, Tensor] | None = None,
        settings: Settings | None = None,
    ) -> "Session":
        """Split, measure and move the data; build the model at the size of step 0.

        Args:
            config: a resolved config in which preflight finds no problem.
            examples: all images that are not the test split.
            device: where this rank computes.
            ranks: the processes that train together.
            weights: tensors by name to start from instead of random ones.
            settings: how steps are computed, if that was decided before.
        """
        seed = config.train.seed
        train_index, validation_index = examples.split(config.data)
        mean, std = statistics(examples.images[train_index])
        images = DeviceImages(examples, train_index, device)
        batches = Batches(images, config, mean, std)
        trial = {}
        if settings is None and ranks.world > 1:
            settings = rules(config, device)
        if settings is None:
            settings, trial = choose(config, device, len(images))
        precision = settings.precision
        compilation = choose_compile(config, device, batches.steps, precision)
        if ranks.world > 1 and compilation.value == "graph":
            compilation = Choice("off", "the steps of several processes are not replayed")
        torch.manual_seed(address(seed, 0, WEIGHTS))
        size = batches.size(0)
        model = build_model(replace(config, data=replace(config.data, image_size=size)))
        set_attention_backend(model, settings.attention.value)
        layout = LAYOUTS[settings.layout.value]
        model.to(device).to(memory_format=layout).train()  # type: ignore[call-overload]
        if (learn := getattr(model, "calibrate", None)) is not None:
            some = np.random.default_rng(seed).permutation(len(images))[:START_IMAGES]
            count = max(2, START_PIXELS // math.prod(examples.images.shape[1:3]))
            parts = (some[first : first + count] for first in range(0, len(some), count))
            learn(resize(normalize(images[part], mean, std), size) for part in parts)
        # Only now: weights that come from elsewhere bring their own whitening.
        start = None
        if weights is not None:
            start = Start.into(model, weights, str(config.train.weights), examples.class_names)
        clean = np.random.default_rng(config.data.split_seed).permutation(len(images))
        state = TrainState.build(model, config.optim, size, precision.value)
        stepper = Stepper(
            state,
            config,
            precision,
            compilation,
            ranks,
            torch.from_numpy(weigh(examples.labels[train_index], config)).to(device),
        )
        return cls(
            config=config,
            device=device,
            images=images,
            validation=DeviceImages(examples, validation_index, device),
            clean=np.sort(clean[:CLEAN_IMAGES]),
            mean=mean,
            std=std,
            batches=batches,
            state=state,
            stepper=stepper,
            ranks=ranks,
            meter=Meter(device),
            start=start,
            settings=settings,
            trial=trial,
            compilation=compilation,
            split={
                "train": index_sha256(train_index),
                "validation": index_sha256(validation_index),
            },
        )

    def learn_from(self, teacher: Run) -> None:
        """Let a finished run answer for the images that the second head learns."""
        model = open_model(teacher, teacher.checkpoint(), self.device)
        model.to(memory_format=LAYOUTS[self.settings.layout.value])  # type: ignore[call-overload]
        size = self.config.data.image_size
        assert size is not None

        @torch.no_grad()
        def answer(images: Tensor) -> Tensor:
            with autocast(images.device, self.settings.precision.value):
                return model(resize(images, size)).argmax(dim=1)

        self.stepper.teacher = answer

    def take_step(self, batch: tuple[Tensor, Tensor], share: float) -> None:
        """Move the weights once, every learning rate at `share` of its peak.

        What it measured waits on the device for `read`.
        """
        seed = address(self.config.train.seed, self.state.step, DROPOUT, self.ranks.rank)
        self.pending.append(self.stepper(*batch, share=share, seed=seed))
        self.state.step += 1
        self.state.judged = {}

    def read(self) -> list[Step]:
        """Wait for the steps taken since the last reading, and return what they measured.

        Raises:
            DivergenceError: a loss or gradient is not finite. With fp16 an infinite gradient is
                the loss scaler's business: it skips the update.
        """
        if not self.pending:
            return []
        losses, norms = torch.stack(self.pending).unbind(1)
        losses = self.ranks.total(losses.contiguous())
        taken = [Step(*numbers) for numbers in torch.stack((losses, norms), dim=1).tolist()]
        self.pending = []
        for back, step in zip(range(len(taken), 0, -1), taken, strict=True):
            scaled = self.state.scaler.is_enabled()
            if not (math.isfinite(step.loss) and (math.isfinite(step.grad_norm) or scaled)):
                raise DivergenceError(self._diagnosis(step, self.state.step - back))
        self.state.recent += [step.loss for step in taken]
        return taken

    def judge(self) -> dict[str, dict[str, float]]:
        """Loss and accuracy of the resulting model on clean training and validation images.

        Ranks share the images without padding, so each is counted once.
        """
        validation = np.arange(len(self.validation))
        sets = {
            "train_clean": (self.images, self.clean),
            "validation": (self.validation, validation),
        }
        return {
            split: self._judge(images, index)
            for split, (images, index) in sets.items()
            if len(index)
        }

    def _judge(self, images: DeviceImages, index: np.ndarray) -> dict[str, float]:
        mine = index[self.ranks.slice(len(index))]
        numbers = torch.zeros(3, dtype=torch.float64, device=self.device)
        if len(mine):
            labels = images.labels[to_device(mine, self.device)]
            parts = (mine[first : first + BATCH] for first in range(0, len(mine), BATCH))
            form = {"mean": self.mean, "std": self.std, "size": self.state.image_size}
            form["precision"] = self.settings.precision.value
            logits = torch.cat(
                [compute_logits(self.state.result, images[part], **form) for part in parts]
            )
            losses = F.cross_entropy(logits, labels, reduction="none").double()
            correct = logits.argmax(1) == labels
            numbers = torch.stack(
                (losses.sum(), correct.double().sum(), torch.ones_like(losses).sum())
            )
        loss, correct, count = self.ranks.total(numbers).tolist()
        return {"loss": loss / count, "accuracy": correct / count, "images": int(count)}

    def resize(self, size: tuple[int, int]) -> None:
        """Go on at another height and width in pixels."""
        if size != self.state.image_size:
            self.state.resize(size)
            self.stepper.wrap()

    def estimate(self) -> float:
        """Seconds the whole run will take, from trial steps on a copy of the model.

        Where a step would take long, it is tried with fewer images; of them, a long one once.
        """
        config, seconds = self.config, 0.0
        whole = math.ceil(config.train.batch_size / (config.train.accumulate * self.ranks.world))
        parts = config.train.accumulate * (2 if config.optim.sam else 1)
        for size, epochs in (
            (config.train.small_size, config.train.small_epochs),
            (config.data.image_size, config.train.epochs - config.train.small_epochs),
        ):
            if size is None:
                continue
            part = whole
            if self.device.type == "cpu":
                sized = replace(config, data=replace(config.data, image_size=size))
                # Batch norm on maps of one pixel needs two images.
                part = min(whole, max(2, step_images(sized, self.device, whole)))
            with torch.random.fork_rng():
                trial = copy.deepcopy(self.state.model)
                resize_model = trial.resize
                assert callable(resize_model)
                resize_model(size)
                shape = (part, config.data.channels or 0, *size)
                images = torch.zeros(shape, device=self.device)
                for _ in range(2):  # the first one warms up
                    start = time.perf_counter()
                    with autocast(self.device, self.settings.precision.value):
                        loss = trial(images).float().sum()
                    loss.backward()
                    loss.item()  # waits for the device
                    last = time.perf_counter() - start
                    if last > SECONDS:
                        break
            seconds += parts * last * whole / part * self.batches.steps_per_epoch * epochs
        return seconds

    def _diagnosis(self, step: Step, number: int) -> str:
        optim, precision, batches = self.config.optim, self.settings.precision.value, self.batches
        reductions = self.state.plateau.reductions
        share = rate(optim, number, batches.steps_per_epoch, batches.steps, reductions)
        last = "prove the set-up with --overfit-one-batch, and look for damaged images"
        if precision != "fp32":
            last = f"use train.precision=fp32 (now {precision})"
        return (
            f"loss {step.loss} with gradient norm {step.grad_norm:.3g} at step {number} "
            f"(learning rate {optim.lr * share:.3g}): stopped, and nothing later was stored.\n"
            f"- lower optim.lr (now {optim.lr:g}) or lengthen optim.warmup_epochs "
            f"(now {optim.warmup_epochs:g})\n"
            f"- clip gradients: optim.clip_norm=1 (now {optim.clip_norm:g})\n"
            f"- {last}"
        )


def address(*parts: int) -> int:
    """Turn the address of a random draw into a seed for torch."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def weigh(labels: np.ndarray, config: Config) -> np.ndarray:
    """Weights of the classes in the loss, float32 (K,)."""
    assert config.data.classes is not None
    return class_weights(labels, config.data.classes, config.train.class_weights)

"""One sitting of a training: a config and its data made ready, and the step that moves weights.

Everything random is a function of (seed, step, purpose), so a session that is built anew and
told the step goes on exactly where another stopped.
"""

import copy
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.config import Config
from vitlab.data import Examples, index_sha256, statistics, train_validation
from vitlab.data.augment import normalize
from vitlab.data.batches import Batches, Images, resize
from vitlab.device import Choice, autocast, choose_compile, choose_precision
from vitlab.errors import ConfigError, DivergenceError
from vitlab.models import build_model
from vitlab.predict import compute_logits
from vitlab.train.state import TrainState

CLEAN_IMAGES = 5_000
"""Training images, fixed and unaugmented, on which training accuracy is measured."""

START_IMAGES = 5_000
"""Training images that a model's start() sees."""

WEIGHTS, DROPOUT = 101, 102
"""Numbers of the weights and of dropout among what draws from a seed, after batches.ORDER."""


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
                    f"train.drop_last=True leaves no batch: {len(images)} training images are "
                    f"fewer than train.batch_size={config.train.batch_size}"
                ]
            )
        precision = choose_precision(config.train, device)
        compilation = choose_compile(config.train, device, batches.steps)
        torch.manual_seed(address(seed, 0, WEIGHTS))
        size = batches.size(0)
        model = build_model(replace(config, data=replace(config.data, image_size=size)))
        # Convolutions are a little faster with channels last; other layers do not mind.
        model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
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
        step = Step(loss.item(), norm.item(), share)
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

    def judge(self) -> dict[str, dict[str, float]]:
        """Loss and accuracy of the resulting model on clean training and validation images."""
        clean = torch.from_numpy(self.clean).to(self.device)
        sets = {
            "train_clean": (self.images[self.clean], self.images.labels[clean]),
            "validation": (self.validation[:], self.validation.labels),
        }
        numbers = {}
        for split, (images, labels) in sets.items():
            if len(labels):
                logits = compute_logits(
                    self.state.result,
                    images,
                    mean=self.mean,
                    std=self.std,
                    size=self.state.image_size,
                    precision=self.precision.word,
                )
                numbers[split] = {
                    "loss": F.cross_entropy(logits, labels).item(),
                    "accuracy": (logits.argmax(1) == labels).double().mean().item(),
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

    def _diagnosis(self, step: Step) -> str:
        optim, precision = self.config.optim, self.precision.word
        last = "prove the set-up with --overfit-one-batch, and look for damaged images"
        if precision != "fp32":
            last = f"use train.precision=fp32 (now {precision})"
        return (
            f"loss {step.loss} with gradient norm {step.grad_norm:.3g} at step {self.state.step} "
            f"(learning rate {optim.lr * step.rate:.3g}): stopped before the update.\n"
            f"- lower optim.lr (now {optim.lr:g}) or lengthen optim.warmup_epochs "
            f"(now {optim.warmup_epochs:g})\n"
            f"- clip gradients: optim.clip_norm=1 (now {optim.clip_norm:g})\n"
            f"- {last}"
        )


def address(*parts: int) -> int:
    """Turn the address of a random draw into a seed for torch."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])

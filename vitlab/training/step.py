"""The training step: forward, loss, backward, clip, optimizer, weight average.

What a step measures stays on the device until it is read, so a GPU always has the next step
queued. Nothing in a step waits for the host, so `cuda_graph.py` can capture all of it.

The loss of a batch is a sum over its images, each with its weight. So a batch may be computed in
parts, one after another or in several processes, and the gradient is the same up to rounding.
Batch norm alone sees each part by itself.

Shapes: B images in the batch, C channels, H rows, W columns, K classes.
"""

# pyright: reportPrivateImportUsage=false
# torch offers its operations on lists of tensors under names with an underscore.

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vitlab.config import Config
from vitlab.device import autocast
from vitlab.errors import DivergenceError
from vitlab.models.dropout import dropouts, seed_masks
from vitlab.run import Run
from vitlab.training.distributed import SINGLE, ProcessGroup
from vitlab.training.state import TrainState

Forward = Callable[[Tensor], tuple[Tensor, ...]]
"""Maps images (B, C, H, W) to logits (B, K): those for the labels, then those for a teacher's."""


class CrossEntropy:
    """The loss of one class an image."""

    def weigh(self, targets: Tensor, class_weights: Tensor | float) -> Tensor:
        """Give the targets (B, K) of a batch the weight that each has in its mean."""
        weighted = targets * class_weights
        return weighted / weighted.sum()

    def __call__(self, logits: Tensor, weighted: Tensor) -> Tensor:
        """The loss of logits (B, K): a sum over whatever part of a batch they are."""
        return F.cross_entropy(logits, weighted, reduction="sum")


class BinaryCrossEntropy:
    """The loss of several labels an image: a yes or no for each, summed over the labels."""

    def weigh(self, targets: Tensor, class_weights: Tensor | float) -> Tensor:
        """Targets (B, K) as those of both answers (B, 2, K), weighted for the mean of a batch."""
        return torch.stack((targets, 1 - targets), dim=1) * class_weights / len(targets)

    def __call__(self, logits: Tensor, weighted: Tensor) -> Tensor:
        """The loss of logits (B, K): a sum over whatever part of a batch they are."""
        yes, no = weighted.unbind(dim=1)
        return -(yes * F.logsigmoid(logits) + no * F.logsigmoid(-logits)).sum()


LOSSES = {"multiclass": CrossEntropy(), "multilabel": BinaryCrossEntropy()}
"""The loss of each `data.task`: linear in its weighted targets, so that parts add up."""


class AllLogits(nn.Module):
    """Maps images to all logits of a model, as a module that can be compiled and wrapped."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) to logits (B, K)."""
        return all_logits(self.model)(images)


def all_logits(model: nn.Module) -> Forward:
    """The function of a model that gives the logits of each of its classifiers."""
    return getattr(model, "head_logits", None) or (lambda images: (model(images),))


class TrainingStep:
    """Moves the weights of a training state by one batch at a time.

    Args:
        state: what moves.
        config: a resolved config.
        precision: numbers of the forward pass.
        compiled: run the model through torch.compile.
        group: the processes that share a batch.
        class_weights: how much each class weighs in the loss, (K,).
        teacher: maps images (B, C, H, W) to the classes (B,) that a second classifier learns.
    """

    def __init__(
        self,
        state: TrainState,
        config: Config,
        precision: str,
        *,
        compiled: bool = False,
        group: ProcessGroup = SINGLE,
        class_weights: Tensor | float = 1.0,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ):
        self.state = state
        self.config = config
        self.precision = precision
        self.compiled = compiled
        self.group = group
        self.loss = LOSSES[config.data.task]
        self.class_weights = class_weights
        self.teacher = teacher
        self.lr_scale = 0.0
        self.fallbacks: list[str] = []
        """What did not work and was replaced by something slower, in sentences."""
        self.wrap()

    def wrap(self) -> None:
        """Make the model ready to be called; to be done again when a parameter changes shape."""
        for old in ("eager", "no_sync", "forward"):
            vars(self).pop(old, None)
        gc.collect()  # DistributedDataParallel keeps parameters in the shape it saw, while it lives
        self.dropouts = dropouts(self.state.model)
        self.eager: Forward = all_logits(self.state.model)
        self.no_sync: Callable[[], AbstractContextManager[None]] = nullcontext
        if self.group.world_size > 1:
            module = AllLogits(self.state.model)
            # Buffers are sent from the first process to all, but each draws masks of its own.
            keys = [name for name, _ in module.named_buffers() if name.endswith(".key")]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, keys)
            parallel = DistributedDataParallel(module)
            self.eager, self.no_sync = parallel, parallel.no_sync
        self.forward = self.eager
        if self.compiled:
            torch.compiler.reset()  # what was compiled for another size or model is not reused
            alone = self.group.world_size == 1
            module = AllLogits(self.state.model) if alone else self.eager
            self.forward = torch.compile(module, dynamic=False)

    def resize(self, size: tuple[int, int]) -> None:
        """Go on at another height and width in pixels."""
        if size != self.state.image_size:
            self.state.resize(size)
            self.wrap()

    def set_scalars(self, lr_scale: float, seed: int) -> None:
        """Set what the next step takes beside its batch, in tensors that a captured step reads.

        Args:
            lr_scale: factor of the peak of every learning rate.
            seed: of the dropout masks.
        """
        self.lr_scale = lr_scale
        self.state.set_lr(lr_scale)
        seed_masks(self.dropouts, seed)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Take one step.

        Args:
            images: normalised, (B, C, H, W).
            targets: (B, K); rows sum to 1 where an image has one class.

        Returns:
            (loss, gradient norm), float32 (2,) on the device. The loss is this process's part.
        """
        state, optim = self.state, self.config.optim
        loss = self._backward(images, targets)
        if optim.sam:
            with sam_perturbation(state.model, optim.sam):
                self._backward(images, targets)
        for optimizer in state.optimizers:
            state.scaler.unscale_(optimizer)
        gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if optim.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(state.model.parameters(), optim.clip_norm, norm)
        for optimizer in state.optimizers:
            state.scaler.step(optimizer)
        state.scaler.update()
        state.update_average()
        return torch.stack((loss, norm))

    def _backward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Fill every parameter's gradient; return the loss of this process's images."""
        for optimizer in self.state.optimizers:
            optimizer.zero_grad()
        # A last, smaller batch is one step of many: not worth a compilation.
        forward = self.forward if self.is_full(images) else self.eager
        targets = self.loss.weigh(targets, self.class_weights)
        mine = self.group.slice(len(images))
        if mine.start == mine.stop:  # processes wait for each other: without work, pretend
            images, targets = images[:1], 0 * targets[:1]
        else:
            images, targets = images[mine], targets[mine]
        count = min(self.config.train.accumulate, len(images))
        losses = []
        parts = zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
        for part, wanted in parts:
            last = len(losses) == count - 1
            with nullcontext() if last else self.no_sync():  # the sum of all parts is reduced once
                with autocast(part.device, self.precision):
                    logits, *second = (each.float() for each in forward(part))
                loss = self.loss(logits, wanted)
                if second:
                    loss = self._distilled(loss, second[0], part, wanted)
                # DistributedDataParallel takes the mean over processes, and the loss is their sum.
                self.state.scaler.scale(loss * self.group.world_size).backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _distilled(self, loss: Tensor, logits: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of the labels, and that of the teacher's answers in the second logits (B, K)."""
        if self.teacher is not None:
            answers = F.one_hot(self.teacher(images), targets.shape[1])
            targets = answers * targets.sum(dim=1, keepdim=True)
        share = self.config.train.teacher_share
        return (1 - share) * loss + share * F.cross_entropy(logits, targets, reduction="sum")

    def is_full(self, images: Tensor) -> bool:
        """False for the last, smaller batch of an epoch."""
        return len(images) == self.config.train.batch_size


@contextmanager
def sam_perturbation(model: nn.Module, radius: float) -> Iterator[None]:
    """Put a model, for a while, where its gradient says that the loss is highest nearby.

    The gradient taken there replaces its own: Sharpness-Aware Minimization (Foret et al., 2021).
    Statistics of batch norms are left as they were, for they describe the model itself.
    """
    moved: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    gradients = [p.grad for p in moved if p.grad is not None]
    kept = [*moved, *model.buffers()]
    with torch.no_grad():
        before = [tensor.clone() for tensor in kept]
        step = radius / (torch.nn.utils.get_total_norm(gradients) + 1e-12)
        torch._foreach_add_(moved, torch._foreach_mul(gradients, step))
    yield
    with torch.no_grad():
        for tensor, old in zip(kept, before, strict=True):
            tensor.copy_(old)


class StepResults:
    """Losses and gradient norms of the steps taken, left on the device until they are read.

    Args:
        step: what measures them.
        run: whose newest checkpoint the message of a divergence names.
    """

    def __init__(self, step: TrainingStep, run: Run | None = None):
        self.step = step
        self.run = run
        self._queued: list[tuple[float, Tensor]] = []

    def __bool__(self) -> bool:
        """True while steps may still be under way on the device."""
        return bool(self._queued)

    def add(self, result: Tensor) -> None:
        """Keep what a step returned."""
        self._queued.append((self.step.lr_scale, result))

    def read(self) -> float:
        """Wait for the queued steps, add their losses to the state; return the last gradient norm.

        Raises:
            DivergenceError: a loss or gradient is not finite. With fp16 an infinite gradient is
                the loss scaler's business: it skips the update.
        """
        begun, state = time.perf_counter(), self.step.state
        lr_scales, results = zip(*self._queued, strict=True)
        self._queued = []
        losses, norms = torch.stack(results).unbind(1)
        losses = self.step.group.all_reduce_sum(losses.contiguous())
        pairs = torch.stack((losses, norms), dim=1).tolist()
        scaled, first = state.scaler.is_enabled(), state.step - len(pairs)
        for place, (loss, norm) in enumerate(pairs):
            if not (math.isfinite(loss) and (math.isfinite(norm) or scaled)):
                raise DivergenceError(self._diagnosis(loss, norm, first + place, lr_scales[place]))
        state.recent += [loss for loss, _ in pairs]
        state.add_step_time(time.perf_counter() - begun)
        return pairs[-1][1]

    def _diagnosis(self, loss: float, norm: float, number: int, lr_scale: float) -> str:
        optim, precision = self.step.config.optim, self.step.precision
        last = "prove the set-up with --overfit-one-batch, and look for damaged images"
        if precision != "fp32":
            last = f"use train.precision=fp32 (now {precision})"
        message = (
            f"loss {loss} with gradient norm {norm:.3g} at step {number} "
            f"(learning rate {optim.lr * lr_scale:.3g}): stopped, and nothing later was stored.\n"
            f"- lower optim.lr (now {optim.lr:g}) or lengthen optim.warmup_epochs "
            f"(now {optim.warmup_epochs:g})\n"
            f"- clip gradients: optim.clip_norm=1 (now {optim.clip_norm:g})\n"
            f"- {last}"
        )
        if self.run is None:
            return message
        kept = self.run.checkpoints()
        return f"{message}\nThe last good checkpoint: {kept[-1].path if kept else 'none yet'}"

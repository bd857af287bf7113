"""One step: a batch becomes moved weights, and nobody waits for the device.

What a step measures stays on the device until it is read, so a GPU always has the next step
queued. On a GPU the whole step, from the forward pass to the weight average, can be captured
once as a CUDA graph and replayed: a small model's step is hundreds of kernels shorter than the
time Python takes to launch them. Where that fails the step is taken as plain Python, which gives
the same weights up to rounding, and a line says so.

The loss of a batch is a sum over its images, each with its share. So a batch may be computed in
parts, one after another or on several ranks, and the gradient is the same up to rounding. Batch
norm alone sees each part by itself.

Shapes: B images in the batch, C channels, H rows, W columns, K classes.
"""

# pyright: reportPrivateImportUsage=false
# torch offers its operations on lists of tensors under names with an underscore.

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vitlab.config import Config
from vitlab.device import Choice, autocast
from vitlab.models.dropout import dropouts, seed_masks
from vitlab.training.distributed import ALONE, Ranks
from vitlab.training.state import TrainState

WARMUP = 3
"""Eager steps before a capture, in which libraries choose their kernels and allocate."""


Forward = Callable[[Tensor], tuple[Tensor, ...]]
"""Maps images (B, C, H, W) to the logits (B, K) of each head."""


class Heads(nn.Module):
    """Maps images to the logits of each head of a model, as a module that can be wrapped."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) to logits (B, K): one head, or that of labels and that of answers."""
        head_logits = getattr(self.model, "head_logits", None)
        return head_logits(images) if head_logits is not None else (self.model(images),)


class Stepper:
    """Moves the weights of a training state by one batch at a time.

    Args:
        state: what moves.
        config: a resolved config.
        precision: numbers of the forward pass.
        compilation: the resolved word of train.compile.
        ranks: the processes that share a batch.
        class_weights: how much each class weighs in the loss, (K,).
        teacher: maps images (B, C, H, W) to the classes (B,) that a second head learns.
    """

    def __init__(
        self,
        state: TrainState,
        config: Config,
        precision: Choice,
        compilation: Choice,
        ranks: Ranks = ALONE,
        class_weights: Tensor | float = 1.0,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ):
        self.state = state
        self.config = config
        self.precision = precision
        self.compilation = compilation
        self.ranks = ranks
        self.class_weights = class_weights
        self.teacher = teacher
        self.replay: CUDAGraphStep | None = None
        self.fallbacks: list[str] = []
        device = next(state.model.parameters()).device
        if compilation.value in ("on", "graph") and device.type == "cuda" and ranks.world == 1:
            self.replay = CUDAGraphStep(self._move, state)
        self.wrap()

    def wrap(self) -> None:
        """Make the model ready to be called; to be done again when a parameter changes shape."""
        for old in ("eager", "hold", "forward"):
            vars(self).pop(old, None)
        gc.collect()  # DistributedDataParallel keeps parameters in the shape it saw, while it lives
        self.dropouts = dropouts(self.state.model)
        heads = Heads(self.state.model)
        self.eager: Forward = heads
        self.hold: Callable[[], AbstractContextManager[None]] = nullcontext
        if self.ranks.world > 1:
            # Buffers are sent from the first rank to all, but each draws masks of its own.
            keys = [name for name, _ in heads.named_buffers() if name.endswith(".key")]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(heads, keys)
            parallel = DistributedDataParallel(heads)
            self.eager, self.hold = parallel, parallel.no_sync
        self.forward: Forward = self.eager
        if self.compilation.value == "on":
            torch.compiler.reset()  # what was compiled for another size or model is not reused
            self.forward = torch.compile(self.eager, dynamic=False)

    def __call__(self, images: Tensor, targets: Tensor, *, share: float, seed: int) -> Tensor:
        """Take one step.

        Args:
            images: normalised, (B, C, H, W).
            targets: (B, K), rows sum to 1.
            share: of its peak, for every learning rate.
            seed: of the dropout masks.

        Returns:
            (loss, gradient norm), float32 (2,) on the device. The loss is this rank's part.
        """
        self.state.set_rates(share)
        seed_masks(self.dropouts, seed)
        # A last, smaller batch is one step of many: not worth a graph or a compilation.
        full = len(images) == self.config.train.batch_size
        while full and self.replay is not None:
            if self.replay.shape == images.shape or self._captured(images, targets):
                return self.replay(images, targets)
        return self._move(images, targets)

    def _captured(self, images: Tensor, targets: Tensor) -> bool:
        """Capture a step; if that fails, leave the state untouched and do with less from now on."""
        assert self.replay is not None
        try:
            self.replay.capture(images, targets)
        except Exception as error:  # libraries fail in their own ways; what is broken fails again
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            if self.compilation.value == "on":
                self.compilation = Choice("graph", f"compilation failed: {why}")
                self.fallbacks.append(f"the step could not be compiled ({why}): not compiled")
                self.wrap()
            else:
                self.compilation = Choice("off", f"capture failed: {why}")
                self.fallbacks.append(f"the step could not be captured ({why}): plain Python")
                self.replay = None
            return False
        return True

    def tell(self) -> list[str]:
        """What of the compilation did not work since this was last asked, in sentences."""
        told, self.fallbacks = self.fallbacks, []
        return told

    def _move(self, images: Tensor, targets: Tensor) -> Tensor:
        state, optim = self.state, self.config.optim
        loss = self._gradients(images, targets)
        if optim.sam:
            with sam_perturbation(state.model, optim.sam):
                self._gradients(images, targets)
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

    def _gradients(self, images: Tensor, targets: Tensor) -> Tensor:
        """Fill every parameter's gradient; return the loss of this rank's images."""
        for optimizer in self.state.optimizers:
            optimizer.zero_grad()
        full = len(images) == self.config.train.batch_size
        forward = self.forward if full else self.eager
        weights = targets * self.class_weights  # (B, K)
        shares = weights / weights.sum()
        mine = self.ranks.slice(len(images))
        if mine.start == mine.stop:  # ranks wait for each other: without work, pretend
            images, shares = images[:1], 0 * shares[:1]
        else:
            images, shares = images[mine], shares[mine]
        count = min(self.config.train.accumulate, len(images))
        losses = []
        for part in zip(images.tensor_split(count), shares.tensor_split(count), strict=True):
            last = len(losses) == count - 1
            with nullcontext() if last else self.hold():  # ranks share the sum of all parts
                loss = self._loss(forward, *part)
                # DistributedDataParallel takes the mean over ranks, and the loss is their sum.
                self.state.scaler.scale(loss * self.ranks.world).backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _loss(self, forward: Forward, images: Tensor, shares: Tensor) -> Tensor:
        """The loss of some images, whose targets (B, K) sum to their share of the batch."""
        with autocast(images.device, self.precision.value):
            logits, *second = (each.float() for each in forward(images))
        loss = F.cross_entropy(logits, shares, reduction="sum")
        if not second:
            return loss
        if self.teacher is not None:
            answers = F.one_hot(self.teacher(images), shares.shape[1])
            shares = answers * shares.sum(dim=1, keepdim=True)
        taught = self.config.train.teacher_share
        distilled = F.cross_entropy(second[0], shares, reduction="sum")
        return (1 - taught) * loss + taught * distilled


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


class CUDAGraphStep:
    """Captures a step as a CUDA graph at each new image size, and replays it.

    Addresses in a graph are fixed: a batch is copied to where the captured one lay, learning
    rates and the average's weight live in tensors, and gradients in the graph's own memory.
    """

    def __init__(self, move: Callable[[Tensor, Tensor], Tensor], state: TrainState):
        self.move = move
        self.state = state
        self.shape: torch.Size | None = None

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Take the step that was captured, with images and targets of its shape."""
        self.images.copy_(images)
        self.targets.copy_(targets)
        self.graph.replay()
        return self.measured.clone()

    def capture(self, images: Tensor, targets: Tensor) -> None:
        """Capture a step of this shape. It changes nothing, whether it succeeds or raises."""
        torch.cuda.synchronize()  # steps still queued are not the capture's time
        begun = time.perf_counter()
        self.shape = None
        self.images, self.targets = images.clone(), targets.clone()
        with unchanged(self.state), aside(), torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(WARMUP):
                self.move(self.images, self.targets)
        self.graph = torch.cuda.CUDAGraph()
        gc.collect()
        gc.disable()  # an older graph that is freed during a capture breaks it
        try:
            with unchanged(self.state), aside(), torch.cuda.graph(self.graph):
                self.measured = self.move(self.images, self.targets)
        finally:
            gc.enable()
        self.state.clock.capture += time.perf_counter() - begun
        self.shape = images.shape


@contextmanager
def aside() -> Iterator[None]:
    """Work on other streams for a while: what comes before and after waits for it."""
    current = torch.cuda.current_stream()
    torch.cuda.synchronize()
    try:
        yield
    finally:
        torch.cuda.set_stream(current)  # a capture that fails leaves its own stream behind
        torch.cuda.synchronize()


@contextmanager
def unchanged(state: TrainState) -> Iterator[None]:
    """Bring a state back to where it was; what comes into being meanwhile, moments, begins at 0."""
    before = {id(tensor): tensor.detach().clone() for tensor in state_tensors(state)}
    scale, fp16 = state.scaler.state_dict(), state.scaler.is_enabled()
    try:
        yield
    except BaseException:
        # A scaler that was interrupted between its calls refuses the next ones.
        state.scaler = torch.amp.GradScaler(state.average_rate.device.type, enabled=fp16)
        raise
    finally:
        with torch.no_grad():
            for tensor in state_tensors(state):
                tensor.copy_(before[id(tensor)]) if id(tensor) in before else tensor.zero_()
        state.scaler.load_state_dict(scale)
        for parameter in state.model.parameters():
            parameter.grad = None


def state_tensors(state: TrainState) -> Iterator[Tensor]:
    """Every tensor that a step changes: weights, buffers, the average's and all moments."""
    for model in (state.model, state.average):
        if model is not None:
            yield from model.parameters()
            yield from model.buffers()
    for optimizer in state.optimizers:
        for moments in optimizer.state.values():
            yield from (value for value in moments.values() if isinstance(value, Tensor))

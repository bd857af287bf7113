"""The training step as a CUDA graph: captured once, replayed with every batch.

A small model's step is hundreds of kernels shorter than the time Python takes to launch them. The
whole step is captured, from the forward pass to the weight average. Where that fails it is taken
as plain Python, which gives the same weights up to rounding, and a line says so.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vitlab.config import Config
from vitlab.training.distributed import SINGLE
from vitlab.training.state import TrainState
from vitlab.training.step import TrainingStep

WARMUP = 3
"""Eager steps before a capture, in which libraries choose their kernels and allocate."""


def build_step(
    state: TrainState, config: Config, precision: str, compilation: str, **options: Any
) -> TrainingStep:
    """The step of a training, captured where that was chosen; see `TrainingStep`.

    Args:
        compilation: off, graph or on, as `choose_compile` resolves it.
        options: group, class_weights and teacher.
    """
    alone = options.get("group", SINGLE).world_size == 1
    captured = state.average_rate.device.type == "cuda" and alone and compilation != "off"
    kind = CUDAGraphStep if captured else TrainingStep
    return kind(state, config, precision, compiled=compilation == "on", **options)


class CUDAGraphStep(TrainingStep):
    """Captures the step as a CUDA graph at each new image size, and replays it.

    Addresses in a graph are fixed: a batch is copied to where the captured one lay, learning
    rates and the average's weight live in tensors, and gradients in the graph's own memory.
    """

    enabled = True
    """False once a capture has failed: what is broken fails again."""
    shape: torch.Size | None = None
    """Of the images that the graph takes, once there is one."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Take one step; see `TrainingStep`. A last, smaller batch is not worth a graph."""
        while self.enabled and self.is_full(images) and self.shape != images.shape:
            self._capture_or_fall_back(images, targets)
        if not (self.enabled and self.is_full(images)):
            return super().__call__(images, targets)
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
        with unchanged(self.state), side_stream(), torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(WARMUP):
                super().__call__(self.images, self.targets)
        self.graph = torch.cuda.CUDAGraph()
        gc.collect()
        gc.disable()  # an older graph that is freed during a capture breaks it
        try:
            with unchanged(self.state), side_stream(), torch.cuda.graph(self.graph):
                self.measured = super().__call__(self.images, self.targets)
        finally:
            gc.enable()
        self.state.clock.capture += time.perf_counter() - begun
        self.shape = images.shape

    def _capture_or_fall_back(self, images: Tensor, targets: Tensor) -> None:
        try:
            self.capture(images, targets)
        except Exception as error:  # libraries fail in their own ways
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            if self.compiled:
                self.fallbacks.append(f"the step could not be compiled ({why}): not compiled")
                self.compiled = False
                self.wrap()
            else:
                self.fallbacks.append(f"the step could not be captured ({why}): plain Python")
                self.enabled = False


@contextmanager
def side_stream() -> Iterator[None]:
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

"""Everything that a training carries from one step to the next, and its way to disk and back.

If it is not in `TrainState.save`, a resumed run does not know it; a test compares the
weights, average and moments of interrupted and uninterrupted runs bit by bit. Random
numbers are absent on purpose: they are addressed by (seed, step) and have no state.
"""

# pyright: reportPrivateImportUsage=false
# torch offers its operations on lists of tensors under names with an underscore.

import copy
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from vitlab.config import OptimConfig
from vitlab.device import fill
from vitlab.errors import RunError
from vitlab.run import Checkpoint, Run
from vitlab.tensors import read_tensors
from vitlab.training.optim import build_optimizers, freeze


@dataclass
class Plateau:
    """The memory of schedule='plateau': when the validation loss last fell."""

    best: float | None = None
    bad_epochs: int = 0
    reductions: int = 0

    def update(self, loss: float, patience: int) -> None:
        """Take note of an epoch's validation loss; reduce after `patience` epochs in vain."""
        if self.best is None or loss < self.best * (1 - 1e-4):
            self.best, self.bad_epochs = loss, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > patience:
            self.bad_epochs = 0
            self.reductions += 1


@dataclass
class Clock:
    """Seconds and joules that a run has taken so far, over all the times it was resumed.

    `wall` and `process` (CPU time of all threads) grow at each `tick`. Parts of `wall` are
    `preparation`, in which the data was read and the model built, and `steps`, in which weights
    moved; `capture` is the part of `steps` in which a GPU's step was compiled and captured.
    `joules` are those of the device since it was ready, None once a part was not measured.
    """

    wall: float = 0.0
    process: float = 0.0
    preparation: float = 0.0
    steps: float = 0.0
    capture: float = 0.0
    joules: float | None = 0.0

    def __post_init__(self):
        self._read = (time.perf_counter(), time.process_time())

    def tick(self, joules: float | None) -> None:
        """Count what has passed since the last tick, and what it took."""
        before, self._read = self._read, (time.perf_counter(), time.process_time())
        self.wall += self._read[0] - before[0]
        self.process += self._read[1] - before[1]
        if self.joules is not None:
            self.joules = None if joules is None else self.joules + joules

    def prepared(self) -> None:
        """Count what has passed so far as preparation."""
        self.tick(0.0)
        self.preparation = self.wall

    def skip(self) -> None:
        """Leave out what has passed since the last tick: it belongs to another run."""
        self._read = (time.perf_counter(), time.process_time())

    def add(self, before: "Clock") -> None:
        """Add what was spent before the run was resumed."""
        for one in fields(self):
            parts = getattr(self, one.name), getattr(before, one.name)
            setattr(self, one.name, None if None in parts else sum(parts))


@dataclass
class TrainState:
    """Model, average, optimisers and everything else that a step reads and writes."""

    model: nn.Module
    average: nn.Module | None
    average_decay: float
    optimizers: list[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    image_size: tuple[int, int]
    average_rate: Tensor
    """Part of the current weights in the average at this step; a tensor, so that a CUDA graph
    sees it change."""
    step: int = 0
    plateau: Plateau = field(default_factory=Plateau)
    clock: Clock = field(default_factory=Clock)
    recent: list[float] = field(default_factory=list)
    """Losses since the last line of metrics."""
    recent_seconds: float = 0.0
    """Seconds that the steps of `recent` took."""
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)
    """Loss and accuracy by split, if they were measured at this very step."""
    best: dict[str, float] = field(default_factory=dict)
    """Step, loss and accuracy of the best validation so far."""
    alarms: list[str] = field(default_factory=list)

    @classmethod
    def build(
        cls, model: nn.Module, config: OptimConfig, image_size: tuple[int, int], precision: str
    ) -> "TrainState":
        """The state before step 0."""
        freeze(model, config.freeze)
        device = next(model.parameters()).device
        average = copy.deepcopy(model).requires_grad_(False) if config.average_decay else None
        return cls(
            model=model,
            average=average,
            average_decay=config.average_decay,
            optimizers=build_optimizers(model, config),
            scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
            image_size=image_size,
            average_rate=torch.zeros((), device=device),
        )

    @property
    def final_model(self) -> nn.Module:
        """The model that is evaluated: the average where there is one."""
        return self.model if self.average is None else self.average

    def resize(self, size: tuple[int, int]) -> None:
        """Move to another image size; moments of resampled tables start again from nothing."""
        if size == self.image_size:
            return
        for model in (self.model, self.average):
            if model is not None:
                resize = model.resize
                assert callable(resize)
                resize(size)
        for optimizer in self.optimizers:
            for parameter, moments in optimizer.state.items():
                if any(value.ndim and value.shape != parameter.shape for value in moments.values()):
                    for name, value in moments.items():
                        like = parameter if value.ndim else value
                        moments[name] = torch.zeros_like(like, requires_grad=False)
        self.image_size = size

    def add_step_time(self, seconds: float) -> None:
        """Add to the time in which weights moved."""
        self.clock.steps += seconds
        self.recent_seconds += seconds

    def images_per_second(self, batch_size: int) -> float:
        """Images per second since the last line of metrics."""
        return batch_size * len(self.recent) / self.recent_seconds

    def set_lr(self, lr_scale: float) -> None:
        """Set every learning rate to its peak times a factor, and how far the average moves now.

        The average forgets its first steps faster, as they are the worst.
        """
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        warm = (1 + self.step) / (10 + self.step)
        rates = [*(group["peak"] * lr_scale for group in groups), 1 - min(self.average_decay, warm)]
        scalars = [*(group["lr"] for group in groups), self.average_rate]
        fill(scalars, np.array(rates, np.float32))

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the weight average towards the weights; statistics of norms are taken over."""
        if self.average is None:
            return
        average: list[Tensor] = list(self.average.parameters())
        weights: list[Tensor] = list(self.model.parameters())
        way = torch._foreach_sub(weights, average)
        torch._foreach_mul_(way, self.average_rate)
        torch._foreach_add_(average, way)
        if buffers := list(self.average.buffers()):
            torch._foreach_copy_(buffers, list(self.model.buffers()))

    def save(self, run: Run) -> None:
        """Write a checkpoint."""
        files = {
            "model.safetensors": save(tensors(self.model)),
            "optimizer.safetensors": save(self._moments()),
        }
        if self.average is not None:
            files["average.safetensors"] = save(tensors(self.average))
        readable = {
            "step": self.step,
            "image_size": self.image_size,
            "scaler": self.scaler.state_dict(),
            "plateau": asdict(self.plateau),
            "clock": asdict(self.clock),
            "recent": self.recent,
            "recent_seconds": self.recent_seconds,
            "evaluation": self.evaluation,
            "best": self.best,
            "alarms": self.alarms,
        }
        run.write_checkpoint(self.step, files, readable)

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of a run with the same config."""
        readable = checkpoint.state
        self.resize(checkpoint.image_size)
        try:
            self.model.load_state_dict(read_tensors(checkpoint.model))
            if self.average is not None:
                self.average.load_state_dict(read_tensors(checkpoint.average))
        except RuntimeError as error:
            raise RunError(f"{checkpoint.path} does not fit the run's config: {error}") from error
        self._load_moments(read_tensors(checkpoint.optimizer))
        self.scaler.load_state_dict(readable["scaler"])
        self.step = readable["step"]
        self.plateau = Plateau(**readable["plateau"])
        # Checkpoints of earlier versions were not measured.
        self.clock.add(Clock(**{"joules": None, **readable["clock"]}))
        self.recent = readable["recent"]
        self.recent_seconds = readable["recent_seconds"]
        self.evaluation = readable["evaluation"]
        self.best = readable["best"]
        self.alarms = readable["alarms"]

    def _moments(self) -> dict[str, Tensor]:
        names: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}
        return {
            f"{names[parameter]}/{key}": value.contiguous()
            for optimizer in self.optimizers
            for parameter, moments in optimizer.state.items()
            for key, value in moments.items()
            if value is not None
        }

    def _load_moments(self, stored: dict[str, Tensor]) -> None:
        names: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}
        by_name: dict[str, dict[str, Any]] = {}
        for key, value in stored.items():
            name, _, moment = key.rpartition("/")
            by_name.setdefault(name, {})[moment] = value
        for optimizer in self.optimizers:
            # load_state_dict numbers parameters in order of the groups, and knows which
            # moments belong on the parameter's device.
            layout = optimizer.state_dict()
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            layout["state"] = {
                place: by_name[names[parameter]]
                for place, parameter in enumerate(parameters)
                if names[parameter] in by_name
            }
            optimizer.load_state_dict(layout)
            # Fused kernels go through memory side by side: moments lie as their parameter lies,
            # channels last or not.
            for parameter, moments in optimizer.state.items():
                for key, value in moments.items():
                    if value is not None and value.shape == parameter.shape:
                        moments[key] = torch.empty_like(parameter).copy_(value)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's state as contiguous tensors, ready for safetensors."""
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}

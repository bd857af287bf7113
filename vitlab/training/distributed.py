"""Data parallel training: what this process does among those that `torchrun` started.

Every rank holds the whole model and takes its own slice of each batch; all of them move the same
weights by the same gradient. Rank 0 alone writes the run. Without torchrun there is one rank, and
everything here is done at once.
"""

import atexit
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vitlab.config import Config
from vitlab.run import Run, SplitRecord


@dataclass(frozen=True)
class Ranks:
    """The processes of one training, and which of them this is."""

    rank: int = 0
    world: int = 1
    """Number of processes."""

    @property
    def first(self) -> bool:
        """True in the process that writes and speaks."""
        return self.rank == 0

    def slice(self, length: int) -> slice:
        """This rank's part of so many images: each in one part, parts of nearly equal length."""
        return slice(self.rank * length // self.world, (self.rank + 1) * length // self.world)

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.world > 1:
            dist.all_reduce(numbers)
        return numbers

    def agree(self, number: int) -> int:
        """The largest number that a rank brought, the same for all."""
        if self.world == 1:
            return number
        told = torch.tensor(number)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def told(self, words: str) -> str:
        """What rank 0 brought."""
        if self.world == 1:
            return words
        heard = [words]
        dist.broadcast_object_list(heard)
        return heard[0]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Do something that rank 0 leaves ready for the others, rank 0 before them."""
        if not self.first:
            self.agree(0)
        try:
            yield
        finally:
            if self.first:
                self.agree(0)

    @contextmanager
    def create(self, path: Path, config: Config, numbered: bool = False) -> Iterator[Run]:
        """Begin a run and hold the right to write it; numbered, beside what has its name."""
        with ExitStack() as held:
            try:
                if self.first:
                    lock = Run.lock_new if numbered else Run.lock
                    path = held.enter_context(lock(path))
                    run = Run.create(path, config)
            finally:
                path = Path(self.told(str(path)))
            yield run if self.first else Watched(path)

    @contextmanager
    def reopen(self, path: Path) -> Iterator[Run]:
        """Take up a run and hold the right to write it."""
        with ExitStack() as held:
            with self.in_turn():
                if self.first:
                    held.enter_context(Run.lock(path))
                run = Run(path) if self.first else Watched(path)
                run.sweep()
            yield run


ALONE = Ranks()
"""What a process is that torchrun did not start."""


def join(device: torch.device) -> tuple[Ranks, torch.device]:
    """Find the other ranks, and the device of this one: with CUDA each has a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, device
    gpu = device.type == "cuda"
    if gpu:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # Gloo beside NCCL, so that what the host decides does not wait for the GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
        atexit.register(dist.destroy_process_group)
    return Ranks(dist.get_rank(), dist.get_world_size()), device


class Watched(Run):
    """A run that rank 0 writes: to write it from here does nothing."""

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Leave it to rank 0."""

    def write_split(self, split: SplitRecord) -> None:
        """Leave it to rank 0."""

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Leave it to rank 0."""

    def truncate_metrics(self, step: int) -> None:
        """Leave it to rank 0."""

    def write_checkpoint(self, step: int, files: Mapping[str, bytes], state: Any) -> None:
        """Leave it to rank 0."""

    def sweep(self) -> None:
        """Leave it to rank 0."""

    def finish(self, numbers: Mapping[str, Any]) -> None:
        """Leave it to rank 0."""

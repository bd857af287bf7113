"""Data parallel training: what this process does among those that `torchrun` started.

Every process holds the whole model and takes its own slice of each batch; all of them move the
same weights by the same gradient. Rank 0 alone writes the run. Without torchrun there is one
process, and everything here is done at once.
"""

import atexit
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from vitlab.config import Config
from vitlab.run import Run


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one training, and which of them this is."""

    rank: int = 0
    world_size: int = 1
    """Number of processes."""

    @property
    def is_main(self) -> bool:
        """True in the process that writes and prints."""
        return self.rank == 0

    def slice(self, length: int) -> slice:
        """This process's part of so many images: each in one part, parts of nearly equal length."""
        size = self.world_size
        return slice(self.rank * length // size, (self.rank + 1) * length // size)

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world_size > 1:
            dist.all_reduce(numbers)
        return numbers

    def all_reduce_max(self, number: int) -> int:
        """The largest number that a process brought, the same for all."""
        if self.world_size == 1:
            return number
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def broadcast(self, text: str) -> str:
        """The text of rank 0."""
        if self.world_size == 1:
            return text
        texts = [text]
        dist.broadcast_object_list(texts)
        return texts[0]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.all_reduce_max(0)  # by gloo, so that no GPU is waited for

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Do something that rank 0 leaves ready for the others, rank 0 before them."""
        if not self.is_main:
            self.barrier()
        try:
            yield
        finally:
            if self.is_main:
                self.barrier()

    @contextmanager
    def create_run(self, path: Path, config: Config, numbered: bool = False) -> Iterator[Run]:
        """Begin a run and lock it for writing; numbered, beside what has its name."""
        with ExitStack() as lock:
            try:
                if self.is_main:
                    claim = Run.lock_new if numbered else Run.lock
                    path = lock.enter_context(claim(path))
                    run = Run.create(path, config)
            finally:
                path = Path(self.broadcast(str(path)))
            yield run if self.is_main else ReadOnlyRun(path)

    @contextmanager
    def reopen_run(self, path: Path) -> Iterator[Run]:
        """Open an existing run and lock it for writing."""
        with ExitStack() as lock:
            with self.main_first():
                if self.is_main:
                    lock.enter_context(Run.lock(path))
                run = Run(path) if self.is_main else ReadOnlyRun(path)
                run.sweep()
            yield run


SINGLE = ProcessGroup()
"""The group of a process that torchrun did not start."""


def init_distributed(device: torch.device) -> tuple[ProcessGroup, torch.device]:
    """Find the other processes, and this one's device: with CUDA each has a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return SINGLE, device
    gpu = device.type == "cuda"
    if gpu:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # Gloo beside NCCL, so that what the host decides does not wait for the GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
        atexit.register(dist.destroy_process_group)
    return ProcessGroup(dist.get_rank(), dist.get_world_size()), device


class ReadOnlyRun(Run):
    """A run that rank 0 writes: to write it from another process does nothing."""

    def _skip(self, *_: object, **__: object) -> None:
        """Leave it to rank 0."""

    write_provenance = write_split = append_metrics = truncate_metrics = _skip
    write_checkpoint = sweep = finish = _skip

"""Where a computation runs and with which numbers: every choice comes with its reason."""

# pyright: reportPrivateImportUsage=false
# torch offers its operations on lists of tensors under names with an underscore.

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitlab.config import Config, TrainConfig
from vitlab.errors import VitlabError


class Choice(NamedTuple):
    """A resolved value and why it was taken."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


COMPILE_STEPS = 120_000
"""Steps from which compilation is expected to repay itself, if it takes a minute and saves half a
millisecond of a step that is replayed anyway; an estimate, not yet measured."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Resolve auto, cpu, cuda, cuda:1, mps ...; VitlabError if this machine lacks it."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise VitlabError(f"device {name!r} cannot be used here: {reason}") from error
    return device


LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
"""How the numbers of images and convolutions may lie in memory."""


def choose_threads(device: torch.device) -> Choice:
    """How many CPU threads compute; torch and the environment have decided, this says why."""
    threads = str(torch.get_num_threads())
    if "OMP_NUM_THREADS" in os.environ:
        return Choice(threads, "OMP_NUM_THREADS")
    if device.type != "cpu":
        return Choice(threads, "the GPU does the work")
    return Choice(threads, "one for each core; fewer, by OMP_NUM_THREADS, where cores are shared")


def multiplies_bf16(device: torch.device) -> bool:
    """True if the hardware multiplies bf16 matrices itself, which is many times the speed of
    emulation.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # torch 2.11 cannot say, so that there it takes a flag to get bf16.
        can = getattr(torch.cpu, "get_capabilities", dict)()
        return any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def choose_precision(config: TrainConfig, device: torch.device) -> Choice:
    """Resolve the precision of the forward pass."""
    if config.precision == "auto":
        if not multiplies_bf16(device):
            return Choice("fp32", f"this {device.type.upper()} does not multiply bf16 natively")
        if device.type == "cuda":
            return Choice("bf16", "this GPU computes it natively")
        return Choice("fp32", "on a CPU bf16 is not known to be as accurate")
    if config.precision == "fp16" and device.type == "cpu":
        return Choice("fp32", "fp16 was asked for, but a CPU has no fast fp16")
    return Choice(config.precision, "asked for")


def choose_compile(config: Config, device: torch.device, steps: int, precision: Choice) -> Choice:
    """Resolve how the step of a run of so many steps is made faster than plain Python.

    `on` is torch.compile, and on a GPU a CUDA graph of the compiled step; `graph` is the graph
    alone, which takes seconds to capture where a compilation takes minutes.
    """
    asked = config.train.compile
    if asked == "off":
        return Choice("off", "asked for")
    if device.type != "cuda":
        if asked == "on":
            return Choice("on", "asked for")
        return Choice("off", f"no reliable gain on {device.type}")
    if precision.value == "fp16" and config.optim.optimizer == "muon":
        return Choice("off", "Muon in fp16 must look at the loss scale at every step")
    if asked != "auto":
        return Choice(asked, "asked for")
    if steps < COMPILE_STEPS:
        return Choice("graph", f"{steps:,} steps do not repay about a minute of compilation")
    return Choice("on", f"repaid over {steps:,} steps")


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy numbers from the host to a device; a GPU is not waited for."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def fill(scalars: Sequence[Tensor], numbers: np.ndarray) -> None:
    """Set tensors () of one type on one device to a number each, by one copy for all of them."""
    if scalars:
        torch._foreach_copy_(list(scalars), to_device(numbers, scalars[0].device).unbind())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a forward pass runs at a precision."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


@contextmanager
def enough_memory(hint: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory into a VitlabError with a hint, made only then, at what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # A CPU's allocator has no error of its own.
        messages = ("can't allocate memory", "not enough memory")
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(each in str(error) for each in messages):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold what took the memory
        raise VitlabError(hint()) from error


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Refuse, for a while, kernels whose result depends on timing.

    Where that is not asked for, cuDNN tries which of its convolutions is fastest.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if on:
        # Without it cuBLAS may pick another order of summation, and torch refuses to multiply.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on or before[0])
    torch.backends.cudnn.benchmark = not on
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]

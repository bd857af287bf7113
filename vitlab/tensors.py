"""Tensors by name from a safetensors file, the only form in which weights are read."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from vitlab.errors import RunError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU; RunError if it is missing, unreadable or another kind."""
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}. Is the disk sound?") from error
    except SafetensorError as error:
        raise RunError(f"{path} is not a safetensors file: {error}") from error

"""Where weights to start a training from are read: what `--from` names -> tensors."""

import json
from pathlib import Path

import numpy as np
from torch import Tensor

from vitlab.config import DataConfig
from vitlab.errors import RunError
from vitlab.pretrained import find_run, names
from vitlab.run import Run
from vitlab.tensors import read_tensors

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


def read_weights(source: str) -> dict[str, Tensor]:
    """Read tensors by name, on the CPU, as the source calls them.

    Args:
        source: a run's folder, whose last checkpoint is read, its average if it has one; a shipped
            model's name; a .safetensors file; or hf:NAME, a model of the Hugging Face Hub or a
            folder in its form, of which model.safetensors is read.

    Raises:
        RunError: nothing there, or a pickle, which is never opened.
    """
    path = Path(source)
    if (run := run_of(source)) is not None:
        return read_tensors(run.weights(run.checkpoint()))
    if source.startswith("hf:"):
        return read_tensors(on_the_hub(source.removeprefix("hf:"), "model.safetensors"))
    if path.suffix in PICKLES:
        raise RunError(
            f"{source} is a pickle, which can run any code when it is opened. Convert it, with "
            "['model'] or ['state_dict'] after torch.load(...) if that is where the tensors are, "
            "where you trust it: safetensors.torch.save_file(torch.load(PATH, weights_only=True), "
            "'weights.safetensors')"
        )
    if path.suffix == ".safetensors":
        return read_tensors(path)
    raise RunError(
        f"{source} holds no weights to start from: give a run's folder, a .safetensors file, "
        f"hf:NAME or a shipped model ({', '.join(names())})"
    )


def read_class_names(source: str) -> tuple[str, ...] | None:
    """Names of the classes of a source's head, in order; None where it does not say.

    A run and a shipped model say it, and of hf:NAME its config.json, unless its names are those
    that the transformers library gives to classes without any.
    """
    if (run := run_of(source)) is not None:
        return tuple(run.provenance["data"]["class_names"])
    if not source.startswith("hf:"):
        return None
    try:
        config = json.loads(on_the_hub(source.removeprefix("hf:"), "config.json").read_bytes())
        found = {int(place): str(name) for place, name in config["id2label"].items()}
    except (RunError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    unnamed = all(name == f"LABEL_{place}" for place, name in found.items())
    return None if unnamed else tuple(found[place] for place in sorted(found))


def run_of(source: str) -> Run | None:
    """The run that a source names by its folder or, if it ships, by its name."""
    return find_run(source) if source in names() or Path(source).is_dir() else None


def trained_on(source: str) -> np.ndarray:
    """Keys, uint64 (M,), of the images that a source was trained on; none where it is no run."""
    run = run_of(source)
    return np.empty(0, np.uint64) if run is None else run.split.trained


def data_of(source: str) -> DataConfig | None:
    """The data that a source was trained on, if it is a run."""
    run = run_of(source)
    return run and run.config.data


def on_the_hub(name: str, file: str) -> Path:
    """A file of a folder, or of a model on the Hub, fetched if it is not cached."""
    if Path(name).is_dir():
        return Path(name) / file
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise RunError(
            f"hf:{name} needs the Hugging Face libraries: pip install 'vitlab[pretrained]'"
        ) from None
    try:
        return Path(hf_hub_download(name, file))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"hf:{name} has no {file} that can be read: {reason}") from error

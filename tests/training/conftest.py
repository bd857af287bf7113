"""What tests of training share: small images, a small run, a power cut, and weights to compare."""

import hashlib
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import load_file

from vitlab.config import Config, TrainConfig, ViTConfig
from vitlab.run import FINISHED, Run
from vitlab.training import train
from vitlab.training.step import TrainingStep


@pytest.fixture(scope="session")
def data() -> tuple[np.ndarray, np.ndarray]:
    """300 images of three classes that differ by where they are bright."""
    draws = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = draws.integers(0, 120, (300, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[label * 2 : label * 2 + 3] += 130
    return images.astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="session")
def small() -> Config:
    """The smallest training: two steps."""
    return Config(
        model=ViTConfig(patch_size=4, width=8, depth=1, heads=2),
        train=TrainConfig(epochs=1, batch_size=150),
    )


@pytest.fixture(scope="session")
def small_run(data, small, tmp_path_factory) -> Run:
    """That training finished, which no test writes into."""
    out = tmp_path_factory.mktemp("small")
    return train(small, data=data, out=out, device="cpu", quiet=True)


@pytest.fixture
def unfinished(tmp_path):
    """A function of a finished run: a copy that lacks its end alone, free to be written into."""

    def unfinished(run: Run) -> Run:
        copy = Run(shutil.copytree(run.path, tmp_path / "unfinished"))
        (copy.path / FINISHED).unlink()
        return copy

    return unfinished


class Cut(BaseException):
    """Stands for a power cut: nothing catches it."""


@pytest.fixture
def cut(monkeypatch):
    """`with cut(after=3): train(...)` ends a training when it has taken three steps."""

    @contextmanager
    def cut(after: int):
        taken = []
        take = TrainingStep.__call__

        def take_until_cut(self, *batch):
            if len(taken) == after:
                raise Cut
            taken.append(self)
            return take(self, *batch)

        with monkeypatch.context() as patch:
            patch.setattr(TrainingStep, "__call__", take_until_cut)
            with pytest.raises(Cut):
                yield

    return cut


@pytest.fixture(scope="session")
def fingerprint():
    """A function of a run: SHA-256 of its last weights, average and moments."""

    def fingerprint(run: Run) -> str:
        digest = hashlib.sha256()
        for file in sorted(run.checkpoint().path.glob("*.safetensors")):
            for name, tensor in sorted(load_file(file).items()):
                digest.update(f"{file.name} {name} {tensor.dtype} {tensor.shape}".encode())
                digest.update(tensor.tobytes())
        return digest.hexdigest()

    return fingerprint

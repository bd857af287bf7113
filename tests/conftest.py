"""What all tests share: folders of their own, and the real CIFAR-10 where there is one."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitlab.run import Run


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory) -> Iterator[None]:
    """Keep the cache and the runs of whoever runs the tests out of their reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("VITLAB_RUNS", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def terminal() -> None:
    """Let the hang-up of a terminal mean what it means, also below nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The data root that holds the real CIFAR-10."""
    root = os.environ.get("VITLAB_DATA")
    if root is None or not (Path(root) / "cifar10").is_dir():
        pytest.skip("needs real images: set VITLAB_DATA to the folder that holds cifar10")
    return Path(root)


@pytest.fixture(scope="session")
def trained_on_digits(tmp_path_factory) -> Run:
    """A finished run of a small plain ViT on the digits, which no test writes into."""
    import vitlab

    config = vitlab.recipe("digits").override(
        {"model.width": 16, "model.depth": 2, "model.heads": 2, "train.epochs": 3}
        | {"optim.warmup_epochs": 0, "model.pool": "cls", "model.cls_token": True}
        | {"model.position": "learned", "model.patch": "linear", "model.ffn": "gelu"}
    )
    out = tmp_path_factory.mktemp("trained")
    return vitlab.train(config, out=out, name="tiny", device="cpu", quiet=True)


@pytest.fixture
def digits_run(trained_on_digits, tmp_path) -> Run:
    """A copy of that run in a folder of runs of its own, free to be written into."""
    return Run(shutil.copytree(trained_on_digits.path, tmp_path / "runs" / "tiny"))

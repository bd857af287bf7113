"""What all tests share: folders of their own, and the real CIFAR-10 where there is one."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


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

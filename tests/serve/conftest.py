"""One service for all tests: starting one takes longer than asking it anything."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs vitlab[serve]")
sys.path.append(str(Path(__file__).parent))  # the checks are shared with the catalogue of faults

import checks
from client import HURRIED, Served


@pytest.fixture(scope="session")
def run(trained_on_digits, tmp_path_factory) -> Path:
    """A small ViT of digits that has yet to be exported."""
    return shutil.copytree(trained_on_digits.path, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def served(run) -> Iterator[Served]:
    """The digits, exported and served to all tests."""
    service = Served(["-c", HURRIED, str(run)])
    try:
        checks.birth(service, patience=10)
        service.settle()
        yield service
    finally:
        service.end()

"""One service for all tests: starting one takes longer than asking it anything."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs vitlab[serve]")
sys.path.append(str(Path(__file__).parent))  # the checks are shared with the catalogue of faults

import checks
from asking import HURRIED, Served, draw

import vitlab


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A small ViT of digits, quickly trained and quickly exported."""
    config = vitlab.recipe("digits").override(
        {"model.depth": 1, "optim.warmup_epochs": 0, "train.epochs": 1}
    )
    out = tmp_path_factory.mktemp("runs")
    return vitlab.train(config, out=out, name="digits", device="cpu", quiet=True).path


@pytest.fixture(scope="session")
def served(run) -> Iterator[Served]:
    """The digits, served to all tests; the last of them stops it."""
    service = Served(["-c", HURRIED, str(run)])
    try:
        checks.birth(service, patience=10)
        # The process that draws maps is only being started.
        assert service.send(draw(), "/api/explain?method=attention").status == 200
        yield service
    finally:
        service.end()


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Iterator[Served]:
    """The shipped plain ViT, served as the command does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITLAB_RUNS", str(tmp_path_factory.mktemp("shipped")))
        service = Served(["-m", "vitlab", "serve", "cpu-plain", "--port", "0"])
        try:
            yield service.wait()
            code, _, complaints = service.stop()
            assert code == 0 and "Traceback" not in complaints, (code, complaints)
        finally:
            service.end()

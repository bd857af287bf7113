"""Protects the count of test openings, whoever opens, whenever and however often."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from vitlab.ledger import LEDGER, record_opening
from vitlab.recipes import recipe
from vitlab.run import Run


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint that nobody will open."""
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    run = Run.create(tmp_path / "runs" / "tiny", recipe("digits"))
    run.write_checkpoint(1, {"model.safetensors": b"weights"}, {"judged": {}})
    return run


def test_openings_at_the_same_moment_are_all_counted(run):
    checkpoint = run.checkpoint()
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: record_opening(run, checkpoint, "ten"), range(24)))
    assert sorted(counts) == list(range(1, 25))
    lines = (run.path.parent / LEDGER).read_text().splitlines()
    assert len(lines) == 24
    assert {json.loads(line)["checkpoint_sha256"] for line in lines} == {checkpoint.sha256}


def test_each_set_of_test_images_has_its_own_count(run):
    checkpoint = run.checkpoint()
    counts = [record_opening(run, checkpoint, images) for images in ("ten", "mine", "ten", "mine")]
    assert counts == [1, 1, 2, 2]
    ledger = run.path.parent / LEDGER
    with ledger.open("a") as file:
        file.write(json.dumps({"run": "earlier", "split": "test"}) + "\n")
    assert record_opening(run, checkpoint, "mine") == 4  # it may have been of these images


def test_a_line_cut_short_by_a_crash_still_counts(run):
    (run.path.parent / LEDGER).write_text('{"time": "2026-')
    assert record_opening(run, run.checkpoint(), "ten") == 2
    assert json.loads((run.path.parent / LEDGER).read_text().splitlines()[1])["run"] == "tiny"

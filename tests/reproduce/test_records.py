"""The results page says what the committed records say, and nothing else."""

import re
from pathlib import Path

import pytest

from vitlab.config import Config
from vitlab.errors import RunError
from vitlab.recipes import RECIPES
from vitlab.reproduce.records import PAGE, README, RECORDS, keep, page, row, with_summary
from vitlab.run import Run

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_generated_from_the_committed_records():
    assert (ROOT / PAGE).read_text() == page(ROOT / RECORDS)


def test_the_table_of_the_readme_is_generated_too():
    readme = (ROOT / README).read_text()
    assert readme == with_summary(readme, ROOT / RECORDS)


def test_what_was_not_measured_says_so():
    assert row("vit-tiny", None)[:2] == ["`vit-tiny`", "not yet measured"]
    assert "86.70 %" in row("vit-tiny", None)[3]


def test_a_run_without_test_result_is_not_kept(tmp_path):
    with Run.claim(tmp_path / "run"):
        run = Run.create(tmp_path / "run", Config())
    with pytest.raises(RunError, match="--split test"):
        keep(run, tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_what_a_recipe_expects_lies_within_what_was_measured():
    for path in (ROOT / RECORDS).glob("*/config.json"):
        run = Run(path.parent)
        words = " ".join((RECIPES[run.config.recipe].__doc__ or "").split())
        expected = re.search(r"Expected: ([\d.]+) %", words)
        assert expected, run.config.recipe
        low, high = run.results["test"]["accuracy_interval"]
        assert low <= float(expected[1]) / 100 <= high, run.config.recipe

"""The results page says what the committed records say, and nothing else."""

import json
import re
import shutil
from pathlib import Path

import pytest

from vitlab import measured
from vitlab.config import Config
from vitlab.errors import RunError, VitlabError
from vitlab.files import write_json
from vitlab.recipes import RECIPES
from vitlab.reproduce.__main__ import FILLED
from vitlab.reproduce.marks import fill
from vitlab.reproduce.records import PAGE, RECORDS, by_row, keep, measurements, page, row
from vitlab.run import Run

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_generated_from_the_committed_records():
    assert (ROOT / PAGE).read_text() == page(ROOT / RECORDS)


@pytest.mark.parametrize(("path", "name", "lines"), FILLED)
def test_generated_lines_of_other_pages_are_those_of_the_records(path, name, lines, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text()
    assert text == fill(text, name, lines())
    assert fill(text, name, "other lines") != text


def test_what_the_package_knows_of_its_recipes_is_what_the_records_say():
    assert json.loads(measured.FILE.read_text()) == measurements(ROOT / RECORDS)


def test_runs_that_differ_in_their_seed_are_one_line(tmp_path):
    for seed, accuracy in enumerate((0.96, 0.98, 0.97)):
        folder = Path(shutil.copytree(ROOT / RECORDS / "digits-seed0", tmp_path / f"run-{seed}"))
        config = json.loads((folder / "config.json").read_text())
        config["train"]["seed"] = seed
        write_json(folder / "config.json", config)
        results = json.loads((folder / "results.json").read_text())
        results["test"]["accuracy"] = accuracy
        write_json(folder / "results.json", results)
    (name, runs), *others = by_row(tmp_path).items()
    assert name == "digits" and not others
    assert row(name, runs)[1:3] == ["**97.00 %** (94.52 % to 99.48 %)", "3"]


def test_a_page_without_its_marks_is_not_touched():
    with pytest.raises(VitlabError, match="<!-- results -->"):
        fill("# A page\n", "results", "lines")


def test_what_was_not_measured_says_so():
    assert row("vit-tiny", [])[:2] == ["`vit-tiny`", "not yet measured"]
    assert "86.70 %" in row("vit-tiny", [])[3]


def test_a_run_without_test_result_is_not_kept(tmp_path):
    with Run.lock(tmp_path / "run"):
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

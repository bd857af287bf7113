"""Pages say what the records say, and what is still to be measured."""

import json
import shutil
from pathlib import Path

import pytest

import results
from pages import goals, reliability, speed
from pages.results import row
from pages.runs import RECORDS, by_row
from results import check, fill, keep
from vitlab.config import Config
from vitlab.errors import RunError, VitlabError
from vitlab.evaluate import evaluate
from vitlab.files import write_json
from vitlab.models.cost import cost
from vitlab.recipes import ALL_RECIPES
from vitlab.run import Run

ROOT = Path(__file__).parents[2]
MEASURED = Run(ROOT / RECORDS / "cpu")


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the pages and the records, and the working directory."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_stale_page_and_a_record_of_other_weights_are_named(copied):
    for page, text in results.pages().items():
        page.write_text(text)
    check()
    readme = copied / "README.md"
    readme.write_text(readme.read_text().replace("<!-- results -->", "<!-- results -->\nstale"))
    record = copied / RECORDS / "explain" / "cpu-cnn.json"
    write_json(record, {**json.loads(record.read_text()), "checkpoint_sha256": "0" * 64})
    with pytest.raises(RunError) as stale:
        check()
    first, second = str(stale.value).splitlines()
    assert first == "README.md is not what the records say: run make results"
    assert second.startswith("docs/results/explain/cpu-cnn.json is of other weights")


def test_runs_that_differ_in_their_seed_are_one_line(tmp_path):
    for seed, accuracy in enumerate((0.96, 0.98, 0.97)):
        folder = Path(shutil.copytree(ROOT / RECORDS / "digits-seed0", tmp_path / f"run-{seed}"))
        config = json.loads((folder / "config.json").read_text())
        config["train"]["seed"] = seed
        write_json(folder / "config.json", config)
        found = json.loads((folder / "results.json").read_text())
        found["test"]["accuracy"] = accuracy
        write_json(folder / "results.json", found)
    (name, runs), *others = by_row(tmp_path).items()
    assert name == "digits" and not others
    assert row(name, runs)[1:3] == ["**97.00 %** (94.52 % to 99.48 %)", "3"]


def test_a_page_without_its_marks_is_not_touched():
    with pytest.raises(VitlabError, match="<!-- results -->"):
        fill("# A page\n", "results", "lines")


def test_a_run_without_test_result_is_not_kept(tmp_path):
    with Run.lock(tmp_path / "run"):
        run = Run.create(tmp_path / "run", Config())
    with pytest.raises(RunError, match="--split test"):
        keep(run, tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_a_carried_run_is_kept_with_pictures_that_are_drawn_from_its_logits(digits_run, tmp_path):
    evaluate(digits_run, "test", device="cpu", pictures=False)
    shutil.rmtree(digits_run.figures, ignore_errors=True)
    record = keep(digits_run, tmp_path / "records")
    assert record.results == digits_run.results
    assert (record.figures / "test-reliability.svg").exists()


def test_what_was_not_measured_says_so_and_keeps_its_reference(tmp_path):
    assert row("vit-tiny", [])[:2] == ["`vit-tiny`", "not yet measured"]
    assert "86.70 %" in row("vit-tiny", [])[3]
    lines = goals.page(tmp_path).splitlines()
    for tier in (*goals.CORES, *goals.GPU):
        line = next(line for line in lines if line.startswith(f"| {tier.title} |"))
        assert "not yet measured" in line and tier.reference in line
        assert set(tier.recipes) <= set(ALL_RECIPES)
    assert "Not yet measured." in reliability.page(tmp_path / "none.json")


def test_a_case_that_failed_is_not_promised_with_a_figure(tmp_path):
    one = {"id": "A01", "title": "kill -9", "figure": "100 of 100 equal", "seconds": 3.0}
    machine = {"system": "Linux", "cores": 2, "python": "3.11", "torch": "2.11"}
    for status, figure in (("failed", "failed"), ("passed", "100 of 100 equal")):
        record = {"machine": machine, "seconds": 100, "counts": {status: 1}}
        write_json(tmp_path / "faults.json", {**record, "cases": [{**one, "status": status}]})
        assert f"| A01 | kill -9 | {figure} | 3 s |" in reliability.page(tmp_path / "faults.json")


def test_the_cost_of_a_training_counts_small_images_at_their_size():
    config, images = MEASURED.config, MEASURED.provenance["data"]["train_images"]
    small = config.override({"data.image_size": config.train.small_size})
    macs = 31 * cost(small).macs + 23 * cost(config).macs
    assert goals.training_flops(MEASURED) == pytest.approx(6 * images * macs)


def test_warm_seconds_leave_the_capture_out():
    clock = MEASURED.final_numbers["clock"]
    expected = clock["step_seconds"] - clock.get("capture_seconds", 0)
    assert goals.warm_seconds(MEASURED) == expected


def test_the_share_of_peak_is_that_of_the_device_that_trained(tmp_path):
    assert goals.share_of_peak(MEASURED, tmp_path) == "-"
    origin = MEASURED.provenance
    peak = goals.training_flops(MEASURED) / goals.warm_seconds(MEASURED) / 0.25
    for device, folder in ((origin["device"], "speed"), ("a Cray-1", "speed-cray")):
        training = {"matrix_peak": {origin["precision"]["value"]: peak}}
        found = {"machine": {"device": device}, "training": training}
        write_json(tmp_path / folder / "bench.json", found)
        assert goals.share_of_peak(MEASURED, tmp_path) == "0.25"
        peak = 1.0


def test_every_machine_has_a_page_of_speed_and_the_first_names_the_gpus(tmp_path):
    record = json.loads((ROOT / RECORDS / "speed/bench.json").read_text())
    write_json(tmp_path / "speed/bench.json", record)
    record["training"]["device"], record["machine"]["device"] = "cuda", "a Cray-1"
    write_json(tmp_path / "speed-cray/bench.json", record)
    pages = speed.pages(tmp_path)
    assert set(pages) == {Path("docs/speed.md"), Path("docs/speed-cray.md")}
    assert "On a GPU: [a Cray-1](speed-cray.md)." in pages[Path("docs/speed.md")]
    assert "on a Cray-1" in pages[Path("docs/speed-cray.md")]

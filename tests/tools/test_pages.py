"""Pages say what the records say, and what is still to be measured."""

import json
import shutil
from pathlib import Path

import pytest

import results
from pages import audit, docs, fit, goals, reliability, shipped, speed
from pages.results import row
from pages.runs import RECORDS, by_row, facts
from results import check, fill, keep
from vitlab.config import Config
from vitlab.errors import RunError, VitlabError
from vitlab.evaluate import evaluate
from vitlab.files import write_json
from vitlab.models.cost import cost
from vitlab.pretrained import shipped as shipped_run
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
    changes = {
        "explain/cpu-cnn.json": ("checkpoint_sha256",),
        "export/cpu.json": ("onnx", "checkpoint_sha256"),
        "explore-cifar10.json": ("fingerprint",),
        "speed/bench.json": ("accuracy", "checkpoint_sha256"),
    }
    for name, (*path, last) in changes.items():
        record = json.loads((copied / RECORDS / name).read_text())
        part = record
        for key in path:
            part = part[key]
        part[last] = "0" * 64
        write_json(copied / RECORDS / name, record)
    with pytest.raises(RunError) as stale:
        check()
    *first, _, _, _, _ = lines = str(stale.value).splitlines()
    ships = shipped_run("cpu-cnn").faithfulness_file("validation")
    rest = "is not what the records say: run make results"
    assert set(first) == {f"README.md {rest}", f"{ships} {rest}"}
    others = lines[len(first) :]
    assert {line.split(" is of other weights or images")[0] for line in others} == {
        f"docs/results/{name}" for name in changes
    }


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


def test_as_many_planted_label_errors_are_found_as_by_cleanlab(tmp_path):
    assert audit.label_errors(tmp_path) == "Not yet measured."
    rows = json.loads((ROOT / RECORDS / audit.NAME).read_text())["rows"]
    for measure in ("recall", "precision", "precision_at_planted"):
        ours, theirs = (sum(row[who][measure] for row in rows) for who in audit.COLUMNS)
        assert ours > theirs - 0.001 * len(rows), measure
    assert "| 8 %, 800 | cleanlab |" in audit.label_errors(ROOT / RECORDS)


def test_the_page_of_fit_names_the_sets_on_which_it_loses(tmp_path):
    assert fit.page(tmp_path).count("Not yet measured.") == 2
    found = json.loads((ROOT / RECORDS / fit.FOLDERS).read_text())
    outcomes = (-0.05, 0.01), (-0.04, 0.2), (0.04, 0.01), (0.0, 1.0)
    for one, (difference, p) in zip(found["sets"], outcomes, strict=True):
        one |= {"difference": difference, "p": p}
    write_json(tmp_path / fit.FOLDERS, found)
    first = found["sets"][0]["name"]
    page = fit.page(tmp_path)
    assert f"worse than by hand on: {first}." in page
    assert page.count("Not yet measured.") == 1


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
    for tier in (*goals.CPU, *goals.GPU):
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


def test_process_time_is_the_measured_one():
    seconds = MEASURED.final_numbers["clock"]["process_seconds"]
    assert goals.CPU_COLUMNS["process time"]([MEASURED]) == f"{seconds / 60:.1f} min"


def test_clean_training_images_are_counted_as_the_run_counted_them():
    told = dict(facts(Run(ROOT / RECORDS / "digits-seed1")))
    assert told["accuracy on 1,295 clean training images"] == "100.00 %"


def test_the_card_of_a_fine_tuned_model_names_the_weights_that_it_started_from(copied):
    run = Run(shutil.copytree(ROOT / "vitlab/pretrained/cpu-cnn", copied / "cpu-cnn"))
    assert "from random weights" in shipped.card(run)
    config = json.loads((run.path / "config.json").read_text())
    config["train"]["weights"] = "hf:me/mine"
    write_json(run.path / "config.json", config)
    assert "from hf:me/mine" in shipped.card(Run(run.path))
    assert "from random weights" not in shipped.card(Run(run.path))


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
        machine = {"device": device, "cpu_capability": origin["cpu_capability"]}
        found = {"machine": machine, "training": training}
        write_json(tmp_path / folder / "bench.json", found)
        assert goals.share_of_peak(MEASURED, tmp_path) == "0.25"
        peak = 1.0
    write_json(
        tmp_path / "speed/bench.json",
        found | {"machine": machine | {"device": origin["device"], "cpu_capability": "another"}},
    )
    assert goals.share_of_peak(MEASURED, tmp_path) == "-"


def test_every_machine_has_a_page_of_speed_and_the_first_names_the_gpus(tmp_path):
    record = json.loads((ROOT / RECORDS / "speed/bench.json").read_text())
    write_json(tmp_path / "speed/bench.json", record)
    record["training"]["device"], record["machine"]["device"] = "cuda", "a Cray-1"
    write_json(tmp_path / "speed-cray/bench.json", record)
    record["training"] |= {"device": "cpu", "matrix_peak": {"fp32": 1e11, "bf16": 2e11}}
    record["machine"]["device"] = "a Cray-2"
    write_json(tmp_path / "speed-bf16/bench.json", record)
    pages = {path.stem: text for path, text in speed.pages(tmp_path).items()}
    assert set(pages) == {"speed", "speed-bf16", "speed-cray"}
    assert "On a GPU: [a Cray-1](speed-cray.md)." in pages["speed"]
    assert "What a CPU that does gains: [a Cray-2](speed-bf16.md)." in pages["speed"]
    assert pages["speed-cray"].startswith("# Speed on a Cray-1")
    assert pages["speed-bf16"].startswith("# Speed on a Cray-2, AVX2 with native bf16")


SHOWN = """# A page

<!-- machine -->
<!-- end of machine -->

```sh
exit 3
```

```sh
echo kept > file
seq 50
```

```output
an output of before
```

```python
print(open("file").read() + "in 0.3 s")
```

```output
```
"""


def test_a_page_shows_what_its_blocks_print_one_after_another(tmp_path):
    page = docs.run(SHOWN)
    assert "of before" not in page and docs.machine() in page
    first, second = docs.blocks(page, "output")
    lines = first.splitlines()
    assert lines[0] == "1" and lines[-1] == "50" and "..." in lines and len(lines) < 30
    assert second == "kept\nin 0.3 s\n"
    assert docs.run(page) == page
    with pytest.raises(RunError, match="exit code 3 of\nexit 3"):
        docs.run(SHOWN.replace("exit 3\n```\n", "exit 3\n```\n\n```output\n```\n"))


def test_a_page_that_shows_what_is_no_longer_printed_is_named_and_times_may_differ(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(docs.run(SHOWN).replace("0.3 s", "12 min"))
    docs.check([page])
    page.write_text(page.read_text().replace("kept\nin", "lost\nin"))
    with pytest.raises(RunError, match=r"page.md[\s\S]*-lost\n\+kept\n"):
        docs.check([page])


@pytest.mark.slow
def test_the_docs_show_what_is_printed_today(cifar10, monkeypatch):
    monkeypatch.chdir(ROOT)
    if any(docs.machine() not in path.read_text() for path in docs.PAGES):
        pytest.skip("the docs' outputs are of another CPU")
    docs.check()

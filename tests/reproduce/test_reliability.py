"""The page of promises says what the last run of the cases found, and nothing else."""

import json
from pathlib import Path

from vitlab.reproduce.reliability import PAGE, RECORD, page

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_generated_from_the_committed_record():
    assert (ROOT / PAGE).read_text() == page(ROOT / RECORD)


def test_what_was_not_run_is_not_promised_with_a_figure(tmp_path):
    assert "Not yet measured." in page(tmp_path / "none.json")
    one = {"id": "A01", "title": "kill -9", "status": "failed", "figure": "100 of 100 equal"}
    record = {
        "machine": {"system": "Linux", "cores": 2, "python": "3.11", "torch": "2.11"},
        "seconds": 100,
        "counts": {"passed": 0, "failed": 1, "not run": 0},
        "cases": [{**one, "seconds": 3.0}],
    }
    (tmp_path / "faults.json").write_text(json.dumps(record))
    text = page(tmp_path / "faults.json")
    assert "| A01 | kill -9 | failed | 3 s |" in text and "100 of 100" not in text
    record["cases"][0]["status"] = "passed"
    (tmp_path / "faults.json").write_text(json.dumps(record))
    assert "| A01 | kill -9 | 100 of 100 equal | 3 s |" in page(tmp_path / "faults.json")

"""The short form of the catalogue of faults; `make faults` runs the long one."""

import json
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent

HARNESS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from harness import CASES, NotRun, case, conduct, summarise

@case("A01", "holds")
def holds(folder, scale): return f"{2 * scale:g} of 2"

@case("A02", "fails")
def fails(folder, scale): assert 1 == 2

@case("A03", "cannot be tried")
def lacks(folder, scale): raise NotRun("needs a moon")

@case("A04", "dies")
def dies(folder, scale): __import__("os").kill(__import__("os").getpid(), 9)

@case("A05", "never ends", minutes=0.02)
def hangs(folder, scale): __import__("time").sleep(60)

outcomes = conduct([(one, 1.0) for one in CASES.values()], lambda outcome: None)
print(json.dumps(summarise(outcomes, 1.0, {})))
"""


def test_the_short_form_passes():
    done = subprocess.run([sys.executable, FOLDER, "--short"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A01  passed" in done.stdout


def test_a_case_that_fails_dies_or_hangs_has_failed_and_one_that_lacks_something_was_not_run():
    words = [sys.executable, "-c", HARNESS, str(FOLDER)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    record = json.loads(done.stdout)
    assert record["counts"] == {"passed": 1, "failed": 3, "not run": 1}
    figures = [one["figure"].splitlines()[0] for one in record["cases"]]
    assert figures[0] == "2 of 2" and figures[1].startswith("AssertionError")
    assert figures[2:4] == ["needs a moon", "its process died"]
    assert figures[4] == "not over after 0.02 minutes"


def test_cases_that_rest_on_a_test_name_one_that_exists():
    for file in FOLDER.glob("*.py"):
        # Names of two lines are one string.
        text = re.sub(r'"\n\s+"', "", file.read_text())
        for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", text):
            tests = (FOLDER.parents[1] / path).read_text()
            assert f"def {name}(" in tests, f"{file.name}: {path}::{name}"

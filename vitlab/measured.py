"""What recipes were measured to reach, as data, so that a run can be compared with it.

measured.json is made from the committed records by `make results`. A measurement holds for
its own config with any seed, and for no other.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

from vitlab.config import Config, shared_fields
from vitlab.files import read_json
from vitlab.formatting import between, count, percent
from vitlab.records import Split
from vitlab.run import Run
from vitlab.stats import Interval, next_run

FILE = Path(__file__).with_name("measured.json")


class MeasuredRun(TypedDict):
    """A run whose record is committed."""

    seed: int
    accuracy: dict[Split, float]
    images: dict[Split, int]
    wall_seconds: float
    process_seconds: float
    device: str
    threads: int
    command: str | None


@dataclass(frozen=True)
class Measured:
    """Runs of one config, by whatever seed."""

    name: str
    config: Config
    runs: list[MeasuredRun]

    def span(self, split: Split) -> Interval | None:
        """Between which accuracies another seed is expected; None where none was measured."""
        found = [run["accuracy"][split] for run in self.runs if split in run["accuracy"]]
        return next_run(found, self.runs[0]["images"][split]) if found else None


def measured(config: Config) -> Measured | None:
    """What is known of a config; None if it was never measured."""
    fields = shared_fields(config)
    return next((one for one in _all() if shared_fields(one.config) == fields), None)


def remark(run: Run) -> str | None:
    """A sentence on whether a finished run's validation is what was measured before."""
    known, found = measured(run.config), (run.finished or {}).get("validation")
    span = known.span("validation") if known else None
    if known is None or span is None or not found:
        return None
    seeds = f"{known.name}, {count(len(known.runs), 'seed')}: {between(span)}"
    if span[0] <= found["accuracy"] <= span[1]:
        return f"validation {percent(found['accuracy'])} is within what was measured ({seeds})"
    side = "below" if found["accuracy"] < span[0] else "above"
    return (
        f"validation {percent(found['accuracy'])} is {side} what was measured ({seeds}); more than "
        "another seed is different: compare versions and data with docs/results.md"
    )


@cache
def _all() -> list[Measured]:
    return [
        Measured(one["name"], Config.from_dict(one["config"]), one["runs"])
        for one in read_json(FILE)
    ]

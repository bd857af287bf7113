"""A finished run is compared with what its recipe was measured to reach."""

import pytest

from vitlab import measured
from vitlab.measured import Measured, remark
from vitlab.run import Run


@pytest.fixture
def remark_on(tmp_path, monkeypatch):
    """The remark on a run of digits with an accuracy, where three seeds were measured."""
    digits = next(one for one in measured._all() if one.name == "digits")
    runs = [{**digits.runs[0], "seed": seed, "accuracy": {"validation": accuracy}}
            for seed, accuracy in enumerate([0.97, 0.98, 0.99])]  # fmt: skip
    monkeypatch.setattr(measured, "_all", lambda: [Measured("digits", digits.config, runs)])

    def remark_on(accuracy, changes):
        run = Run.create(tmp_path, digits.config.override(changes))
        run.finish({"validation": {"accuracy": accuracy, "loss": 1.0}})
        return remark(run)

    return remark_on


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [(0.975, "97.50 % is within what was measured (digits, 3 seeds: 93.03 % to 100.00 %)"),
     (0.80, "80.00 % is below what was measured")],
)  # fmt: skip
def test_another_seed_is_within_or_outside_what_was_measured(remark_on, accuracy, words):
    assert words in remark_on(accuracy, {"train.seed": 5})


def test_nothing_is_said_of_another_config(remark_on):
    assert remark_on(0.975, {"train.epochs": 61}) is None

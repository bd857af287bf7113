"""A finished run is told whether it reached what its recipe was measured to reach."""

from vitlab import measured
from vitlab.measured import Measured, remark
from vitlab.run import Run


def finished(folder, config, accuracy):
    run = Run.create(folder, config)
    run.finish({"validation": {"accuracy": accuracy, "loss": 1.0}})
    return run


def known(accuracies):
    digits = next(one for one in measured._all() if one.name == "digits")
    runs = [{**digits.runs[0], "seed": seed, "accuracy": {"validation": accuracy}}
            for seed, accuracy in enumerate(accuracies)]  # fmt: skip
    return Measured("digits", digits.config, runs)


def told(tmp_path, monkeypatch, accuracy, changes=None):
    ours = known([0.97, 0.98, 0.99])
    monkeypatch.setattr(measured, "_all", lambda: [ours])
    tmp_path.mkdir(exist_ok=True)
    return remark(finished(tmp_path, ours.config.override(changes or {}), accuracy))


def test_a_run_hears_whether_it_is_as_expected(tmp_path, monkeypatch):
    seed = {"train.seed": 5}
    words = told(tmp_path / "a", monkeypatch, 0.975, seed)
    assert words and "97.50 % is within" in words and "3 seeds: 93.03 % to 100.00 %" in words
    assert "is below" in (told(tmp_path / "b", monkeypatch, 0.80, seed) or "")


def test_a_run_of_another_config_hears_nothing(tmp_path, monkeypatch):
    assert told(tmp_path, monkeypatch, 0.975, {"train.epochs": 61}) is None

"""`vitlab study`: what it says before it starts, and that it starts nothing unasked."""

import json

import pytest

from vitlab.cli import main
from vitlab.study.define import ready


@pytest.fixture
def options(tiny, tmp_path, monkeypatch) -> list[str]:
    """A study of digits that is quick, in a folder that is still empty."""
    monkeypatch.chdir(tmp_path)
    return ["--device=cpu", "--seeds=1", *(f"--{name}={value}" for name, value in tiny.items())]


def test_without_a_terminal_the_plan_is_shown_and_nothing_begun(capsys, options, tmp_path):
    vary = ["--vary", "model.norm=layer,rms", "--vary", "model.heads=3,4"]
    assert main(["study", "--recipe", "digits", *vary, *options]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert ["arm", "parameters", "multiply-adds", "a", "run", "takes"] in lines
    assert [line[0] for line in lines if line and line[0].startswith("model.")] == [
        "model.norm=rms", "model.heads=4",
    ]  # fmt: skip
    assert "refused: model.heads=3: model.width=16 is not a multiple of heads=3" in out
    assert "3 trials in runs/digits-norm-heads, CPU threads of each: 1; one after another" in out
    assert "the same command with --yes" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["study", "patch-sise"], "did you mean patch-size?"),
        (["study", "--recipe", "digits", "--vary", "model.nrom=rms"], "did you mean model.norm?"),
        (["study", "--recipe", "digitz", "--vary", "model.norm=rms"], "did you mean digits?"),
        (["study", "--vary", "model.norm=rms"], "--vary needs a --recipe"),
        (["study", "norm", "--vary", "model.norm=rms"], "leave out --vary"),
        (["study", "norm", "--train.epoch", "3"], "did you mean --train.epochs?"),
        (["study", "norm", "--train.epochs", "x"], "train.epochs='x' is not a whole number"),
        (["study", "--recipe", "digits", "--vary", "model.norm=rms", "--seeds", "0"], "seeds=0"),
    ],
)
def test_a_mistake_starts_nothing(capsys, tmp_path, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--yes"]) == 2
    assert problem in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_name_the_studies_that_ship_are_listed(capsys):
    assert main(["study", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["study"] for row in rows] == list(ready())
    assert all(row["question"] for row in rows)


def test_a_study_ends_with_the_verdict_on_every_arm(capsys, options, monkeypatch, scored):
    engine = scored(lambda config: 0.5 + (config.model.norm == "rms") / 5 + config.train.seed / 1e3)
    monkeypatch.setattr("vitlab.study.engines.build_engine", lambda *_, **__: engine)
    monkeypatch.setattr("vitlab.study.results.draw", lambda *_: None)
    words = ["study", "--recipe", "digits", "--vary", "model.norm=layer,rms", *options]
    words = [word.replace("--seeds=1", "--seeds=3") for word in words]
    assert main([*words, "--yes"]) == 0
    *_, head, row, empty, path = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["arm", "accuracy"] and "verdict" in head
    assert row.startswith("model.norm=rms") and "70.10 %" in row and "50.10 %" in row
    assert "+20.00" in row and "better" in row
    assert (empty, path) == ("", "runs/digits-norm/summary.md")


def test_a_long_study_names_the_smaller_recipe_with_its_hours(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hours = {"vit-tiny": 60, "cpu-plain": 2}
    monkeypatch.setattr(
        "vitlab.study.prepare.TimeEstimate.seconds",
        lambda self, config, macs: 3600 * hours[config.recipe],
    )
    words = ["study", "--recipe", "vit-tiny", "--vary", "model.norm=layer,rms", "--device=cpu"]
    assert main([*words, "--seeds=3"]) == 0
    out = capsys.readouterr().out
    assert "they take about 360.0 h" in out
    assert "with --recipe cpu-plain the same study takes about 12.0 h" in out
    hours["vit-tiny"] = 3
    assert main([*words, "--seeds=3"]) == 0
    out = capsys.readouterr().out
    assert "they take about 18.0 h" in out and "with --recipe" not in out


def test_a_study_with_a_lost_trial_exits_as_partial(capsys, options, tmp_path, monkeypatch, scored):
    engine = scored(lambda config: -1 if config.optim.lr > 1 else 0.5)
    monkeypatch.setattr("vitlab.study.engines.build_engine", lambda *_, **__: engine)
    words = ["study", "--recipe", "digits", "--vary", "optim.lr=1e30", *options]
    assert main([*words, "--yes", "--quiet"]) == 4
    out, err = capsys.readouterr()
    assert out == "runs/digits-lr/summary.md\n"
    assert "1 of 2 trials have no result" in err and "diverged: it printed nothing" in err
    plan = (tmp_path / "runs/digits-lr/study.json").stat().st_mtime_ns
    assert main(["study", "runs/digits-lr", "--yes", "--device=cpu", "--json"]) == 4
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert (trials["finished"], trials["planned"]) == (1, 2)
    assert len(engine.started) == 2, "nothing is trained again"
    assert main(["study", "runs/digits-lr", "--seeds=2"]) == 2
    assert "runs/digits-lr is planned" in capsys.readouterr().err
    assert (tmp_path / "runs/digits-lr/study.json").stat().st_mtime_ns == plan

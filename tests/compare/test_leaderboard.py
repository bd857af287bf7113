"""Protects the list of all runs: nothing is hidden, nothing is lost, and no cell is a formula."""

import csv
import json
import shutil
import subprocess
import sys
import warnings

import pytest

from vitlab.cli import main
from vitlab.compare.index import COLUMNS, INDEX, lines, select, write_index
from vitlab.config import Config, fields_of
from vitlab.errors import RunError
from vitlab.fields import text

CNN = {"model.kind": "cnn6"}


def table(folder):
    with open(folder / INDEX, newline="") as file:
        return list(csv.DictReader(file))


def board(capsys, *words):
    assert main(["leaderboard", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def made(tmp_path_factory, runs_in):
    """Three finished runs, one of them deep in a study, one unfinished and one damaged."""
    runs = runs_in(tmp_path_factory.mktemp("made") / "runs")
    runs.make("good", wrong=range(6), seed=3)
    runs.make("fair", wrong=range(12), changes={"optim.lr": 0.005})
    runs.make("study/runs/cnn", wrong=range(9), changes=CNN, evaluated=("validation", "test"))
    runs.make("half", finished=False, evaluated=())
    runs.make("broken", wrong=range(3))
    (runs.folder / "broken" / "finished.json").write_text('{"step": ')
    return runs.folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the runs, free to be written."""
    return shutil.copytree(made, tmp_path / "runs")


def test_all_runs_are_listed_best_first_with_their_status(folder, capsys):
    assert main(["leaderboard", str(folder)]) == 0
    out, err = capsys.readouterr()
    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert names[:3] == ["good", "study/runs/cnn", "fair"] and set(names[3:]) == {"half", "broken"}
    assert "unfinished" in out and "damaged" in out
    assert "broken is damaged" in err and "finished.json is not JSON" in err
    good = board(capsys, folder)[0]
    assert list(good) == list(COLUMNS)
    assert good["parameters_m"] == 0.5 and good["flops_g"] == 0.072
    assert good["training_seconds"] == 500 and good["peak_memory_mb"] == 1200
    assert good["accuracy"] == pytest.approx(0.95) and good["seed"] == 3
    assert good["inference_ms"] is None and good["test_accuracy"] is None


def test_runs_of_one_data_set_are_not_ranked_against_those_of_another(runs, capsys):
    for name, dataset, wrong in (("a", "b-set", 9), ("b", "a-set", 6), ("c", "b-set", 3)):
        runs.make(name, wrong=range(wrong), changes={"data.dataset": dataset})
    for words in ((), ("--sort", "loss"), ("--sort", "model")):
        found = board(capsys, runs.folder, *words)
        assert [one["dataset"] for one in found] == ["a-set", "b-set", "b-set"]
    assert main(["leaderboard", str(runs.folder)]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    rows = [[line.split()[:2] for line in part.splitlines()] for part in (first, second)]
    head = ["model", "dataset"]
    assert rows == [[head, ["b", "a-set"]], [head, ["c", "b-set"], ["a", "b-set"]]]


def test_any_column_sorts_with_what_is_unknown_last(folder, capsys):
    names = [one["model"] for one in board(capsys, folder, "--sort", "loss")]
    assert names[:3] == ["good", "study/runs/cnn", "fair"]
    names = [one["model"] for one in board(capsys, folder, "--sort", "test_accuracy")]
    assert names[0] == "study/runs/cnn"
    assert main(["leaderboard", str(folder), "--sort", "config_sha256"]) == 0
    assert "config_sha256" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (["model.kind=cnn6"], {"study/runs/cnn"}),
        (["optim.lr=5e-3"], {"fair"}),
        (["train.seed=3", "recipe=digits"], {"good"}),
        (["model.norm=rms"], set()),
    ],
)
def test_config_fields_filter(folder, capsys, where, names):
    words = [word for one in where for word in ("--where", one)]
    assert {one["model"] for one in board(capsys, folder, *words)} == names


def test_every_field_of_every_config_can_be_asked_for_and_found(folder):
    found = lines(folder)
    assert select(found, [f"{name}=no such value" for name in fields_of(Config())]) == []
    (cnn,) = select(found, ["model.kind=cnn6"])
    asked = [f"{name}={text(value)}" for name, value in fields_of(cnn.config).items()]
    assert select(found, asked) == [cnn]


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["--sort", "acuracy"], "did you mean accuracy?"),
        (["--where", "model.nrom=rms"], "did you mean model.norm?"),
        (["--where", "model.norm"], "say FIELD=VALUE"),
    ],
)
def test_what_is_misspelt_is_refused_with_the_likely_word(folder, capsys, words, suggestion):
    assert main(["leaderboard", str(folder), *words]) == 2
    out, err = capsys.readouterr()
    assert suggestion in err and out == ""


def test_the_index_is_made_from_the_runs_and_losing_it_loses_nothing(folder):
    write_index(folder)
    whole = (folder / INDEX).read_bytes()
    assert [row["model"] for row in table(folder)] == [
        "broken", "fair", "good", "half", "study/runs/cnn",
    ]  # fmt: skip
    for damage in (b"", whole[:99], b"\xff\xfe not a table"):
        (folder / INDEX).write_bytes(damage)
        write_index(folder)
        assert (folder / INDEX).read_bytes() == whole


def test_writers_that_arrive_together_leave_one_whole_index(folder):
    code = "import sys; from vitlab.compare.index import write_index; write_index(sys.argv[1])"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(folder)]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(table(folder)) == 5
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [INDEX]


def test_names_are_no_formulas_and_no_escape_sequences(runs, capsys):
    for name in ("=1+1", "-2", "@x", "\x1b[2Jgone"):
        runs.make(name)
    write_index(runs.folder)
    names = {row["model"] for row in table(runs.folder)}
    assert names == {"'=1+1", "-2", "'@x", "\ufffd[2Jgone"}
    assert main(["leaderboard", str(runs.folder)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_still_listed(folder, capsys):
    (folder / INDEX).mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["leaderboard", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "good" in out and "cannot write" in err


def test_a_folder_without_runs_is_an_empty_list_and_no_folder_an_error(tmp_path, capsys):
    assert board(capsys, tmp_path) == []
    assert main(["leaderboard", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("", f"vitlab: no run in {tmp_path}\n")
    with pytest.raises(RunError, match="no folder of runs"):
        write_index(tmp_path / "nothing")

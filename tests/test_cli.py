"""The command line: every verb, every complaint, and nothing printed where it does not belong."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vitlab
from vitlab import cli
from vitlab.cli import main
from vitlab.cli.arguments import JSON
from vitlab.cli.printing import number, print_rows
from vitlab.cli.understand import epoch
from vitlab.config import Config, fields_of
from vitlab.recipes import ALL_RECIPES, EXPERIMENTS, RECIPES, recipe
from vitlab.run import Run

ROOT = Path(__file__).parents[1]

QUICK = ["--train.epochs", "1", "--optim.warmup-epochs", "0", "--model.depth=1", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    """Path of a finished run on digits."""
    folder = str(tmp_path_factory.mktemp("runs"))
    assert main(["train", "digits", *QUICK, "--out", folder, "--name", "run", "--quiet"]) == 0
    return f"{folder}/run"


def complaint(capsys, *words: str) -> str:
    """What a refused command says; it exits with 2 and prints no result."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vitlab: ")
    return err


def report(capsys, *words: str):
    """The JSON that a command prints."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["trian", "digits"], "did you mean train?"),
        (["train", "digitz"], "did you mean digits?"),
        (["show", "vit-tniy"], "did you mean vit-tiny?"),
        (["train", "digits", "--model.nrom", "rms"], "did you mean --model.norm?"),
        (["train", "digits", "--epoch", "5"], "did you mean --train.epochs?"),
        (["train", "--epoch", "5", "digits"], "did you mean --train.epochs?"),
        (["train", "digits", "--dveice=cpu"], "did you mean --device?"),
        (["evaluate", "run", "--spilt", "test"], "did you mean --split?"),
        (["recipes", "--jsn"], "did you mean --json?"),
        (["train", "digits", "-n", "first"], "unknown option -n: did you mean --name?"),
        (["recipes", "--zz"], "unknown option --zz: choose from --experiments, --json"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_right_one(capsys, words, suggestion):
    assert suggestion in complaint(capsys, *words)


@pytest.mark.parametrize(
    "words", [["--json"], ["--quiet"], [""], [" "], ["-"], ["--"], ["-1"], ["--vers"], ["--="]]
)
def test_a_command_without_a_verb_is_told_where_the_verbs_are(capsys, words):
    assert "is no verb: `vitlab --help` lists them" in complaint(capsys, *words)


@pytest.mark.parametrize(
    "words", [["--json", "recipes"], ["--train.epochs", "5", "train", "digits"], ["--", "train"]]
)
def test_what_stands_before_the_verb_is_told_to_stand_behind_it(capsys, words):
    assert f"{words[0]} stands before the verb" in complaint(capsys, *words)


@pytest.mark.parametrize("name", ["TRAIN", " train", "trian", "train\n\x1b[31m"])
def test_an_unknown_verb_suggests_the_likely_one_and_obeys_no_escape_sequence(capsys, name):
    told = complaint(capsys, name)
    assert "did you mean train?" in told and "\x1b" not in told and told.count("\n") == 1


def test_an_option_that_nothing_is_like_does_not_list_every_field(capsys):
    told = complaint(capsys, "train", "digits", "-x")
    assert "`vitlab train --help` lists" in told and "optim.lr" not in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train"], "train needs a recipe (digits,"),
        (["show"], "RECIPE"),
        (["evaluate"], "required: RUN; `vitlab evaluate --help` describes"),
        (["explain"], "required: RUN;"),
        (["show", "runs/gone"], "there is no run runs/gone"),
        (["evaluate", "run", "--split", "all"], "'validation', 'test'"),
        (["recipes", "digits"], "unexpected argument 'digits'"),
        (["train", "digits", "--model.norm"], "--model.norm"),
        (["train", "digits", "--resume", "run"], "--resume goes on with the run as it is"),
        (["train", "--resume", "run", "--train.epochs", "9"], "--resume goes on"),
    ],
)
def test_an_incomplete_command_is_refused(capsys, words, told):
    assert told in complaint(capsys, *words)


def test_all_that_is_wrong_with_a_command_is_told_at_once(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = ["--learning-rate", "1", "--model.nrom", "rms", "--train.epochs", "x", "--optim.lr=-1"]
    told = complaint(capsys, "train", "digits", *wrong)
    assert "4 problems" in told
    for name in ("learning-rate", "model.nrom", "train.epochs='x'", "optim.lr=-1 "):
        assert name in told
    assert list(tmp_path.iterdir()) == []


def test_names_are_never_guessed_from_their_beginning(capsys):
    assert "unknown option --train.epoch:" in complaint(
        capsys, "train", "digits", "--train.epoch", "1"
    )


@pytest.mark.parametrize("option", ["--model.norm-place", "--model.norm_place"])
def test_dashes_and_underscores_are_one(capsys, option):
    assert report(capsys, "show", "digits", "digits", option, "post") == {
        "model.norm_place": ["post", "pre"]
    }
    assert cli.parse(["train", "digits", "--data_root=a_b"]).data_root == "a_b"


def test_every_field_of_a_config_is_an_option():
    for name in ALL_RECIPES:
        config = recipe(name)
        words = [f"--{path}=x" for path in fields_of(config)]
        assert set(cli.parse(["train", name, *words]).overrides) == set(fields_of(config))


def test_help_explains_every_verb_and_field(capsys):
    assert main([]) == 0
    overview = capsys.readouterr().out
    assert all(verb in overview for verb in cli.VERBS)
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    words = capsys.readouterr().out
    assert all(f"--{name} " in words for name in fields_of(Config()))
    assert "layer|rms" in words and "2 to 33 % of the area" in " ".join(words.split())
    assert "SUPPRESS" not in words


@pytest.mark.parametrize("words", [["help"], ["--help"], ["-h"]])
def test_help_is_of_the_verb_behind_it(capsys, words):
    for verb, usage in ((["show"], "usage: vitlab show "), ([], "usage: vitlab VERB")):
        with pytest.raises(SystemExit) as stop:
            main([*words, *verb])
        assert stop.value.code == 0
        assert capsys.readouterr().out.startswith(usage)
    assert "did you mean show?" in complaint(capsys, *words, "shwo")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_help_of_a_verb_has_examples_that_run_and_fits_a_terminal(capsys, verb):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: vitlab {verb} ")
    assert max(map(len, lines)) <= 100
    examples = lines[lines.index("examples:") + 1 :]
    assert len(examples) == 2
    for example in examples:
        args = cli.parse(shlex.split(example)[1:])
        assert args.verb == verb
        if args.overrides and vars(args).get("recipe") in ALL_RECIPES:
            recipe(args.recipe).override(args.overrides)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("vitlab ex", {"explain", "explore", "export"}),
        ("vitlab show resnet18-", {name for name in ALL_RECIPES if name.startswith("resnet18-")}),
        ("vitlab train --model.norm ", {"layer", "rms"}),
    ],
)
def test_a_shell_completes_verbs_recipes_and_values(line, offered, tmp_path):
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE": "1"}
    answer = {"_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "offered")}
    command = [sys.executable, "-m", "vitlab"]
    subprocess.run(command, env={**os.environ, **asked, **answer}, check=True)
    assert {word.strip() for word in (tmp_path / "offered").read_text().split("\v")} == offered


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def documented() -> list[str]:
    """Every vitlab command of the README and the docs."""
    lines = [line.strip() for page in PAGES for line in page.read_text().splitlines()]
    return sorted({line.partition("  ")[0] for line in lines if line.startswith("vitlab ")})


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_is_understood(line):
    verb, *words = shlex.split(line)[1:]
    if "--help" in words:
        assert verb in cli.VERBS
        return
    args = cli.parse([verb, *words])
    if args.overrides and vars(args).get("recipe"):
        recipe(args.recipe).override(args.overrides)


@pytest.mark.parametrize("word", ["--version", "-V", "-v"])
def test_the_version_is_printed(capsys, word):
    with pytest.raises(SystemExit) as stop:
        main([word])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"vitlab {vitlab.__version__}\n"


def test_recipes_are_listed_with_size_and_idea(capsys):
    rows = {row["recipe"]: row for row in report(capsys, "recipes")}
    assert set(rows) == set(RECIPES)
    unmeasured = {row["recipe"] for row in report(capsys, "recipes", "--experiments")}
    assert unmeasured == set(EXPERIMENTS)
    assert rows["vit-tiny"]["parameters"] == 5_356_234
    assert rows["vit-tiny"]["epochs"] == 100
    assert "DeiT-Tiny" in rows["vit-tiny"]["idea"]


def test_data_sets_are_listed_with_the_place_they_were_found(capsys, cifar10):
    rows = {row["dataset"]: row for row in report(capsys, "datasets", "--data-root", str(cifar10))}
    assert rows["cifar10"]["where"] == str(cifar10 / "cifar10")
    assert rows["cifar100"]["where"] == "fetched when first used"
    assert rows["digits"]["where"] == "comes with scikit-learn"
    assert (rows["cifar10"]["classes"], rows["cifar10"]["shape"]) == (10, "3 x 32 x 32")


def test_show_prints_config_parts_and_cost(capsys):
    shown = report(capsys, "show", "vit-tiny", "--model.norm", "rms")
    assert type(shown["parameters"]) is int
    assert shown["parameters"] == sum(layer["parameters"] for layer in shown["layers"])
    assert shown["config"]["model"]["norm"] == "rms"
    assert shown["config"]["data"]["image_size"] == [32, 32]
    assert set(shown["parts"]) == {"patch", "position", "norm", "norm_place", "ffn", "pool"}


def test_show_prints_a_table_that_grep_can_read(capsys):
    assert main(["show", "vit-tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    total = next(line for line in lines if line.startswith("total"))
    assert "5,356,234" in total
    assert any(line.split() == ["model.pool", "cls"] for line in lines)
    assert any("FLOPs are twice as many" in line for line in lines)
    assert max(map(len, lines)) <= 100
    assert not any("\x1b" in line for line in lines)


def test_show_tells_two_configs_apart(capsys, trained):
    assert report(capsys, "show", "resnet18", "resnet18") == {}
    difference = report(capsys, "show", "resnet18", "resnet18-sgd")
    assert difference["optim.schedule"] == ["cosine", "plateau"]
    assert set(difference) == {"optim.schedule", "optim.nesterov", "train.epochs"}
    assert report(capsys, "show", trained, "digits")["model.depth"] == [1, 4]
    assert main(["show", "cnn6", "vit-d6-w256"]) == 0
    assert any(
        line.split() == ["model.depth", "-", "6"] for line in capsys.readouterr().out.splitlines()
    )


def test_train_prints_the_path_of_the_run_and_nothing_else(capsys, tmp_path):
    assert main(["train", "digits", *QUICK, "--out", str(tmp_path), "--name", "a"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'a'}\n"
    assert "1,295 training" in err
    assert Run(tmp_path / "a").finished


def test_a_finished_run_is_resumed_to_itself(capsys, trained):
    resumed = report(capsys, "train", "--resume", trained, "--quiet")
    assert resumed["run"] == trained
    assert resumed["step"] == Run(trained).finished["step"]


def test_one_batch_is_learned(capsys):
    outcome = report(capsys, "train", "digits", "--overfit-one-batch", "--quiet", "--device", "cpu")
    assert outcome["learned"] is True


def test_evaluate_prints_what_it_stores(capsys, trained):
    result = report(capsys, "evaluate", trained, "--device", "cpu")
    assert result["accuracy"] == Run(trained).results["validation"]["accuracy"]
    assert main(["evaluate", trained, "--device", "cpu"]) == 0
    first, *printed = capsys.readouterr().out.splitlines()
    low, high = (f"{100 * end:.2f} %" for end in result["accuracy_interval"])
    assert first == (
        f"run: accuracy {100 * result['accuracy']:.2f} % (95 % interval over images {low} to "
        f"{high}) on 143 validation images of digits"
    )
    assert any(line.split() == ["accuracy", f"{result['accuracy']:.4f}"] for line in printed)
    head = printed[printed.index("first epoch at which at least this accuracy was measured") + 1]
    assert "on clean training images" in head and "on validation images" in head
    assert f"pictures in {trained}/figures" in printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["evaluate", "--robustness"], ("corruptions", "attack of 10 steps")),
        (
            ["explain", "--count", "1", "--methods", "grad-cam"],
            ("grad-cam: images", "random weights: maps", "pictures"),
        ),
        (["features"], ("layers", "maps")),
    ],
    ids=lambda words: words[0],
)
def test_what_takes_minutes_shows_on_a_terminal_how_far_it_is(
    capsys, monkeypatch, trained, words, told, tmp_path
):
    run = shutil.copytree(trained, tmp_path / "run")
    command = [words[0], str(run), *words[1:], "--device", "cpu"]
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*command, "--json"]) == 0
    output = capsys.readouterr()
    json.loads(output.out)
    assert all(words in output.err for words in told), output.err


def test_a_missing_run_is_an_error_without_traceback(capsys, tmp_path):
    assert main(["evaluate", str(tmp_path / "none")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("vitlab: ") and "is not a run" in err


@pytest.mark.parametrize(
    "words",
    [
        ["train", "digits", *QUICK, "--quiet"],
        ["evaluate", "cpu"],
        ["leaderboard"],
        ["reproduce", "digits", "--minutes", "0"],
        ["explore", "digits", "--out", "{file}/explored", "--device", "cpu"],
    ],
    ids=lambda words: words[0],
)
def test_a_folder_of_runs_that_is_a_file_is_one_clear_error(words, capsys, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("VITLAB_RUNS", str(file))
    assert main([word.format(file=file) for word in words]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("vitlab: ") and str(file) in told


def test_an_interrupt_exits_with_130(monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.VERBS, "recipes", cli.Verb(interrupted))
    assert main(["recipes"]) == 130


def test_a_reader_that_leaves_early_is_no_error():
    show = f"{sys.executable} -m vitlab show resnet18 cnn6 --json"
    script = f"{show} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_a_stream_cannot_show_is_escaped(monkeypatch, encoding):
    names = ["K\u00e4fer", "\u8702", "\U0001f41d", "\udcff.png"]

    def naming(args):
        print_rows(("name",), [(name,) for name in names], args)
        for name in names:
            print(name)
            print(name, file=sys.stderr)
        raise vitlab.errors.DataError(f"no {names[1]}")

    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setitem(cli.VERBS, "recipes", cli.Verb(naming, (JSON,)))
    assert main(["recipes"]) == main(["recipes", "--json"]) == 1
    for stream in streams:
        stream.flush()
        text = stream.buffer.getvalue().decode(encoding)
        shown = "\u8702" if encoding == "utf-8" else r"\u8702"
        assert shown in text and r"\udcff.png" in text
        assert ("K\u00e4fer" in text) == (encoding != "ascii")
    printed = streams[0].buffer.getvalue().decode(encoding)
    told, _ = json.JSONDecoder().raw_decode(printed[printed.index("[") :])
    assert [row["name"] for row in told] == names


def test_tables_show_no_negative_zero_and_no_python_none():
    assert (number(-1e-9), number(-0.1), number(None)) == ("0.0000", "-0.1000", "-")
    assert (epoch(27.6666667, "validation"), epoch(83.0, "validation")) == ("27.67", "83")


def test_warnings_are_told_in_one_line_and_once(capsys, monkeypatch):
    import warnings

    def careless(args):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for _ in range(2):  # as where a data set is opened twice
                warnings.warn("the disk is nearly full", stacklevel=1)
        return 0

    monkeypatch.setitem(cli.VERBS, "recipes", cli.Verb(careless))
    assert main(["recipes"]) == 0
    assert capsys.readouterr().err == "vitlab: the disk is nearly full\n"


def test_public_names_stay_functions_after_their_modules_are_loaded():
    code = (
        "import vitlab, vitlab.training.fit, vitlab.inference\n"
        "from vitlab import train\n"
        "assert vitlab.train is train and callable(train) and callable(vitlab.predict)\n"
        "assert vitlab.Config().train.epochs == vitlab.recipe('vit-tiny').train.epochs\n"
        "assert vitlab.Run and vitlab.build_model\n"
        "try: vitlab.tarin\n"
        "except AttributeError as error: assert 'tarin' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})

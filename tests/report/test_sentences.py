"""What pages say of unlike runs is what they hold: CIFAR-10, own images, fine-tuned, chosen."""

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import vitlab
from vitlab.cli import parse
from vitlab.cli.study import asked_study
from vitlab.compare import RunFacts, compare
from vitlab.compare.comparison import numbers
from vitlab.config import Config
from vitlab.data import open_dataset
from vitlab.evaluate import evaluate
from vitlab.export import hub
from vitlab.figures.style import prefixed
from vitlab.files import sha256
from vitlab.formatting import between, minutes, p_value, percent, points, signed
from vitlab.metrics import THRESHOLDS, summarize
from vitlab.pretrained import shipped
from vitlab.recipes import command, recipe
from vitlab.report import report
from vitlab.report import results as of_results
from vitlab.report import runs as of_runs
from vitlab.report import study as of_study
from vitlab.report.document import (
    Block,
    Missing,
    Name,
    Number,
    Panel,
    Report,
    Sentence,
    Table,
    Tile,
    Words,
    millions,
    tenth,
    whole,
)
from vitlab.report.study import Study
from vitlab.report.subject import Subject, resolved
from vitlab.run import CONFIG, METRICS, Run
from vitlab.stats import Sample
from vitlab.study.page import markdown
from vitlab.training import SCALED, scale_to_images

RUNS = ("cifar", "own", "tuned", "chosen")

OWN = {
    "data.dataset": "shapes", "data.image_size": "32,32", "model.patch_size": 8,
    "model.width": 16, "model.depth": 1, "train.epochs": 1, "train.batch_size": 32,
}  # fmt: skip

TUNED = {
    "data.dataset": "shapes", "data.image_size": "32,32", "data.validation_fraction": 0.25,
    "train.weights": "cpu", "train.epochs": 2, "train.seed": 3, "optim.lr": 1e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(runs, tmp_path_factory) -> Path:
    """A folder with 60 images in folders of three classes, and a run of each kind."""
    folder = tmp_path_factory.mktemp("place")
    random = np.random.default_rng(0)
    for name, draw in (("disc", "ellipse"), ("box", "rectangle"), ("line", "line")):
        (folder / "shapes" / name).mkdir(parents=True)
        for number in range(20):
            image = Image.fromarray(random.integers(150, 256, (24, 32, 3), dtype=np.uint8))
            x, y = random.integers(0, 16), random.integers(0, 12)
            getattr(ImageDraw.Draw(image), draw)((x, y, x + 12, y + 10), fill="black")
            image.save(folder / "shapes" / name / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(runs["cpu-plain"].path, "runs/cifar")
        for name, base, changes in (("own", "digits", OWN), ("tuned", "cpu", TUNED)):
            config = recipe(base).override(changes)
            vitlab.train(config, out="runs", name=name, device="cpu", quiet=True)
            evaluate(f"runs/{name}", pictures=False)
        evaluate("runs/tuned", "test", pictures=False)
        quick = {"minutes": 0.01, "backbones": [], "device": "cpu", "quiet": True}
        vitlab.fit("shapes", name="chosen", labels_per_class=50, **quick)
    return folder


@pytest.fixture
def here(place, monkeypatch, undrawn) -> None:
    """The working directory is that folder, so that commands name runs as one types them."""
    monkeypatch.chdir(place)


def subject(name: str) -> Subject:
    return Subject(Run(Path("runs") / name), name)


def page_of(*names: str) -> Report:
    return of_runs.report([subject(name) for name in names])


def blocks(page: Report) -> Iterator[Any]:
    yield from (page.question, page.about, page.cover)
    for one in page.panels:
        yield from (one.headline, *one.shown, *one.more)


def panel(page: Report, key: str) -> Panel:
    return next(one for one in page.panels if one.key == key)


def pieces(thing: Any) -> Iterator[Any]:
    """Numbers, names and words of a sentence, a block or a cell, however deep."""
    if isinstance(thing, Number | Name | str):
        yield thing
    elif isinstance(thing, Sentence):
        yield from thing.pieces
    elif isinstance(thing, Missing):
        yield from (thing.what, thing.command)
    elif isinstance(thing, Block) and not isinstance(thing, Words):
        kept = (Sentence, Table, Tile, tuple, list)
        yield from (x for v in vars(thing).values() if isinstance(v, kept) for x in pieces(v))
    elif isinstance(thing, Tile):
        yield from (thing.number, *thing.more.pieces)
    elif isinstance(thing, list | tuple) and not hasattr(thing, "_fields"):
        yield from (x for one in thing for x in pieces(one))


def words_of(thing: Any) -> str:
    return "".join(map(str, pieces(thing)))


# Sources


def resolve(folder: Path, file: str, field: str) -> bool:
    """Whether a field is in a file of a folder."""
    if not file.endswith(".json"):
        return (
            bool(list(folder.glob(field) if file.endswith("/") else folder.glob(file)))
            or (folder / file).exists()
        )
    tree = json.loads((folder / file).read_text())
    for part in field.split("."):
        tree = tree[0] if isinstance(tree, list) else tree
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def fields_of(source) -> list[tuple[str, str]]:
    """The files and fields that a source names, of which there may be several."""
    found, file = [], source.file
    for part in source.field.split(", "):
        other, _, field = part.rpartition(" ")
        file = other if other.endswith(".json") else file
        found.append((file, field if other.endswith(".json") else part))
    return found


@pytest.mark.parametrize("name", ["cpu-plain", "cpu-cnn"])
def test_every_source_of_a_run_is_there(name, runs, undrawn):
    page = of_runs.report([Subject(runs[name], name)])
    sources = {
        source
        for panel in page.panels
        for part in (panel, *panel.shown, *panel.more)
        for source in getattr(part, "sources", ())
    }
    own = [source for source in sources if source.run == name]
    assert len(own) > 30
    for source in own:
        for file, field in fields_of(source):
            if field not in ("(all)", "shapes", "*.png", "all"):
                assert resolve(runs[name].path, file, field), source


def test_every_source_of_a_study_is_there(study, undrawn):
    page = of_study.report(Study(study))
    sources = {source for panel in page.panels for source in panel.sources}
    assert len(sources) > 20
    for source in sources:
        for file, field in fields_of(source):
            if field != "(all)":
                assert resolve(study, file, field), source


# Numbers


FORMS = (
    str, percent, points, signed, whole, millions, tenth, minutes, "{:g}".format, "{:.3f}".format,
    "{:+.3f}".format, "{:.4f}".format, "{:.2f}".format, "{:.1f}".format, "{:,}".format,
    "{:.0%}".format, lambda x: f"{x / 60:.1f}", lambda x: f"{x / 1e6:.1f}",
    lambda x: f"{x / 1e9:.2f}", prefixed, lambda x: f"{100 * x:g} %", lambda x: f"{100 * x:.1f}",
)  # fmt: skip


def figures(words: str) -> set[str]:
    """The figures in words: 1,295 and +0.31."""
    return set(re.findall(r"(?<![\w.])[+-]?\d+(?:,\d{3}\b)*(?:\.\d+)?(?:e[+-]?\d+)?", words))


def leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from (key, *leaves(value))
    elif isinstance(tree, list | tuple):
        yield len(tree)
        for value in tree:
            yield from leaves(value)
    elif tree is not None:
        yield tree


def written(values: list[Any]) -> set[str]:
    """Every figure that some values are written as."""
    found: set[str] = set()
    for value in dict.fromkeys(values):
        if isinstance(value, bool | str):
            found |= figures(str(value))
        else:
            found |= {one for form in FORMS for one in figures(form(value))}
    return found


def together(values: list[Any]) -> list[float]:
    """Sums, differences, products and ratios of values."""
    numbers = [x for x in values if isinstance(x, int | float) and not isinstance(x, bool)]
    numbers = list(dict.fromkeys(numbers))[:150]
    pairs = [(a, b) for a in numbers for b in numbers]
    found = [sum(numbers), *(n * a for a in set(numbers) for n in range(2, 10))]
    found += [x for a, b in pairs for x in (a + b, a - b, abs(a - b), a * b)]
    return found + [a / b for a, b in pairs if b] + [1 / a for a in numbers if a]


def stored(folder: Path, file: str, field: str) -> Any:
    """The values that a source names, or None for what is no JSON."""
    path = folder / file
    if field == "(all)":
        tree = json.loads(path.read_text())
        return [tree, Run(folder).config.sha256 if file == CONFIG else sha256(path)]
    if file == METRICS and field == "accuracy":  # which thresholds were reached
        return [list(THRESHOLDS), [x["epoch"] for x in Run(folder).metrics]]
    if file.endswith(".jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        split, _, name = field.rpartition(" ")
        return [x[name] for x in lines if name in x and x["split"] == (split or x["split"])]
    if file.endswith(".npz") or field == "(missing)":
        return None
    tree = json.loads(path.read_text())
    for part in field.split(".") if field != "all" else ():
        many = isinstance(tree, list)
        tree = [one.get(part) for one in tree] if many else tree[part]
        if part == "confusion":  # and the number of mistakes
            return [tree, sum(map(sum, tree)) - sum(row[k] for k, row in enumerate(tree))]
        if many:
            tree = [x for one in tree for x in (one if isinstance(one, list) else [one])]
    return tree


def unfounded(page: Report, folders: dict[str, Path]) -> list[Any]:
    """Numbers of a page whose figures are not those of their sources."""
    wrong = []
    numbers = [x for thing in blocks(page) for x in pieces(thing) if isinstance(x, Number)]
    assert len(numbers) > 40
    for number in numbers:
        values: list[Any] = list(range(1, 1 + len(number.sources)))
        values += [95] if "95 %" in number.text else []
        known = True
        for source in number.sources:
            if source.run not in folders:
                known = False
                continue
            for file, field in fields_of(source):
                found = stored(folders[source.run], file, field)
                known &= found is not None
                values += leaves(found)
        if not number.sources:
            wrong += [number] if figures(number.text) else []
        elif known and (rest := figures(number.text) - written(values)):
            rest -= {"0.0001"} if number.text == p_value(0.0) else set()
            hashes = [value[:16] for value in values if isinstance(value, str) and len(value) > 39]
            rest -= figures(" ".join([*hashes, *(value[:12] for value in hashes)]))
            rest -= written(together(values))
            if rest:
                wrong.append((number, rest))
    return wrong


@pytest.mark.parametrize("name", RUNS)
def test_every_number_of_a_report_is_the_stored_one(name, place, here):
    assert unfounded(page_of(name), {name: place / "runs" / name}) == []


def test_every_number_of_a_report_of_two_and_of_a_study_is_the_stored_one(place, study, here):
    names = {name: place / "runs" / name for name in ("own", "tuned")}
    assert unfounded(page_of(*names), names) == []
    assert unfounded(of_study.report(Study(study)), {"cpu-small": study}) == []


@pytest.mark.parametrize("name", [*RUNS, "study"])
def test_no_figure_is_part_of_the_words(name, study, here):
    page = of_study.report(Study(study)) if name == "study" else page_of(name)
    for thing in blocks(page):
        for piece in pieces(thing):
            if isinstance(piece, str) and not piece.lstrip().startswith("vitlab "):
                words = re.sub(r"95 %|F1|CIFAR-10|\(Krizhevsky, 2009\)", "", piece)
                assert not figures(words), piece


@pytest.mark.parametrize("name", RUNS)
def test_every_number_of_a_model_card_is_the_stored_one(name, here):
    model = vitlab.load(f"runs/{name}")
    _, _, body = hub.readme(model).partition("\n---\n")
    known = [model.card, hub.published(model).to_dict(), len(model.class_names)]
    assert figures(body) - written(list(leaves(known))) <= {"95"}


def test_every_number_of_a_comparison_is_in_its_record(here):
    found = compare(["runs/own", "runs/tuned"])
    record = written(list(leaves({k: v for k, v in found.items() if k != "findings"})))
    assert len(found["findings"]) >= 2
    for sentence in found["findings"]:
        assert figures(sentence) - record <= {"95"}, sentence


def test_every_number_of_a_study_page_is_in_its_summary(study):
    summary = json.loads((study / "summary.json").read_text())
    values = list(leaves(summary))
    page = markdown(summary).partition("## Stability")[0]
    known = written(values) | written([1e3 * summary["noise"]["detectable"]])
    small = {str(n) for n in range(20)}
    prefixed = {x for x in figures(page) if re.search(rf"{re.escape(x)} [kMGTP]", page)}
    assert figures(page) - known - prefixed <= {"95", "0.5", "0.0001"} | small


# Commands


def commands(page: Report) -> set[str]:
    found = set()
    for thing in blocks(page):
        for piece in pieces(thing):
            found |= {one for one in str(piece).split("; ") if one.startswith("vitlab ")}
    return found


def whole_config(config: Config) -> Config:
    """A config with what its images say."""
    if config.data.dataset == "shapes":
        return dataclasses.replace(config, data=open_dataset(config.data).config)
    return dataclasses.replace(config, data=resolved(config.data))


def made_by(words: str) -> Config:
    """The config that a command trains, or reads; of a study that of its baseline."""
    args = parse(shlex.split(words)[1:])
    if args.verb == "study":
        _, plan = asked_study(args)
        return Config.from_dict(plan.arm_config(plan.arms[0]).to_dict())
    if args.verb == "explore":
        return Config().override({**args.overrides, "data.dataset": args.dataset})
    if args.verb == "train" and not args.resume:
        return recipe(args.recipe).override(args.overrides)
    return Run(args.resume if args.verb == "train" else args.run).config


@pytest.fixture
def untimed(monkeypatch) -> None:
    """Studies are planned without timing their arms, and without reading CIFAR-10."""
    from vitlab.study import prepare

    monkeypatch.setattr(prepare, "timed", lambda plan, **_: plan)
    monkeypatch.setattr(prepare, "with_cost", lambda arm, plan, *_: arm)


@pytest.mark.parametrize("name", RUNS)
def test_every_command_of_a_report_makes_the_config_of_the_run(name, here, untimed):
    config = Run(f"runs/{name}").config
    found = commands(page_of(name))
    assert {one.split()[1] for one in found} >= {"train", "study", "explore"}
    for words in found:
        made = whole_config(made_by(words))
        if words.startswith("vitlab explore"):
            assert made.data == config.data, words
        else:
            made = made.override({"train.seed": config.train.seed})
            assert made.sha256 == config.sha256, words


def test_a_command_of_few_images_is_not_scaled_to_them(here):
    config = whole_config(recipe("cpu").override({**TUNED, "train.epochs": 54}))
    args = parse(shlex.split(command(config))[1:])
    scaled = [name for name in SCALED if name not in args.overrides]
    assert scale_to_images(recipe("cpu").override(args.overrides), 36, scaled) == recipe(
        "cpu"
    ).override(args.overrides)


@pytest.mark.parametrize("name", RUNS)
def test_the_commands_of_a_model_card_make_its_config_and_its_shape(name, here):
    model = vitlab.load(f"runs/{name}")
    card = hub.readme(model)
    (made,) = re.findall(r"\| command \| `(.*)` \|", card)
    assert made_by(made).sha256 == hub.published(model).sha256
    (further,) = re.findall(r"`(vitlab train .* --from hf:NAME.*?)`", card)
    shape = whole_config(made_by(further.replace("hf:NAME", "hf:somebody/model")))
    assert shape.model == model.run.config.model
    assert further.startswith(f"vitlab train {model.run.config.recipe} ")


def test_the_commands_of_a_study_are_not_refused(study, here):
    summary = json.loads((study / "summary.json").read_text())
    for place, one in enumerate(summary["comparisons"]):
        one["verdict"] = "better"
        summary["arms"][place + 1]["axis"] = f"axis {place}"
    summary["trials"]["pending"] = 1
    (study / "summary.json").write_text(json.dumps(summary))
    page = of_study.report(Study(study))
    found = {one.replace(f"…/{study.name}", str(study)) for one in commands(page)}
    assert any("--then best" in one for one in found)
    (made,) = {one for one in found if str(study) not in one}
    for words in found - {made}:
        folder, _ = asked_study(parse(shlex.split(words)[1:]))
        assert folder == study


def test_a_run_with_the_name_of_a_shipped_model_is_not_taken_for_it(place, tmp_path, undrawn):
    folder = Path(shutil.copytree(place / "runs" / "own", tmp_path / "cpu"))
    assert Subject(Run(folder), "cpu").command == "…/cpu"
    assert Subject(shipped("cpu"), "cpu").command == "cpu"


def test_the_command_of_a_study_plans_it_anew(study, tmp_path, here, untimed):
    plan = json.loads((study / "study.json").read_text())
    made = of_study.made_by(Study(study))
    assert made
    _, found = asked_study(parse([*shlex.split(made)[1:], "--out", str(tmp_path / "anew")]))
    assert (found.name, found.recipe, found.seeds) == (plan["name"], plan["recipe"], plan["seeds"])
    assert found.overrides == plan["overrides"] and found.axes == plan["axes"]
    assert [arm.changes for arm in found.arms] == [arm["changes"] for arm in plan["arms"]]


@pytest.mark.parametrize(
    "change",
    [{"overrides": {"train.epochs": 7}}, {"seeds": [3, 4]}, {"name": "mine", "question": "Why?"}],
)
def test_a_study_that_no_command_line_plans_has_none(study, change):
    plan = json.loads((study / "study.json").read_text()) | change
    (study / "study.json").write_text(json.dumps(plan))
    assert of_study.made_by(Study(study)) is None


# What the run does not hold


def test_only_what_began_with_random_weights_was_trained_from_scratch(here):
    for name, scratch in (("cifar", True), ("own", True), ("tuned", False)):
        card = hub.readme(vitlab.load(f"runs/{name}"))
        assert ("from scratch" in card) is scratch
        assert ("starting from the weights `cpu`" in card) is not scratch
        words = " ".join(map(words_of, blocks(page_of(name))))
        assert ("tuned started from the weights of cpu: " in words) is not scratch


def test_a_card_names_no_folder_that_a_training_started_from(place, here):
    model = vitlab.load("runs/tuned")
    model.run.config = model.run.config.override({"train.weights": "/home/jane/runs/first"})
    model.card = {**model.card, "weights": "first"}
    assert "jane" not in hub.readme(model)
    assert "jane" not in json.dumps(hub.published(model).to_dict())


@pytest.mark.parametrize("name", ["own", "tuned"])
def test_a_changed_recipe_is_told_by_its_changes_and_not_by_its_idea(name, here):
    about = str(page_of(name).about)
    idea = recipe.__globals__["ALL_RECIPES"][Run(f"runs/{name}").config.recipe].__doc__ or ""
    assert idea.split("\n")[0] not in about
    for field, value in (OWN if name == "own" else TUNED).items():
        if field != "train.seed":
            assert f"{field} {value}" in about


def test_what_is_known_of_cifar10_is_said_of_its_test_images_only(here):
    for name, known in (("cifar", True), ("own", False), ("tuned", False)):
        words = " ".join(map(words_of, blocks(page_of(name))))
        assert ("near-duplicate among the training images" in words) is known
        assert ("published" in words) is known
    assert "16.67 points" in " ".join(map(words_of, blocks(page_of("own"))))  # of 6 images


@pytest.fixture
def tested(write_run, tmp_path, undrawn):
    """A function: the report of a changed recipe's run that is right on so many of 1,000 images."""

    def make(base: str, changes: dict[str, Any], right: int, **numbers: Any) -> Report:
        config = recipe(base).override(changes)
        config = dataclasses.replace(config, data=resolved(config.data))
        labels = np.arange(1000) % 10
        answers = np.where(np.arange(1000) < right, labels, (labels + 1) % 10)
        run = write_run(tmp_path / "made", config, right / 1000, numbers=numbers)
        step = run.finished["step"]
        summary = summarize(4.0 * np.eye(10)[answers], labels, list("0123456789"))
        facts = {"step": step, "checkpoint_sha256": "c", "index_sha256": "i"}
        run.write_results({"test": {**facts, **summary}})
        return of_runs.report([Subject(run, "made")])

    return make


@pytest.mark.parametrize(
    ("changes", "said"),
    [({}, True), ({"train.seed": 4}, True), ({"train.epochs": 7}, False),
     ({"train.weights": "cpu"}, False), ({"data.dataset": "cifar100"}, False)],
)  # fmt: skip
def test_a_published_figure_stands_beside_the_config_that_it_was_published_of(
    tested, changes, said
):
    words = str(panel(tested("vit-tiny", changes, 800), "result"))
    assert ("The source of " in words) is said


def test_the_command_of_a_guess_has_the_overrides(tested):
    changes = {"augment.crop_padding": 2, "train.batch_size": 96}
    page = tested("cpu-plain", changes, 800, train_clean={"loss": 0.1, "accuracy": 0.83})
    idea = words_of(panel(page, "next").shown[0])
    assert "stronger augmentation" in idea
    assert "--augment.crop_padding 2 --train.batch_size 96" in idea


def test_a_gap_within_the_interval_suggests_nothing(tested):
    page = tested("cpu-plain", {}, 800, train_clean={"loss": 0.1, "accuracy": 0.81})
    assert "stronger augmentation" not in words_of(panel(page, "next").shown)
    assert "suggest" not in str(panel(page, "next").headline)


def test_a_temperature_is_what_it_was_measured_to_do(here):
    words = words_of(panel(page_of("tuned"), "confidence").more)
    test = RunFacts(Run("runs/tuned"), "test").result
    assert test and test["temperature"] is not None
    for value in (test["calibration_error"], test["scaled_calibration_error"]):
        assert f"{100 * value:.2f} %" in words
    assert f"temperature {test['temperature']:.3f}" in words and "on 12 validation" in words


def test_a_gpu_has_no_processor_time_and_an_early_end_is_said(write_run, tmp_path, undrawn):
    config = recipe("vit-tiny").override({"train.epochs": 4})
    config = dataclasses.replace(config, data=resolved(config.data))
    numbers = {"epochs": 2.0, "stopped": {"reason": "it was good enough", "planned_epochs": 9}}
    origin = {"device_type": "cuda"}
    run = write_run(tmp_path / "gpu", config, 0.5, numbers=numbers, origin=origin)
    words = " ".join(map(words_of, blocks(of_runs.report([Subject(run, "gpu")]))))
    assert "processor time" not in words and "its training took 8.3 min." in words
    assert "was to train for 9 epochs and stopped earlier: it was good enough" in words


def test_one_is_no_plural(here):
    words = " ".join(map(words_of, blocks(page_of("own"))))
    assert "after 1 epoch: " in words and "in 1 block of width 16" in words


def test_runs_of_other_images_have_their_data_each(here):
    keys = {one.key: words_of(one.shown) for one in page_of("cifar", "own").panels}
    assert "10 classes" in keys["data-1"] and "3 classes" in keys["data-2"]
    assert "data" in {one.key for one in page_of("own").panels}


def test_runs_of_one_config_are_not_called_recipes(place, tmp_path, undrawn):
    folder = Path(shutil.copytree(place / "runs" / "own", tmp_path / "again"))
    tree = json.loads((folder / "config.json").read_text())
    tree["train"]["seed"] = 1
    (folder / "config.json").write_text(json.dumps(tree))
    pair = [Subject(Run(path), path.name) for path in (place / "runs" / "own", folder)]
    words = words_of(panel(of_runs.report(pair), "limits").shown)
    assert "2 trained models of 1 config (seed 0, seed 1)" in words


def test_a_search_was_not_planned_before_its_first_run(study, undrawn):
    summary = json.loads((study / "summary.json").read_text())
    summary |= {"design": "search", "exploratory": True, "ranking": summary["ranking"][:3]}
    for one in summary["comparisons"]:
        one |= {"verdict": None, "p": None, "adjusted_p": None}
    (study / "summary.json").write_text(json.dumps(summary))
    words = " ".join(map(words_of, blocks(of_study.report(Study(study)))))
    assert "Planned before" not in words and "found by a search" in words
    assert "The highest of 3" in words


def test_an_accuracy_has_no_interval_beyond_all_images():
    few = numbers(Sample({0: 0.69, 1: 0.74}))
    assert few["interval"][1] == 1.0 and 0.35 < few["interval"][0] < 0.45
    assert numbers(Sample({0: 0.69}))["interval"] is None


def test_classes_that_are_all_alike_have_no_worst_one(here):
    one = subject("own")
    result = one.facts.result
    assert result
    accuracies = {row["accuracy"] for row in result["per_class"]}
    assert (of_results.worst(one) == "-") is (len(accuracies) == 1)
    least = min(x for x in accuracies if x is not None)
    names = [row["class"] for row in result["per_class"] if row["accuracy"] == least]
    if len(accuracies) > 1:
        assert of_results.worst(one) == f"{', '.join(names)}, {percent(least)}"


def test_a_temperature_of_few_images_is_called_a_guess(here):
    for name, few in (("own", True), ("tuned", True), ("cifar", False)):
        if RunFacts(Run(f"runs/{name}"), "validation")["temperature"] is None:
            continue
        words = words_of(panel(page_of(name), "confidence").more)
        assert ("too few for more than a guess" in words) is few
        card = hub.readme(vitlab.load(f"runs/{name}"))
        assert ("too few for more than a guess" in card) is few


def test_a_page_and_a_deck_are_written_of_each(here, tmp_path):
    for name in RUNS:
        for slides in (False, True):
            html = report([Path("runs") / name], slides=slides, out=tmp_path / name).read_text()
            assert subject(name).number("accuracy_interval", between).text in html.replace(
                "&nbsp;", " "
            )

"""Images of several labels, from a CSV to an answer: learned, measured, resumed, shown."""

import asyncio
import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import vitlab
from vitlab.card import card
from vitlab.cli import main
from vitlab.compare import write
from vitlab.config import (
    AugmentConfig,
    Config,
    DataConfig,
    OptimConfig,
    TrainConfig,
    ViTConfig,
)
from vitlab.data import open_dataset
from vitlab.diagnosis import diagnose
from vitlab.errors import ConfigError
from vitlab.evaluate import evaluate, evaluate_robustness
from vitlab.explain import explain
from vitlab.explore import explore
from vitlab.export import hub, parity
from vitlab.features import features
from vitlab.formatting import percent
from vitlab.metrics import multilabel
from vitlab.report import report
from vitlab.run import Run
from vitlab.sklearn import ViTClassifier
from vitlab.training import resume, train
from vitlab.training.step import TrainingStep

SHARES = {"bottom": 0.2, "left": 0.5, "top": 0.4}
"""Share of the images that have a label."""

NAMES = tuple(SHARES)

RNG = np.random.default_rng(0)


def picture(labels) -> np.ndarray:
    """Grey noise (8, 8), brighter on the sides that the labels name."""
    image = RNG.integers(60, 120, (8, 8))
    for name, part in (("left", np.s_[:, :3]), ("top", np.s_[:3]), ("bottom", np.s_[5:])):
        if name in labels:
            image[part] += 30
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A table of 200 pictures with none to three labels, in both of its forms."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for number in range(200):
        labels = [
            n for n, share in zip(NAMES, (0.2, 0.5, 0.4), strict=True) if RNG.random() < share
        ]
        Image.fromarray(picture(labels)).save(folder / f"{number}.png")
        rows.append((f"{number}.png", labels))
    joined = ["path,label", *(f"{path},{'|'.join(labels)}" for path, labels in rows)]
    columns = [
        f"path,{','.join(NAMES)}",
        *(f"{path},{','.join(str(int(n in labels)) for n in NAMES)}" for path, labels in rows),
    ]
    (folder / "joined.csv").write_text("\n".join(joined))
    (folder / "columns.csv").write_text("\n".join(columns))
    return folder


@pytest.fixture(scope="module")
def config(photos) -> Config:
    """A tiny ViT whose every technique of mixing is on."""
    data = {"dataset": str(photos / "joined.csv"), "task": "multilabel"}
    return Config(
        data=DataConfig(**data, validation_fraction=0.3),
        model=ViTConfig(patch_size=4, width=16, depth=1, heads=2, dropout=0.1),
        augment=AugmentConfig(mixup=0.1, cutmix=0.1, label_smoothing=0.05),
        optim=OptimConfig(lr=1e-2, warmup_epochs=1),
        train=TrainConfig(epochs=24, batch_size=28, evaluate_epochs=8),
    )


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Run:
    """A run that was evaluated on both splits, which no test writes into."""
    run = train(config, out=tmp_path_factory.mktemp("runs"), name="sides", quiet=True)
    for split in ("validation", "test"):
        evaluate(run, split, pictures=False, quiet=True)
    return run


def test_two_labels_of_an_image_are_learned_and_each_evaluation_says_what_it_measured(trained):
    evaluations = [line for line in trained.metrics if line["split"] == "validation"]
    assert all("accuracy" not in line for line in evaluations)
    scores = [line["mean_average_precision"] for line in evaluations]
    labels = open_dataset(trained.config.data).examples.labels
    assert max(scores) > 0.9 > 1.5 * labels.mean()
    best = trained.checkpoint("best").state["evaluation"]["validation"]
    assert best["mean_average_precision"] == max(scores)
    assert trained.finished["alarms"] == []
    assert diagnose(trained).startswith("mean average precision ")
    assert "accuracy" not in diagnose(trained)


def test_an_evaluation_repeats_the_score_of_the_training(trained):
    result = trained.results["validation"]
    last = trained.finished["validation"]
    assert result["mean_average_precision"] == pytest.approx(last["mean_average_precision"])
    assert result["loss"] == pytest.approx(last["loss"], rel=1e-4)
    low, high = result["mean_average_precision_interval"]
    assert low <= result["mean_average_precision"] <= high


def test_thresholds_are_those_of_validation_images_and_travel_with_the_model(trained):
    results = trained.results
    found = {s: [row["threshold"] for row in results[s]["per_class"]] for s in results}
    assert found["test"] == found["validation"]
    with np.load(trained.predictions("validation")) as arrays:
        chances = multilabel.probabilities(arrays["logits"] / results["test"]["temperature"])
        again = multilabel.tune_thresholds(chances, arrays["labels"])
        assert again == pytest.approx(found["test"], abs=1e-6)
    with np.load(trained.predictions("test")) as arrays:
        chances = multilabel.probabilities(arrays["logits"] / results["test"]["temperature"])
        given, has = chances >= found["test"], arrays["labels"].astype(bool)
    for k, row in enumerate(results["test"]["per_class"]):
        assert row["precision"] == pytest.approx((given & has)[:, k].sum() / given[:, k].sum())
        assert row["recall"] == pytest.approx((given & has)[:, k].sum() / has[:, k].sum())
    assert results["test"]["exact_match"] == (given == has).all(axis=1).mean()
    assert card(trained, trained.checkpoint())["thresholds"] == found["validation"]


def test_a_cut_training_resumes_to_the_same_weights(config, tmp_path, monkeypatch):
    config = config.override({"train.epochs": 2, "train.evaluate_epochs": 1.0})
    straight = train(config, out=tmp_path, name="straight", quiet=True)
    whole = TrainingStep.__call__

    def fail(self, images, targets):
        if self.state.step == 6:
            raise KeyboardInterrupt
        return whole(self, images, targets)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingStep, "__call__", fail)
        train(config, out=tmp_path, name="cut", quiet=True)
    again = resume(tmp_path / "cut", quiet=True)
    weights = [run.weights(run.checkpoint()).read_bytes() for run in (straight, again)]
    assert weights[0] == weights[1]
    assert straight.finished["best"] == again.finished["best"]


def test_predict_names_every_label_above_its_threshold(trained, photos, tmp_path, capsys):
    for name, labels in {"all": NAMES, "two": ("left", "top"), "none": ()}.items():
        Image.fromarray(picture(labels)).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / f"{name}.png") for name in ("all", "two", "none")]
    assert main(["predict", str(trained.path), *files]) == 0
    lines = [line.split(".png")[1] for line in capsys.readouterr().out.splitlines()]
    assert all(name in lines[0] for name in NAMES)
    assert "left" in lines[1] and "top" in lines[1] and "bottom" not in lines[1]
    assert "no label (likeliest" in lines[2]
    assert main(["predict", str(trained.path), *files, "gone.png", "--csv", "--top", "1"]) == 4
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [{*row["labels"].split("|")} for row in rows] == [{*NAMES}, {"left", "top"}, {""}, {""}]
    assert rows[-1]["problem"] == "there is no such file"
    assert main(["predict", str(trained.path), *files, "--json", "--top", "1"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [len(one["labels"]) for one in answers] == [3, 2, 0]
    assert [len(one["top"]) for one in answers] == [1, 1, 1]
    assert all(one["probability"] >= one["threshold"] for one in answers[0]["labels"])


def test_the_service_answers_with_every_label(trained):
    pytest.importorskip("uvicorn", reason="needs vitlab[serve]")
    from vitlab.serve.app import Answer, Model
    from vitlab.serve.limits import Limits
    from vitlab.serve.service import Service

    model = vitlab.load(trained, device="cpu")
    model.run = None  # type: ignore[assignment] - no process that draws maps
    file = io.BytesIO()
    Image.fromarray(picture(("left", "top"))).save(file, "PNG")

    async def ask():
        service = Service(lambda export: model, Limits())
        await service.start()
        try:
            return await service.predict(file.getvalue(), 3), service.describe()
        finally:
            await service.stop()

    answer, described = asyncio.run(ask())
    assert {one["class"] for one in answer["labels"]} == {"left", "top"}
    assert answer == model.classify(file.getvalue())[0]
    Answer.model_validate(answer)
    assert Model.model_validate(described).card["thresholds"]


def test_an_export_carries_the_thresholds_and_is_compared_by_the_score(trained, tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs vitlab[pretrained]")
    model = vitlab.load(trained, device="cpu")
    hub.write(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    found = [row["threshold"] for row in trained.results["validation"]["per_class"]]
    assert config["problem_type"] == "multi_label_classification"
    assert config["preprocessing"]["thresholds"] == found
    page = (tmp_path / "README.md").read_text()
    assert f"| {NAMES[0]} | {found[0]:.4f} |" in page and "accuracy" not in page
    with np.load(trained.predictions("test")) as arrays:
        logits, labels = arrays["logits"], arrays["labels"]
    passed = parity.compare(logits, logits + 1e-6, labels, exact=False)
    score = trained.results["test"]["mean_average_precision"]
    assert passed["mean_average_precision"]["before"] == pytest.approx(score)
    assert passed["passed"] and "accuracy" not in passed
    assert not parity.compare(logits, -logits, labels, exact=False)["passed"]


def test_a_report_says_nothing_of_an_accuracy(trained, tmp_path):
    run = Run(shutil.copytree(trained.path, tmp_path / "sides"))
    page = report([run]).read_text()
    words = page[page.index("<body") :].replace("&nbsp;", " ")
    assert percent(run.results["test"]["mean_average_precision"]) in words
    assert "accuracy" not in words.casefold()
    row = run.results["test"]["per_class"][0]
    assert all(percent(row[key]) in words for key in ("threshold", "precision", "f1"))
    assert "vitlab features" not in words and "vitlab explore" not in words


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are laid out and not drawn, which takes most of their time."""
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b"drawn"))


def test_maps_explain_a_label(trained, tmp_path, undrawn):
    run = Run(shutil.copytree(trained.path, tmp_path / "sides"))
    found = explain(run, methods=["grad-cam"], count=1, device="cpu", quiet=True)
    assert found["faithfulness"]["methods"]
    assert "true labels: " in found["pictures"][0]["image"]


def test_an_evaluation_draws_what_speaks_of_labels(trained, tmp_path, undrawn):
    run = Run(shutil.copytree(trained.path, tmp_path / "sides"))
    evaluate(run, "test", quiet=True)
    drawn = {path.stem for path in run.figures.glob("test-*.png")}
    assert drawn == {"test-per-class", "test-precision-recall", "test-random"}
    rows = list(csv.DictReader((run.figures / "test-random.csv").read_text().splitlines()))
    assert {name for row in rows for name in row["true"].split(", ")} <= {*NAMES, "none"}


@pytest.mark.parametrize(
    ("ask", "word"),
    [
        (lambda run: evaluate_robustness(run), "robustness"),
        (lambda run: features(run), "features"),
        (lambda run: write([run, run.path.with_name("other")]), "compare"),
        (lambda run: report([run, run.path.with_name("other")]), "report"),
        (lambda run: explore(run.config.data), "explore"),
        (
            lambda run: ViTClassifier(overrides={"data.task": "multilabel"}).fit(
                np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]
            ),
            "ViTClassifier",
        ),
    ],
    ids=["robustness", "features", "compare", "report", "explore", "sklearn"],
)
def test_what_supposes_one_class_says_so_and_what_to_do_instead(trained, ask, word):
    other = trained.path.with_name("other")
    if not other.exists():
        shutil.copytree(trained.path, other)
    with pytest.raises(ConfigError, match=rf"{word}.*data\.task=multilabel.*: \S"):
        ask(trained)


def test_fields_that_suppose_one_class_are_refused_together(config):
    wrong = {"train.sampler": "balanced", "train.class_weights": "balanced"}
    with pytest.raises(ConfigError) as found:
        config.override(wrong | {"train.stop_accuracy": 0.9})
    assert len(found.value.problems) == 3
    with pytest.raises(ConfigError, match="has no meaning with task='multiclass'"):
        DataConfig(label_separator=";")

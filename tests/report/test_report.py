"""What a report says, where it is written, and that it gives nothing away."""

import dataclasses
import getpass
import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch

from vitlab.cli import main
from vitlab.config import (
    AugmentConfig,
    BackboneConfig,
    CNN6Config,
    Config,
    DataConfig,
    HybridConfig,
    ResNet18Config,
    TrainConfig,
    ViTConfig,
)
from vitlab.errors import RunError
from vitlab.models import AXES, build_model
from vitlab.models.cost import cost
from vitlab.report import architecture, render, report, techniques
from vitlab.run import Run

SMALL = {"width": 24, "depth": 2, "heads": 2}

MODELS = [
    *(ViTConfig(**SMALL, patch=word) for word in AXES["patch"]),
    *(ViTConfig(**SMALL, position=word) for word in AXES["position"] if word != "rope"),
    *(ViTConfig(**SMALL, norm=word, norm_place="post") for word in AXES["norm"]),
    *(ViTConfig(**SMALL, ffn=word) for word in AXES["ffn"]),
    *(ViTConfig(**SMALL, pool=word) for word in AXES["pool"]),
    ViTConfig(width=24, depth=2, heads=2, position="rope", registers=4, qk_norm=True, lsa=True),
    ViTConfig(**SMALL, distill_token=True, layer_scale=0.1, embed_norm=True),
    HybridConfig(**SMALL, stage_width=16),
    HybridConfig(**SMALL, stage_width=16, patch="spt", embed_norm=True),
    ResNet18Config(width=8),
    CNN6Config(width=4),
    BackboneConfig(),
]


def config_of(model) -> Config:
    data = DataConfig(image_size=(32, 32), channels=3, classes=10)
    distills = getattr(model, "distill_token", False)
    return Config(
        data=data, model=model, train=TrainConfig(teacher="resnet18" if distills else None)
    )


def words_of(file: Path) -> str:
    """What a page says, without its style and markup."""
    html = file.read_text(encoding="utf-8").replace("&nbsp;", " ")
    return re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.S)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.kind}")
def test_a_drawing_has_the_shapes_and_parameters_of_the_model(model):
    config = config_of(model)
    found = architecture.parts(config)
    assert sum(part.parameters for part in found) == cost(config).parameters
    trace: dict[str, torch.Tensor] = {}
    with torch.device("meta"):
        logits = build_model(config).eval()(torch.zeros(1, 3, 32, 32), trace)
    made = {tuple(each.shape[1:]) for each in trace.values()} | {tuple(logits.shape[1:])}
    known = {part.shape for part in found if part.look in ("tokens", "block")}
    known |= {part.shape for part in found if part.name == "head"}
    known |= {part.shape for part in found if part.look == "maps" and model.kind != "hybrid"}
    assert known <= made
    drawing = architecture.draw(config, "a model")
    assert all("\u00d7".join(map(str, part.shape)) in drawing for part in found)


def test_every_technique_of_a_training_is_told_when_it_is_on():
    config = Config()
    before = {word.axis for word in techniques.of_training(config)}
    mixed = dataclasses.replace(config, augment=AugmentConfig(mixup=0.2, cutout=8))
    after = {word.axis for word in techniques.of_training(mixed)}
    assert after - before == {"MixUp", "cutout"}


def test_a_page_states_what_the_run_measured(runs, tmp_path, undrawn):
    run = runs["cpu-plain"]
    words = words_of(report([run], out=tmp_path))
    test = run.results["test"]
    low, high = test["accuracy_interval"]
    for value in (test["accuracy"], low, high):
        assert f"{100 * value:.2f} %" in words
    finished = run.finished
    assert finished
    assert f"{finished['parameters']:,}" in words
    assert run.config.sha256[:16] in words
    assert test["index_sha256"][:16] in words
    for name in ("command", "torch", "python", "device"):
        assert run.provenance[name] in words
    assert re.search(r"bit-reproducible\s+yes\b", words)
    assert "Hypothesis" in words


def test_a_study_page_states_its_verdicts(study, tmp_path, undrawn):
    words = " ".join(words_of(report([study], out=tmp_path)).split())
    summary = json.loads((study / "summary.json").read_text())
    assert summary["question"] in words
    for one in summary["comparisons"]:
        assert one["arm"] in words
        assert f"{100 * one['difference']:+.2f}" in words
    assert "No evidence of a difference in 2 comparisons" in words
    for arm in summary["arms"]:
        assert f"{arm['stability']['largest_gradient_norm']:.2f}" in words


def test_a_report_goes_into_the_run_the_study_or_beside_several(runs, study, capsys, undrawn):
    plain, cnn = runs["cpu-plain"], runs["cpu-cnn"]
    assert main(["report", str(plain.path)]) == 0
    assert capsys.readouterr().out.strip() == str(plain.path / "report" / "report.html")
    assert report([study], slides=True) == study / "report" / "slides.html"
    both = report([plain, cnn])
    assert both == plain.path.parent.resolve() / "report" / "cpu-plain-cpu-cnn" / "report.html"
    assert "ViT against CNN" in words_of(both)
    assert not list(both.parent.glob(".*"))


def test_a_run_and_a_study_fit_on_one_page_and_neither_loses_its_results_on_slides(
    runs, study, tmp_path, undrawn
):
    html = report([runs["cpu-cnn"], study], out=tmp_path).read_text()
    ids = re.findall(r'<section id="([^"]+)"', html)
    assert len(ids) == len(set(ids)) > 15
    deck = report([runs["cpu-cnn"], study], out=tmp_path, slides=True).read_text()
    slides = set(re.findall(r'<section class="slide" id="([^"]+)"', deck))
    of_run = {f"{key}-of-1" for key in ("result", "classes", "confidence", "limits", "next")}
    of_study = {f"{key}-of-2" for key in ("accuracy", "curves", "cost", "stability", "limits")}
    assert of_run | of_study <= slides


def test_two_runs_that_were_measured_together_share_what_their_layers_know(runs, tmp_path, undrawn):
    pair = [Run(shutil.copytree(runs[name].path, tmp_path / name)) for name in runs]
    shutil.rmtree(pair[0].features)
    words = " ".join(words_of(report(pair, out=tmp_path / "a")).split())
    assert "The layers of cpu-cnn were not looked at" in words
    together = tmp_path / "features" / "cpu-plain-cpu-cnn"
    shutil.copytree(runs["cpu-plain"].features, together)
    words = words_of(report(pair, out=tmp_path / "b"))
    assert "were not looked at" not in words and "What their layers know" in words
    assert "vitlab features" not in words
    deck = report(pair, slides=True, out=tmp_path / "b").read_text()
    assert 'id="features-1-patches"' in deck  # the tokens of both, in colours
    assert "lags behind" in words_of(tmp_path / "b" / "slides.html")  # and why


@pytest.mark.parametrize("slides", [False, True])
def test_figures_take_their_colours_from_the_page_which_forbids_styles_of_elements(
    slides, runs, tmp_path
):
    html = report([runs["cpu-plain"]], slides=slides, out=tmp_path).read_text()
    head, _, body = html.partition("</style>")
    assert "[stroke=" in head and "prefers-color-scheme:dark" in head
    assert body.count('role="img"') >= 4 and 'fill="#0b6fb0"' in body
    assert " style=" not in body and "data:image/png" in body and "data:image/svg" in body


def test_runs_of_one_name_are_told_apart(runs, tmp_path, undrawn):
    copies = []
    for place in ("one", "two"):
        copies.append(Run(shutil.copytree(runs["cpu-cnn"].path, tmp_path / place / "cpu-cnn")))
    words = words_of(report(copies, out=tmp_path / "out"))
    assert "one/cpu-cnn" in words and "two/cpu-cnn" in words


def test_what_is_missing_is_said_with_the_command_that_makes_it(runs, tmp_path, undrawn):
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(runs["cpu-plain"].path / "config.json", begun)
    for slides in (False, True):
        words = words_of(report([begun], slides=slides))
        assert "vitlab train --resume" in words
    shutil.copy(runs["cpu-plain"].path / "provenance.json", begun)
    shutil.copy(runs["cpu-plain"].path / "metrics.jsonl", begun)
    words = words_of(report([begun]))
    assert "is not finished" in words and "vitlab explain" in words and "vitlab features" in words
    shutil.copy(runs["cpu-plain"].path / "finished.json", begun)
    assert "--split test" in words_of(report([begun]))


def test_a_study_without_a_summary_says_how_to_get_one(study):
    (study / "summary.json").unlink()
    shutil.rmtree(study / "figures")
    assert "vitlab study" in words_of(report([study]))


def test_what_is_no_run_or_cannot_be_written_is_refused_in_one_sentence(runs, tmp_path, undrawn):
    with pytest.raises(RunError, match="is not a run"):
        report([tmp_path])
    with pytest.raises(RunError, match="needs a run or a study"):
        report([])
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another --out"):
        report([runs["cpu-cnn"]], out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == ""


def test_nothing_names_a_home_a_user_a_host_or_the_environment(
    runs, tmp_path, monkeypatch, undrawn
):
    monkeypatch.setenv("SECRET_TOKEN", "s3cr3t-canary")
    run = Path(shutil.copytree(runs["cpu-cnn"].path, tmp_path / "home" / "jane" / "run"))
    for name in ("config.json", "provenance.json", "finished.json"):
        tree = json.loads((run / name).read_text())
        if name == "config.json":
            tree["data"]["dataset"] = "/home/jane doe/pictures/photos.csv"
        if name == "provenance.json":
            tree["command"] = "vitlab train cpu --data.dataset '/home/jane doe/pictures/photos.csv'"
        if name == "finished.json":
            tree["alarms"] = ["resumed from /home/jane/x/run: resuming is not bit-exact"]
        (run / name).write_text(json.dumps(tree))
    for slides in (False, True):
        html = report([run], slides=slides).read_text()
        for secret in ("/home", "jane", "s3cr3t-canary", socket.gethostname(), str(Path.home())):
            assert secret not in html, secret
        assert getpass.getuser() == "root" or getpass.getuser() not in html
        assert "photos.csv" in html


def test_written_twice_a_report_has_the_same_bytes(study, tmp_path):
    first = report([study], out=tmp_path / "a").read_bytes()
    assert report([study], out=tmp_path / "b").read_bytes() == first


def test_names_are_inert_in_the_source_of_the_page(hostile, tmp_path):
    for slides in (False, True):
        html = report([hostile], slides=slides, out=tmp_path).read_bytes().decode("utf-8")
        assert "<img src=x" not in html and "harmed=1</script>" not in html
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", html)
        assert "{{7*7}}" in html and "49{% raw %}" not in html


def test_templates_are_found_where_the_package_is():
    for name in ("page.html", "deck.html", "macros.html", "style.css", "page.css", "deck.css"):
        assert render.source(name)

"""Real runs and a real study, prepared once, and a browser where there is one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vitlab import pretrained
from vitlab.figures import style
from vitlab.inference import predict
from vitlab.metrics import summarize
from vitlab.run import Run

DOCS = Path(__file__).parents[2] / "docs" / "results"

IMAGES = 120


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> dict[str, Run]:
    """The shipped models, evaluated on a few images that are not theirs; the ViT looked into."""
    folder = tmp_path_factory.mktemp("runs")
    squares = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    images, labels = squares.repeat(4, axis=1).repeat(4, axis=2), np.arange(IMAGES) % 10
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITLAB_RUNS", str(folder))
        for name in ("cpu-plain", "cpu-cnn"):
            found[name] = pretrained.open_run(name)
            store_answers(found[name], images, labels)
    look_into(found["cpu-plain"])
    return found


def store_answers(run: Run, images: np.ndarray, labels: np.ndarray) -> None:
    """Store what a run's model says of images as evaluate does, without its many figures."""
    logits = predict(run, images, device="cpu")
    classes = run.provenance["data"]["class_names"]
    result = {**run.results["test"], **summarize(logits, labels, classes)}
    run.write_results({**run.results, "test": result})
    run.predictions("test").parent.mkdir()
    everything = np.arange(len(labels))
    np.savez(run.predictions("test"), logits=logits, labels=labels, indices=everything)
    np.savez(run.predictions("test-gallery"), places=everything, images=images)


def look_into(run: Run) -> None:
    """Measure two maps on a few images, and take over what features recorded of another ViT."""
    import torch

    from vitlab.explain.faithfulness import measure
    from vitlab.inference import open_model
    from vitlab.models import build_model

    torch.manual_seed(0)
    model = open_model(run, run.checkpoint(), torch.device("cpu"))
    images = torch.randn(4, 3, 32, 32)
    classes = model(images).argmax(dim=-1)
    found = measure(model, build_model(run.config).eval(), images, classes, ["attention"])
    run.explanations.mkdir(exist_ok=True)  # it ships with what its maps came to
    facts = {"run": run.name, "split": "validation", **found}
    (run.explanations / "faithfulness.json").write_text(json.dumps(facts))
    with style.figure(run.explanations / "validation-00001", 2, 1, "maps") as figure:
        figure.subplots()
    run.features.mkdir()
    shutil.copy(DOCS / "features-cpu-cpu-cnn.json", run.features / "features.json")
    Image.new("RGB", (90, 40)).save(run.features / "components.png")


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Charts are put together and not rendered, which is most of what a report takes."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)


@pytest.fixture
def study(tmp_path) -> Path:
    """The record of a real study, where it may be written into."""
    return Path(shutil.copytree(DOCS / "studies" / "cpu-small", tmp_path / "cpu-small"))


HOSTILE = (
    "<img src=x onerror=harmed=1>",
    '"><script>harmed=1</script>.png',
    "{{7*7}}{% raw %}",
    '=HYPERLINK("http://example.org","x")',
    "\x1b[31mred\x07\x00",
    "\u202egnp.exe",
    "a" * 255,
    "caf\udce9",
    "</style></title><svg onload=harmed=1>",
    "'onmouseover=harmed=1 x='",
)
"""Names that somebody's folders may have."""


@pytest.fixture
def hostile(runs, tmp_path) -> Run:
    """A run whose own name, classes and files try to be more than names."""
    folder = tmp_path / 'run"><script>harmed=1<' / "{{7*7}} '\"><img src=x onerror=harmed=1>"
    shutil.copytree(runs["cpu-plain"].path, folder)
    for name in ("provenance.json", "results.json"):
        words = (folder / name).read_text()
        for place, own in enumerate(runs["cpu-plain"].provenance["data"]["class_names"]):
            words = words.replace(json.dumps(own), json.dumps(HOSTILE[place]))
        (folder / name).write_text(words)
    for kind in ("png", "svg"):
        drawn = folder / "explain" / f"validation-00001.{kind}"
        drawn = drawn.rename(folder / "explain" / f'"><script>harmed=1<script>.{kind}')
    script = "<script>harmed=1</script><image href='https://example.org/x.png'/></svg>"
    drawn.write_text(drawn.read_text().replace("</svg>", script))
    return Run(folder)

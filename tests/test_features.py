"""What is said about layers: real features, separate splits, two runs on the same images."""

import csv
import json
import shutil

import numpy as np
import pytest

import vitlab
from vitlab.cli import main
from vitlab.data import LabelledImages
from vitlab.embeddings import separation
from vitlab.errors import DataError, RunError
from vitlab.features import default_folder, features
from vitlab.figures import style
from vitlab.run import TRAINED, Run

NAMES = ("<b>$x_1$", "cat", "🐿 /a|b")
MEASURES = ["within", "between", "ratio", "linear_probe", "neighbors"]
SMALL = {"train.epochs": 4, "train.batch_size": 32, "optim.warmup_epochs": 0, "optim.lr": 1e-2}
VIT = {"model.width": 8, "model.depth": 2, "model.heads": 2, "model.patch_size": 4}


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """Fewer dots an inch: the same drawing, sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(style.STYLE, "savefig.dpi", 30)
        yield


@pytest.fixture(scope="module")
def examples():
    """Three classes of 8x16 grey images, told apart by where they are bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 120, (120, 8, 16, 1))
    images[np.arange(120), :, 5 * labels] += 130
    return LabelledImages(images.astype(np.uint8), labels, NAMES).canonical()


@pytest.fixture(scope="module")
def trained(examples, tmp_path_factory):
    """Finished runs of a ViT with a CLS token and of a CNN, by name."""
    out = tmp_path_factory.mktemp("runs")
    data = {"data.image_size": (8, 16), "data.channels": 1, "data.classes": 3}
    recipes = {"vit": VIT, "cnn": {"model.kind": "cnn6", "model.width": 4}}
    return {
        name: vitlab.train(
            vitlab.Config().override({**data, **SMALL, **model}),
            data=examples,
            out=out,
            name=name,
            device="cpu",
            quiet=True,
        )
        for name, model in recipes.items()
    }


@pytest.fixture(scope="module")
def found(trained, examples, tmp_path_factory):
    """What is found in both runs beside each other, and the folder."""
    folder = tmp_path_factory.mktemp("found")
    both = (trained["vit"], trained["cnn"])
    return features(*both, data=examples, out=folder, device="cpu"), folder


def test_every_layer_is_measured_and_only_a_vit_has_a_cls_token(found):
    vit, cnn = found[0]["runs"]
    assert [layer["layer"] for layer in vit["layers"]] == ["patches", "block00", "block01"]
    assert [layer["layer"] for layer in cnn["layers"]] == ["stage1", "stage2", "stage3"]
    assert [layer["depth"] for layer in vit["layers"]] == [0, 0.5, 1]
    assert [layer["grid"] for layer in vit["layers"]] == [[2, 4]] * 3
    assert [layer["grid"] for layer in cnn["layers"]] == [[4, 8], [2, 4], [1, 2]]
    for layer in vit["layers"]:
        assert all(list(layer[kind]) == MEASURES for kind in ("pooled", "cls", "patch"))
    assert all(layer["cls"] is None and layer["pooled"] for layer in cnn["layers"])


def test_numbers_are_those_of_the_models_own_tokens_on_validation_images(found, trained, examples):
    _, validation = trained["vit"].split.index
    model = vitlab.load(trained["vit"], device="cpu")
    trace: dict = {}
    model.module(model.prepare(examples.images[validation]), trace)
    labels = examples.labels[validation]
    last = found[0]["runs"][0]["layers"][-1]
    tokens = trace["block01"].detach()
    cls, pooled = tokens[:, 0].numpy(), tokens[:, 1:].mean(dim=1).numpy()
    assert last["cls"]["ratio"] == pytest.approx(separation(cls, labels).ratio, rel=1e-5)
    assert last["pooled"]["ratio"] == pytest.approx(separation(pooled, labels).ratio, rel=1e-5)


def test_probes_learn_on_training_images_and_the_accuracy_is_the_runs_own(found, trained):
    assert found[0]["images"] == {"fitted": 108, "measured": 12}
    for run in found[0]["runs"]:
        own = trained[run["run"]].finished["validation"]["accuracy"]
        assert run["accuracy"] == pytest.approx(own)
        assert run["layers"][-1]["pooled"]["linear_probe"] > 0.9


def test_before_the_first_block_a_cls_token_knows_nothing(found):
    first = found[0]["runs"][0]["layers"][0]["cls"]
    assert first["ratio"] is None and first["within"] == 0
    assert first["linear_probe"] == pytest.approx(1 / 3)
    with open(found[1] / "pca-cls.csv", newline="") as file:
        mapped = {row[0].split(":")[0] for row in list(csv.reader(file))[1:]}
    assert mapped == {"vit, block00", "vit, block01"}


def test_sentences_say_what_the_numbers_say(found):
    vit, cnn = found[0]["runs"]
    assert (vit["image"], cnn["image"]) == ("cls", "pooled")
    probes = [100 * run["layers"][-1][run["image"]]["linear_probe"] for run in (vit, cnn)]
    assert (
        f"Linear probe on what stands for the image, last layer: {probes[0]:.1f} % in vit, "
        f"{probes[1]:.1f} % in cnn, {probes[0] - probes[1]:+.1f} points."
    ) in found[0]["sentences"]


def test_figures_show_both_runs_and_lie_beside_their_numbers(found):
    stems = ["layers", "components", "pca-cls", "tsne-cls"]
    stems += [f"{way}-{kind}" for way in ("pca", "tsne") for kind in ("pooled", "patch")]
    expected = {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg", "csv")}
    assert {file.name for file in found[1].iterdir()} == expected | {"features.json"}
    assert json.loads((found[1] / "features.json").read_text()) == found[0]
    for stem in ("pca-pooled", "layers", "components"):
        with open(found[1] / f"{stem}.csv", newline="") as file:
            names = {row[0].split(",")[0] for row in list(csv.reader(file))[1:]}
        assert names == {"vit", "cnn"}
    with open(found[1] / "components.csv", newline="") as file:
        assert {row[2] for row in list(csv.reader(file))[1:]} == set(NAMES)


def test_looking_again_gives_equal_bytes_and_changes_nothing_else(
    found, trained, examples, tmp_path
):
    def contents():
        return {
            file: file.read_bytes() for file in trained["vit"].path.rglob("*") if file.is_file()
        }

    before = contents()
    features(trained["vit"], trained["cnn"], data=examples, out=tmp_path, device="cpu")
    assert contents() == before
    for file in found[1].iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_runs_that_cannot_be_compared_are_refused(trained, examples, tmp_path):
    vit = trained["vit"]
    with pytest.raises(RunError, match="is given twice"):
        features(vit, vit.path, data=examples)
    other = Run(shutil.copytree(vit.path, tmp_path / "split"))
    other.write_split(vit.split._replace(part=np.roll(vit.split.part, 1)))
    with pytest.raises(RunError, match=r"different splits.*split_seed"):
        features(vit, other, data=examples)
    moved = Run(shutil.copytree(vit.path, tmp_path / "moved"))
    changed = {**moved.provenance, "data": {**moved.provenance["data"], "fingerprint": "0" * 64}}
    moved.write_provenance(changed)
    with pytest.raises(RunError, match="trained on different images"):
        features(vit, moved, data=examples)
    bare = Run(shutil.copytree(vit.path, tmp_path / "bare"))
    bare.write_split(vit.split._replace(part=np.full_like(vit.split.part, TRAINED)))
    with pytest.raises(RunError, match="no validation split"):
        features(bare, data=examples)
    with pytest.raises(DataError, match="hand them in as data="):
        features(vit)
    with pytest.raises(DataError, match="not the images"):
        features(vit, data=(255 - examples.images, examples.labels))


def test_the_verb_prints_layers_and_where_the_figures_are(trained, digits_run, capsys):
    assert main(["features", str(digits_run.path), "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err == "", "progress where no terminal reads it"
    assert "block00" in out and f"figures in {digits_run.features}" in out
    vit, cnn = trained["vit"], trained["cnn"]
    assert default_folder([vit, cnn]) == vit.path.parent / "features" / "vit-cnn"

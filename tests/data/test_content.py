"""One set, one order, one split: whatever file images come from, and whatever happened to it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from forms import cifar, parquet, png, test_of, unpacked

import vitlab
from vitlab import data
from vitlab.cli import main
from vitlab.config import DataConfig
from vitlab.data import KNOWN
from vitlab.errors import ConfigError, DataError, RunError
from vitlab.evaluate import evaluate
from vitlab.ledger import open_split
from vitlab.run import Run

TEN = KNOWN["cifar10"].class_names
TINY = {
    "train.epochs": 1, "train.batch_size": 64, "train.small_size": "none", "train.small_epochs": 0,
    "model.width": 8, "model.depth": 1, "model.heads": 1,
}  # fmt: skip


def pictures(count, seed=0, size=(32, 32)):
    """Noise whose colour tells its class: uint8 (N, H, W, 3) and labels (N,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = rng.integers(0, 90, (count, *size, 3))
    images[..., 0] += 16 * labels[:, None, None]
    return images.astype(np.uint8), labels


def as_parquet(root, parts):
    for split, (images, labels) in parts.items():
        parquet(root / "cifar10" / f"{split}.parquet", labels, images=images)


def as_python(root, parts):
    unpacked(root / "cifar10", cifar(parts, KNOWN["cifar10"].files, "labels"))


def as_binary(root, parts):
    unpacked(root / "cifar-10-batches-bin", cifar(parts, KNOWN["cifar10"].files, ""))


def as_folder(root, parts):
    for split, (images, labels) in parts.items():
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / "mine" / split / TEN[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{place:03d}.png").write_bytes(png(image))


FORMS = {"parquet": as_parquet, "python": as_python, "binary": as_binary, "folder": as_folder}


@pytest.mark.filterwarnings("ignore:cifar10. the t")
def test_every_form_in_any_order_gives_the_same_images_split_batches_and_weights(tmp_path):
    parts = {"train": pictures(200), "test": pictures(40, seed=1)}
    rng = np.random.default_rng(5)
    seen = set()
    for form, write in FORMS.items():
        orders = {split: rng.permutation(len(labels)) for split, (_, labels) in parts.items()}
        root = tmp_path / form
        write(root, {s: (parts[s][0][order], parts[s][1][order]) for s, order in orders.items()})
        name = str(root / "mine") if form == "folder" else "cifar10"
        config = vitlab.recipe("cpu").override({"data.dataset": name, **TINY})
        run = vitlab.train(
            config, data_root=root, out=tmp_path / "runs", name=form, device="cpu", quiet=True
        )
        written = run.provenance["data"]
        weights = (run.checkpoint().model).read_bytes()
        test = data.load_test(data.open_dataset(run.config.data, root=root)).fingerprint
        seen.add((written["fingerprint"], written["split_sha256"]["validation"], test, weights))
    assert len(seen) == 1


def train_on(dataset, name, **more):
    config = vitlab.recipe("digits").override(
        {"data.dataset": dataset, "data.channels": 3, **TINY, **more}
    )
    return vitlab.train(config, out="runs", name=name, device="cpu", quiet=True)


OTHER = {"train.weights": "runs/source", "data.split_seed": 1}
"""Starts from a run with another split, so that it saw images that are held out here."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """200 photos of 10 classes with no test split, a run on them, and one that starts there."""
    root = tmp_path_factory.mktemp("trained")
    as_folder(root, {"": pictures(200, size=(12, 12))})
    (root / "mine").rename(root / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        train_on("photos", "source")
        train_on("photos", "allowed", **OTHER, **{"train.overlap": "allow"})
    return root


@pytest.fixture
def photos(trained, tmp_path, monkeypatch):
    """Those photos in a folder of the test's own, the runs beside them."""
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "here"))
    return Path("photos")


def parts_of(**fields) -> dict[str, set[int]]:
    """Keys of the images of each part of the photos."""
    dataset = data.open_dataset(DataConfig(dataset="photos", **fields))
    index = dict(zip(("train", "validation"), dataset.split, strict=True))
    keys = {name: dataset.examples.keys[i] for name, i in index.items()}
    return {n: set(k.tolist()) for n, k in (keys | {"test": test_of(**fields).keys}).items()}


def test_renaming_files_moves_no_image_and_adding_some_moves_few(photos):
    before = parts_of()
    assert sum(map(len, before.values())) == 200
    for place, file in enumerate(sorted(photos.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"renamed-{place}.png"))
    assert parts_of() == before
    for place, image in enumerate(pictures(10, seed=9, size=(12, 12))[0]):
        (photos / TEN[place] / f"new{place}.png").write_bytes(png(image))
    after = parts_of()
    assert sum(len(before[name] - after[name]) for name in before) <= 20


def test_a_split_is_the_same_at_every_image_size(photos):
    small, whole, large = (parts_of(image_size=(side, side)) for side in (8, 12, 16))
    assert small == whole == large


def test_weights_that_saw_the_validation_images_are_refused_with_a_way_out(photos):
    with pytest.raises(ConfigError, match=r"trained on \d+ of the \d+ validation .*split_seed=0,"):
        train_on("photos", "other", **OTHER)
    train_on("photos", "first", **{**OTHER, "data.split_seed": 0})
    assert Run("runs/allowed").provenance["data"]["validation_seen"] > 5
    # What started from there has seen them too.
    third = {"train.weights": "runs/allowed", "data.split_seed": 2}
    with pytest.raises(ConfigError, match="validation images"):
        train_on("photos", "third", **third)


def test_what_was_allowed_stands_in_every_table(photos, capsys, monkeypatch):
    run = Run("runs/allowed")
    seen = run.provenance["data"]["validation_seen"]
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    assert evaluate(run, pictures=False)["validation_seen"] == seen
    assert main(["leaderboard", "runs"]) == 0
    assert f"validation, {seen} trained on before" in " ".join(capsys.readouterr().out.split())
    assert main(["compare", "runs/source", "runs/allowed", "--out", "c"]) == 0
    assert f"{seen} of the images trained on before" in Path("c/compare.md").read_text()


def test_a_test_split_that_the_first_weights_were_trained_on_is_refused(photos):
    run = train_on("photos", "other", **OTHER, **{"data.validation_fraction": 0.0})
    with pytest.raises(DataError, match=r"trained on \d+ of its 40 test images.*overlap=allow"):
        open_split(run, "test")


def test_copies_of_training_images_among_test_images_are_counted(photos):
    shutil.copytree(photos, "set/train")
    shutil.copytree(photos, "set/test")
    run = train_on("set", "run")
    with pytest.warns(UserWarning, match="180 of 200 test images are copies"):
        open_split(run, "test")


@pytest.mark.parametrize("root", [None, "disk2", "disk2/photos"])
def test_data_that_moved_is_found_and_data_that_changed_is_refused(photos, root):
    run = Run("runs/source")
    if root:
        Path("disk2").mkdir()
        photos = photos.rename("disk2/photos")
        with pytest.raises(DataError, match="is gone: give the place where it is now with --data-"):
            open_split(run, "validation")
        for split in ("validation", "test"):
            open_split(run, split, data_root=root)
    next(photos.rglob("*.png")).unlink()  # moves none from training into test unseen
    for split in ("validation", "test"):
        with pytest.raises(DataError, match="not the images"):
            open_split(run, split, data_root=root)


def test_a_run_of_an_earlier_vitlab_says_that_its_split_cannot_be_found_again(photos):
    Path("runs/source/split.npz").unlink()
    with pytest.raises(RunError, match=r"earlier vitlab.*train it again"):
        open_split(Run("runs/source"), "validation")


README = """
    vitlab evaluate cpu
    vitlab evaluate cpu --split test
    vitlab evaluate cpu-plain --robustness
    vitlab explain cpu-plain
    vitlab features cpu cpu-cnn
    vitlab compare cpu cpu-plain cpu-cnn
    vitlab export cpu --to onnx-int8
"""
REAL = Path(os.environ.get("VITLAB_DATA") or ".").absolute()


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "cifar10").is_dir(), reason="needs VITLAB_DATA with CIFAR-10")
@pytest.mark.filterwarnings("error")
def test_the_readmes_commands_run_on_cifar10_in_two_other_orders(tmp_path, monkeypatch):
    parts = {}
    dataset = data.open_dataset(DataConfig(), root=REAL)
    for split, examples in (("train", dataset.examples), ("test", data.load_test(dataset))):
        order = np.random.default_rng(3).permutation(len(examples.labels))
        parts[split] = examples.images[order], examples.labels[order]
    as_parquet(tmp_path / "a", parts)
    as_python(tmp_path / "b", {split: (x[::-1], y[::-1]) for split, (x, y) in parts.items()})
    seen = set()
    for root in ("a", "b"):
        monkeypatch.setenv("VITLAB_DATA", str(tmp_path / root))
        monkeypatch.setenv("VITLAB_RUNS", str(tmp_path / root / "runs"))
        for line in README.split("\n"):
            if words := line.split()[1:]:
                assert main(words) == 0, line
        run = Run(tmp_path / root / "runs" / "cpu")
        with np.load(run.predictions("validation")) as kept:
            seen.add((kept["logits"].tobytes(), kept["labels"].tobytes()))
    assert len(seen) == 1

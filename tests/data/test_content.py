"""One set, one order, one split: whatever file images come from, and whatever happened to it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from forms import cifar, parquet, png, unpacked

import vitlab
from vitlab import data
from vitlab.cli import main
from vitlab.config import DataConfig
from vitlab.data import KNOWN, LabelledImages
from vitlab.errors import ConfigError, DataError, RunError
from vitlab.evaluate import evaluate
from vitlab.figures import style
from vitlab.ledger import open_split
from vitlab.run import Run

TEN = KNOWN["cifar10"].class_names
TINY = {
    "train.epochs": 1, "train.batch_size": 16, "train.small_size": "none", "train.small_epochs": 0,
    "model.width": 16, "model.depth": 1, "model.heads": 2,
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
    rng = np.random.default_rng(len(list(root.iterdir())) if root.exists() else 0)
    for split, (images, labels) in parts.items():
        for image, label in zip(images, labels, strict=True):
            place = root / "mine" / split / TEN[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{rng.integers(2**60)}.png").write_bytes(png(image))


FORMS = {"parquet": as_parquet, "python": as_python, "binary": as_binary, "folder": as_folder}


def everywhere(tmp_path, parts):
    """The same set in every form, each in an order of its own: its name and root by form."""
    rng = np.random.default_rng(5)
    for form, write in FORMS.items():
        orders = {split: rng.permutation(len(labels)) for split, (_, labels) in parts.items()}
        shuffled = {s: (parts[s][0][order], parts[s][1][order]) for s, order in orders.items()}
        write(tmp_path / form, shuffled)
    names = dict.fromkeys(FORMS, "cifar10") | {"folder": str(tmp_path / "folder" / "mine")}
    return {form: (name, tmp_path / form) for form, name in names.items()}


@pytest.mark.filterwarnings("ignore:cifar10. the t")
def test_every_form_in_any_order_gives_the_same_images_split_batches_and_weights(tmp_path):
    parts = {"train": pictures(200), "test": pictures(40, seed=1)}
    seen = set()
    for form, (name, root) in everywhere(tmp_path, parts).items():
        config = vitlab.recipe("cpu").override({"data.dataset": name, **TINY})
        run = vitlab.train(
            config, data_root=root, out=tmp_path / "runs", name=form, device="cpu", quiet=True
        )
        told = run.provenance["data"]
        weights = (run.checkpoint().model).read_bytes()
        test = data.load_test(data.open_dataset(run.config.data, root=root)).fingerprint
        seen.add((told["fingerprint"], told["split_sha256"]["validation"], test, weights))
    assert len(seen) == 1


@pytest.fixture
def photos(tmp_path):
    """A folder of 10 classes of 20 pictures, with no test split."""
    images, labels = pictures(200, size=(12, 12))
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "photos" / TEN[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place:03d}.png").write_bytes(png(image))
    return tmp_path / "photos"


def parts_of(folder) -> dict[str, set[int]]:
    """Keys of the images of each part of a folder."""
    dataset = data.open_dataset(DataConfig(dataset=str(folder)))
    train, test = dataset.examples, data.load_test(dataset)
    index = dict(zip(("train", "validation"), dataset.split, strict=True))
    return {name: set(train.keys[i].tolist()) for name, i in index.items()} | {
        "test": set(test.keys.tolist())
    }


def test_renaming_files_moves_no_image_and_adding_some_moves_few(photos):
    before = parts_of(photos)
    assert sum(map(len, before.values())) == 200
    for place, file in enumerate(sorted(photos.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"renamed-{place}.png"))
    assert parts_of(photos) == before
    for place, image in enumerate(pictures(10, seed=9, size=(12, 12))[0]):
        (photos / TEN[place] / f"new{place}.png").write_bytes(png(image))
    after = parts_of(photos)
    moved = sum(len(before[name] - after[name]) for name in before)
    assert moved <= 20


def test_a_split_is_the_same_at_every_image_size(photos):
    sizes = [DataConfig(dataset=str(photos), image_size=(side, side)) for side in (8, 12, 16)]
    splits = []
    for dataset in map(data.open_dataset, sizes):
        splits.append(set(dataset.examples.keys[dataset.split[1]].tolist()))
    assert splits[0] == splits[1] == splits[2]


def train_on(photos, name, **more):
    config = vitlab.recipe("digits").override(
        {"data.dataset": str(photos), "data.channels": 3, **TINY, **more}
    )
    out = photos.parent / "runs"
    return vitlab.train(config, out=out, name=name, device="cpu", quiet=True)


def test_weights_that_saw_the_validation_images_are_refused_with_a_way_out(photos):
    source = train_on(photos, "source")
    train_on(photos, "same", **{"train.weights": str(source.path)})
    again = {"train.weights": str(source.path), "data.split_seed": 1}
    with pytest.raises(ConfigError, match=r"trained on \d+ of the \d+ validation .*split_seed=0,"):
        train_on(photos, "other", **again)
    train_on(photos, "first", **{**again, "data.split_seed": 0})
    allowed = train_on(photos, "second", **again, **{"train.overlap": "allow"})
    seen = allowed.provenance["data"]["validation_seen"]
    assert seen > 5
    # What started from there has seen them too.
    third = {"train.weights": str(allowed.path), "data.split_seed": 2}
    with pytest.raises(ConfigError, match="validation images"):
        train_on(photos, "third", **third)


def test_what_was_allowed_is_told_in_every_table(photos, capsys, monkeypatch):
    source = train_on(photos, "source")
    allowed = {"train.weights": str(source.path), "data.split_seed": 1, "train.overlap": "allow"}
    run = train_on(photos, "allowed", **allowed)
    seen = run.provenance["data"]["validation_seen"]
    monkeypatch.setitem(style.STYLE, "savefig.dpi", 30)
    assert evaluate(run)["validation_seen"] == seen
    assert main(["leaderboard", str(run.path.parent)]) == 0
    assert f"validation, {seen} trained on before" in " ".join(capsys.readouterr().out.split())
    assert (
        main(["compare", str(source.path), str(run.path), "--out", str(photos.parent / "c")]) == 0
    )
    assert (
        f"{seen} of the images trained on before"
        in (photos.parent / "c" / "compare.md").read_text()
    )


def test_a_test_split_that_the_first_weights_were_trained_on_is_refused(photos):
    source = train_on(photos, "source")
    other = {"data.split_seed": 1, "data.validation_fraction": 0.0}
    run = train_on(photos, "other", **{"train.weights": str(source.path), **other})
    with pytest.raises(DataError, match=r"trained on \d+ of its 40 test images.*overlap=allow"):
        open_split(run, "test")


def test_a_picture_that_is_gone_moves_none_from_training_into_test_unseen(photos):
    run = train_on(photos, "run")
    next(photos.rglob("*.png")).unlink()
    for split in ("validation", "test"):
        with pytest.raises(DataError, match="not the images"):
            open_split(run, split)


def test_copies_of_training_images_among_test_images_are_told(photos):
    shutil.move(photos, photos.parent / "set" / "train")
    shutil.copytree(photos.parent / "set" / "train", photos.parent / "set" / "test")
    run = train_on(photos.parent / "set", "run")
    with pytest.warns(UserWarning, match="180 of 200 test images are copies"):
        open_split(run, "test")


@pytest.mark.parametrize("root", ["disk2", "disk2/photos"])
def test_data_that_moved_is_found_by_the_data_root_and_known_by_its_content(photos, root):
    run = train_on(photos, "run")
    moved = photos.parent / "disk2" / "photos"
    moved.parent.mkdir()
    photos.rename(moved)
    with pytest.raises(DataError, match="is gone: give the place where it is now with --data-root"):
        open_split(run, "validation")
    open_split(run, "validation", data_root=photos.parent / root)
    open_split(run, "test", data_root=photos.parent / root)
    next(moved.rglob("*.png")).unlink()
    with pytest.raises(DataError, match="not the images"):
        open_split(run, "validation", data_root=photos.parent / root)


def test_a_run_of_an_earlier_vitlab_says_that_its_split_cannot_be_found_again(photos):
    run = train_on(photos, "run")
    (run.path / "split.npz").unlink()
    with pytest.raises(RunError, match=r"earlier vitlab.*train it again"):
        open_split(run, "validation")


def test_examples_given_in_another_order_are_the_same_data(photos):
    config = data.open_dataset(DataConfig(dataset=str(photos))).config
    first = data.open_dataset(config).examples
    order = np.random.default_rng(0).permutation(len(first.labels))
    turned = LabelledImages(first.images[order], first.labels[order], first.class_names).canonical()
    assert turned.fingerprint == first.fingerprint
    assert np.array_equal(turned.split(config)[1], first.split(config)[1])


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

"""Protects explorations of data: what is shown and counted, and that names break nothing."""

import csv
import json
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from vitlab.cli import main
from vitlab.config import AugmentConfig, DataConfig
from vitlab.data import open_dataset
from vitlab.data.operations import OPERATIONS
from vitlab.embeddings import separation
from vitlab.explore import explore, patch_side, techniques
from vitlab.figures import style

NAMES = ["<b>$x_1$", "cat", "🐿 a|b"]
PICTURES = (
    "samples", "class-counts", "intensities", "patches", "tokens", "augmentations", "operations",
    "near-duplicates", "maps-pixels", "maps-backbone",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """Fewer dots an inch: the same drawing, sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(style.STYLE, "savefig.dpi", 30)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Three classes of 12x20 colour images: of each two images, six times with a little noise."""
    draw = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("data") / "a|b *c* <i>"
    for name in NAMES:
        (root / name).mkdir(parents=True)
        for one in range(2):
            image = draw.integers(20, 230, (12, 20, 3))
            for copy in range(6):
                near = image + draw.integers(-2, 3, image.shape)
                Image.fromarray(near.astype(np.uint8)).save(root / name / f"{one}-{copy}.png")
    return DataConfig(dataset=str(root))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A pretrained model that was never trained, in the form in which others are saved."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbone")
    ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=16,
            patch_size=8,
        )
    ).save_pretrained(folder)
    settings = {
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5] * 3,
        "image_std": [0.2] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture(scope="module")
def explored(config, backbone, tmp_path_factory):
    """The numbers of an exploration, and its folder."""
    folder = tmp_path_factory.mktemp("explored")
    return explore(config, out=folder, backbone=backbone, device="cpu"), folder


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_every_picture_lies_beside_its_numbers_and_the_page_names_no_other(explored):
    numbers, folder = explored
    expected = {f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg", "csv")}
    assert {file.name for file in folder.iterdir()} == expected | {"numbers.json", "index.md"}
    shown = re.findall(r"!\[[^]]*]\(([^)]*)\)", (folder / "index.md").read_text())
    assert shown == [f"{name}.png" for name in PICTURES]
    assert json.loads((folder / "numbers.json").read_text()) == numbers


def test_exploring_again_gives_equal_bytes(explored, config, backbone, tmp_path):
    explore(config, out=tmp_path, backbone=backbone, device="cpu")
    for file in explored[1].iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_images_are_counted_by_split_and_copies_are_found_in_both_others(explored):
    assert explored[0]["images"] == [
        {"split": "training", "images": 27, "near_duplicates": None},
        {"split": "validation", "images": 3, "near_duplicates": 3},
        {"split": "test", "images": 6, "near_duplicates": 6},
    ]
    counts = {"training": [9] * 3, "validation": [1] * 3, "test": [2] * 3}
    assert explored[0]["class_counts"] == counts


def test_only_training_images_are_sampled(explored, config):
    train, _ = open_dataset(config).examples.split(config)
    sampled = rows(explored[1] / "samples.csv")[1:]
    assert [row[0] for row in sampled] == [name for name in NAMES for _ in range(9)]
    assert {int(row[2]) for row in sampled} == set(train.tolist())


def test_distances_in_their_own_space_are_those_of_the_pixels(explored, config):
    examples = open_dataset(config).examples
    train, _ = examples.split(config)
    pixels = examples.images[train].reshape(27, -1) / 255
    found = explored[0]["separation"][0]
    assert (found["features"], found["space"], found["dimensions"]) == ("pixels", "own", 720)
    assert found["ratio"] == pytest.approx(separation(pixels, examples.labels[train]).ratio)


def test_a_backbone_is_mapped_like_the_pixels(explored):
    spaces = [(row["features"], row["space"]) for row in explored[0]["separation"]]
    assert spaces == [(of, s) for of in ("pixels", "backbone") for s in ("own", "PCA", "t-SNE")]
    assert explored[0]["separation"][3]["dimensions"] == 32  # CLS, mean of patches
    assert len(rows(explored[1] / "maps-backbone.csv")) == 1 + 2 * 27


def test_a_name_with_markup_is_itself_in_the_page_and_the_numbers(explored):
    title = (explored[1] / "index.md").read_text().splitlines()[0]
    assert title == r"# a\|b \*c\* \<i\>"
    assert [row[0] for row in rows(explored[1] / "class-counts.csv")[1:]] == NAMES


def test_every_field_of_the_augmentation_is_shown():
    off = vars(AugmentConfig())
    shown = {
        name
        for config in techniques(32)
        for name, value in vars(config).items()
        if value != off[name]
    }
    assert shown == {field.name for field in fields(AugmentConfig)} - {
        "policy_operations",
        "policy_magnitude",
    }


def test_operations_and_the_targets_of_mixed_images_are_written_down(explored):
    operations = rows(explored[1] / "operations.csv")[1:]
    assert list(dict.fromkeys(row[0] for row in operations)) == list(OPERATIONS)
    assert ["rotate", "T 20", ""] in operations
    words = {row[0]: row[2] for row in rows(explored[1] / "augmentations.csv")[1:]}
    assert re.match(r"\d+ % ", words["cutmix 1.0"])
    assert words["crop_padding 1"] == ""


@pytest.mark.parametrize(
    ("size", "side"), [((32, 32), 4), ((8, 8), 2), ((28, 28), 4), ((64, 224), 8), ((1, 9), 1)]
)
def test_about_eight_patches_lie_along_the_shorter_edge(size, side):
    assert patch_side(*size) == side


def test_the_verb_takes_fields_of_data_and_explores_grey_images_without_copies(
    tmp_path, capsys, monkeypatch
):
    draw = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / "grey" / name).mkdir(parents=True)
        for k in range(5):
            noise = draw.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(noise).save(tmp_path / "grey" / name / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    assert main(["explore", "grey", "--data.validation_fraction", "0.3", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["shape"] == [8, 8, 1] and len(numbers["mean"]) == 1
    assert [row["images"] for row in numbers["images"]] == [6, 2, 2]
    assert [row["near_duplicates"] for row in numbers["images"]] == [None, 0, 0]
    folder = tmp_path / "explore" / "grey"
    assert not (folder / "near-duplicates.png").exists()
    assert "near-duplicates.png" not in (folder / "index.md").read_text()
    assert main(["explore", "grey", "--model.norm", "rms"]) == 2
    assert "unknown option --model.norm" in capsys.readouterr().err

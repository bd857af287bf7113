"""What the pages say of the models that ship was measured on the weights that ship."""

import json
from pathlib import Path

import pytest

from vitlab import pretrained
from vitlab.reproduce import comparison, layers, maps
from vitlab.reproduce.records import RECORDS
from vitlab.reproduce.shipped import IMAGES, PICTURES

ROOT = Path(__file__).parents[2]


def sha256(name: str) -> str:
    return pretrained.shipped(name).checkpoint().sha256


MAPS = {path.stem for path in (ROOT / maps.FOLDER).glob("*.json")}


@pytest.mark.parametrize("name", sorted(MAPS & set(pretrained.names())))
def test_its_maps_are_those_of_its_weights(name):
    record = json.loads((ROOT / maps.FOLDER / f"{name}.json").read_text())
    assert record["checkpoint_sha256"] == sha256(name)


def test_maps_that_were_not_measured_are_said_to_be_missing():
    page = (ROOT / maps.PAGE).read_text()
    for name in set(pretrained.names()) - MAPS:
        assert f"`{name}` as it ships now is not yet measured" in page


def test_its_layers_are_those_of_its_weights():
    for run in json.loads((ROOT / layers.RECORD).read_text())["runs"]:
        assert run["checkpoint_sha256"] == sha256(run["run"])


def test_its_place_beside_the_others_is_that_of_its_config():
    for run in json.loads((ROOT / comparison.RECORD).read_text())["runs"]:
        config = pretrained.shipped(run["run"]).config
        assert run["facts"]["config_sha256"]["value"] == config.sha256


def test_its_service_was_measured_with_its_weights():
    for file in (ROOT / RECORDS).glob("serve*.json"):
        record = json.loads(file.read_text())
        same = record["checkpoint_sha256"] == sha256(record["model"])
        assert same == (file.stem == "serve")


def test_its_pictures_are_on_a_page():
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    for name in PICTURES.values():
        assert (ROOT / IMAGES / name).is_file() and f"images/{name}" in pages

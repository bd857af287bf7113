"""The page of a model: its weights are the run's, its words those that were measured."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitlab
from vitlab import explain, files
from vitlab.cli import main
from vitlab.config import ViTConfig
from vitlab.data import open_dataset
from vitlab.errors import ConfigError, DataError, RunError, VitlabError
from vitlab.explain import faithfulness
from vitlab.explorable import inside, page
from vitlab.models.vit import ViT
from vitlab.records import PASSED

ROOT = Path(__file__).parents[2]
BUILT = page.TEMPLATE

TEMPLATE = '<title>A page</title><script type="application/json" id="payload">\n{}\n</script>'


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """A template of one line, few measured images, and no data set but the digits."""
    template = tmp_path / "template.html"
    template.write_text(TEMPLATE.format(page.GAP))
    monkeypatch.setattr(page, "TEMPLATE", template)
    monkeypatch.setattr(explain, "MEASURED", 12)
    monkeypatch.setattr(faithfulness, "CHECKED", 4)
    monkeypatch.setattr(explain.explanation, "faithfulness", lambda *_, **__: None)
    monkeypatch.delenv("VITLAB_DATA", raising=False)
    monkeypatch.setenv("VITLAB_RUNS", str(tmp_path / "shipped"))


def read(path) -> dict:
    """The payload of a page."""
    (text,) = re.findall(r'id="payload">(.*)</script>', path.read_text(), re.DOTALL)
    return json.loads(text)


def unpack(payload) -> dict[str, np.ndarray]:
    """The tensors of a payload, as the page reads them."""
    data = base64.b64decode(payload["weights"])
    types = {"float16": "<f2", "float32": "<f4"}
    return {
        name: np.frombuffer(data, types[one["dtype"]], int(np.prod(one["shape"])), one["offset"])
        .astype(np.float32)
        .reshape(one["shape"])
        for name, one in payload["tensors"].items()
    }


def pixels(picture, payload) -> np.ndarray:
    shape = [payload["image"][name] for name in ("height", "width", "channels")]
    return np.frombuffer(base64.b64decode(picture["pixels"]), np.uint8).reshape(shape)


def photo(path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.mark.parametrize("name", ["cpu", "cpu-plain", "cpu-cnn"])
def test_the_weights_of_a_shipped_model_lie_in_the_page_bit_by_bit_and_in_half_the_room(name):
    model = vitlab.load(name, device="cpu")
    payload = page.payload(model)
    found = unpack(payload)
    for key, weight in model.module.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert found.pop(key).tobytes() == weight.float().numpy().tobytes(), key
    assert set(found) <= {"position.added"}
    assert {one["dtype"] for one in payload["tensors"].values()} == {"float16"}
    assert not any(one["offset"] % 4 for one in payload["tensors"].values())
    assert len(json.dumps(payload)) < 2.5e6


@pytest.mark.parametrize("position", ["none", "learned", "sin1d", "sin2d", "rope"])
def test_positions_are_stored_as_they_act(position):
    torch.manual_seed(0)
    cfg = ViTConfig(width=16, depth=1, heads=2, patch_size=4, position=position, registers=1)
    model = ViT(cfg, (8, 12), channels=1, classes=3)
    found = page.tensors(model)
    tokens, queries = torch.randn(1, 8, 16), torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        added = model.pos_embed.add(tokens).numpy()
        rotated = model.pos_embed.rotate(queries).numpy()
    np.testing.assert_array_equal(tokens.numpy() + found.get("position.added", 0), added)
    cosine, sine = found.get("position.rotation", (np.float32(1), np.float32(0)))
    x, y = np.split(queries.numpy(), 2, axis=-1)
    turned = np.concatenate([x * cosine - y * sine, x * sine + y * cosine], axis=-1)
    np.testing.assert_allclose(turned, rotated, atol=1e-6)
    assert ("position.added" in found) == (position in ("learned", "sin1d", "sin2d"))
    assert ("position.rotation" in found) == (position == "rope")


def test_half_precision_is_used_only_where_it_is_exact():
    arrays = {
        "exact": np.array([0.5, -0.0, 2**-24, 65504], np.float32),
        "third": np.array([0.5, 1 / 3], np.float32),
        "large": np.array([70_000], np.float32),
        "odd": np.ones((3, 1), np.float32),
        "nan": np.array([np.nan], np.float32),
    }
    index, data = page.pack(arrays)
    found = unpack({"tensors": index, "weights": page.in_base64(data)})
    for name, array in arrays.items():
        assert found[name].tobytes() == array.tobytes(), name
        assert index[name]["offset"] % 4 == 0
    kinds = {name: one["dtype"] for name, one in index.items()}
    assert [name for name, kind in kinds.items() if kind == "float16"] == ["exact", "odd"]


def test_a_run_shows_held_out_images_of_every_class_and_the_verdicts_of_explain(digits_run, capsys):
    assert main(["inside", str(digits_run.path), "--count", "12", "--json", "--quiet"]) == 0
    path = digits_run.path / "inside.html"
    told = json.loads(capsys.readouterr().out)
    assert told == {"page": str(path), "bytes": path.stat().st_size}
    payload = read(path)
    model = vitlab.load(digits_run, device="cpu")
    assert payload["summary"] == model.introduction
    assert payload["model"] == json.loads((digits_run.path / "config.json").read_text())["model"]
    assert payload["classes"] == list(model.class_names)
    examples = open_dataset(digits_run.config.data).examples
    places = [int(one["name"].removeprefix("validation-")) for one in payload["pictures"]]
    assert set(places) <= set(digits_run.split.index[1].tolist()) and len(set(places)) == 12
    for one, place in zip(payload["pictures"], places, strict=True):
        assert one["truth"] == examples.class_names[examples.labels[place]]
        np.testing.assert_array_equal(pixels(one, payload), examples.images[place])
    assert [one["truth"] for one in payload["pictures"]][:10] == list(examples.class_names)

    stored = json.loads(digits_run.faithfulness_file("validation").read_text())
    assert stored["checkpoint_sha256"] == digits_run.checkpoint().sha256
    assert payload["tested"] == "12 validation images"
    tested = {one["method"]: one for one in stored["methods"] if "verdict" in one}
    assert set(payload["verdicts"]) == set(tested) == set(page.METHODS)
    for method, said in payload["verdicts"].items():
        assert said["verdict"] == tested[method]["verdict"]
        assert said["passed"] == (said["verdict"] == PASSED)
        assert said["gain"] == tested[method]["gain"]
    again = path.read_bytes()
    inside(digits_run, count=12, quiet=True)
    assert path.read_bytes() == again


def test_a_shipped_model_has_verdicts_where_its_data_set_is_not(tmp_path, capsys):
    with pytest.warns(UserWarning, match=r"cifar10 is not on this machine.*no images"):
        path = inside("cpu-plain", device="cpu")
    assert path == tmp_path / "shipped" / "cpu-plain" / "inside.html"
    payload = read(path)
    assert payload["pictures"] == []
    assert set(payload["verdicts"]) == set(page.METHODS)
    assert payload["tested"] == "256 validation images"
    assert payload["explain"] == "vitlab explain cpu-plain"
    assert main(["inside", "cpu-plain", "--count", "0", "--out", str(tmp_path / "a/b.html")]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out == f"page in {tmp_path / 'a/b.html'}, 1.9 MB\n"


def test_pictures_of_ones_own_are_brought_to_the_model_and_need_no_data_set(tmp_path):
    file = photo(tmp_path / "my <b>cat & dog.png")
    out = inside("cpu-plain", [file, file], out=tmp_path / "x.html", device="cpu")
    payload = read(out)
    assert not (tmp_path / "shipped").exists(), "nothing is to be written there"
    first, second = payload["pictures"]
    assert first["title"] == "my <b>cat & dog.png" and first["truth"] is None
    assert first["name"] != second["name"]
    expected = vitlab.load("cpu-plain").preprocessing.read(file)
    np.testing.assert_array_equal(pixels(first, payload), expected)


def test_a_run_without_images_or_verdicts_still_has_its_page(digits_run, tmp_path):
    config = digits_run.path / "config.json"
    gone = json.loads(config.read_text())
    gone["data"]["dataset"] = str(tmp_path / "gone")
    config.write_text(json.dumps(gone))
    run = vitlab.Run(digits_run.path)
    with pytest.warns(UserWarning, match="is gone.*no images to begin with and no verdicts on its"):
        payload = read(inside(run))
    assert payload["pictures"] == [] and payload["verdicts"] == {} and payload["tested"] is None
    assert payload["explain"].startswith("vitlab explain ")
    assert str(tmp_path) not in json.dumps(payload), "folders are nobody else's business"
    with pytest.raises(DataError):
        inside(run, data_root=tmp_path)


def test_several_labels_and_no_held_out_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 1), np.uint8)
    labels = (np.arange(24)[:, None] % (2, 3) == 0).astype(np.uint8)
    config = vitlab.Config().override(
        {"data.task": "multilabel", "data.validation_fraction": 0, "data.dataset": "arrays"}
        | {"model.width": 8, "model.depth": 1, "model.heads": 2, "model.patch_size": 4}
        | {"train.epochs": 1, "optim.warmup_epochs": 0, "train.batch_size": 24}
    )
    run = vitlab.train(config, data=(images, labels), out=tmp_path, name="few", quiet=True)
    payload = read(inside(run, count=3, data=(images, labels), quiet=True))
    assert payload["task"] == "multilabel" and payload["thresholds"] == [0.5, 0.5]
    assert not payload["calibrated"] and payload["temperature"] == 1
    assert payload["tested"] == "12 training images"
    assert len(payload["pictures"]) == 3
    assert all(one["title"].startswith("training image") for one in payload["pictures"])
    names = run.provenance["data"]["class_names"]
    truths = [one["truth"] for one in payload["pictures"]]
    assert names[0] in truths[0] and names[1] in truths[1] and truths[2] == "none"


def test_a_class_name_cannot_leave_its_place(digits_run):
    evil = "</script><img src=x><!-- \u2028 "
    file = digits_run.path / "provenance.json"
    provenance = json.loads(file.read_text())
    provenance["data"]["class_names"][0] = evil
    file.write_text(json.dumps(provenance))
    path = inside(digits_run, [photo(digits_run.path / "x.png")], data_root=None, quiet=True)
    text = path.read_text()
    assert text.count("<") == TEMPLATE.count("<")
    assert read(path)["classes"][0] == evil


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"count": -1}, ConfigError, "count=-1"),
        ({"out": "."}, ConfigError, "is a folder: name a file"),
        ({"out": "/dev/null/x.html"}, RunError, "cannot write /dev/null/x.html"),
        ({"images": ["gone.png"]}, DataError, "gone.png"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(digits_run, changes, error, told):
    with pytest.raises(error, match=re.escape(told)):
        inside(digits_run, **{"images": [photo(digits_run.path / "x.png")], **changes}, quiet=True)
    assert not digits_run.inside.exists()


def test_models_that_a_page_cannot_hold_are_refused(digits_run, monkeypatch):
    picture = [photo(digits_run.path / "x.png")]
    monkeypatch.setattr(page, "LARGEST", 1000)
    with pytest.raises(VitlabError, match=r"weights of tiny take 0.0 MB.*vitlab serve"):
        inside(digits_run, picture)
    folder = digits_run.checkpoint().path
    state, manifest = folder / "state.json", folder / "manifest.json"
    edited = json.loads(state.read_text())
    edited["image_size"] = [4, 4]
    entries = json.loads(manifest.read_text())
    files.write_json(state, edited)
    entries["state.json"] = {"bytes": state.stat().st_size, "sha256": files.sha256(state)}
    files.write_json(manifest, entries)
    with pytest.raises(RunError, match=r"small images, of 4 x 4 pixels.*--resume"):
        inside(digits_run, picture)


def test_a_backbone_is_refused_before_it_is_opened(tmp_path, backbone, write_run):
    fields = {"model.kind": "backbone", "model.name": backbone, "data.dataset": "digits"}
    config = vitlab.recipe("linear").override(fields)
    run = write_run(tmp_path / "run", config, 0.9)
    with pytest.raises(VitlabError, match=r"pretrained network.*vitlab explain"):
        inside(run)


def test_a_page_that_cannot_be_finished_leaves_the_old_one(digits_run, monkeypatch):
    picture = [photo(digits_run.path / "x.png")]
    path = inside(digits_run, picture, quiet=True)
    before = sorted(digits_run.path.iterdir()), path.read_bytes()
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(full))
    with pytest.raises(RunError, match="No space left"):
        inside(digits_run, picture, out=path, quiet=True)
    assert (sorted(digits_run.path.iterdir()), path.read_bytes()) == before


def test_a_template_without_its_gap_is_an_error_of_ours(monkeypatch, tmp_path):
    for text in ("", page.GAP * 2):
        (tmp_path / "bad.html").write_text(text)
        monkeypatch.setattr(page, "TEMPLATE", tmp_path / "bad.html")
        with pytest.raises(VitlabError, match="make page"):
            page.render({})


def test_the_page_that_ships_was_built_from_its_sources():
    web = ROOT / "web"
    names = ("index.html", "package-lock.json", "package.json", "vite.config.ts")
    paths = [web / name for name in names]
    paths += [path for part in ("src", "kernels") for path in (web / part).rglob("*")]
    digest = hashlib.sha256()
    for path in sorted(path.relative_to(web).as_posix() for path in paths if path.is_file()):
        digest.update(path.encode() + b"\0" + (web / path).read_bytes())
    built = re.findall(r'name="vitlab-sources" content="(\w+)"', BUILT.read_text())
    assert built == [digest.hexdigest()], "build the page: make page"

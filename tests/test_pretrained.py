"""The models that ship work as runs, and are as good as their cards say."""

import numpy as np
import pytest
from safetensors.numpy import load_file

import vitlab
from vitlab import pretrained
from vitlab.data import open_dataset
from vitlab.errors import RunError
from vitlab.explain import choose
from vitlab.records import PASSED


@pytest.fixture(params=["cpu", "cpu-plain", "cpu-cnn"])
def run(request):
    return pretrained.shipped(request.param)


def test_all_of_them_fit_into_five_and_a_half_megabytes():
    folder = pretrained.FOLDER
    assert pretrained.names() == ["cpu", "cpu-cnn", "cpu-plain"]
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 5.5e6


def test_weights_are_half_precision_and_the_checkpoint_is_sound(run):
    checkpoint = run.checkpoint()
    assert checkpoint.damage is None
    types = {tensor.dtype.name for tensor in load_file(run.weights(checkpoint)).values()}
    assert types <= {"float16", "int64"}


def test_the_plain_one_is_small_and_has_a_cls_token():
    run = pretrained.shipped("cpu-plain")
    assert run.config.model.patch == "linear" and run.config.model.cls_token
    assert run.finished["parameters"] <= 800_000


def test_the_card_says_what_the_stored_results_say_and_names_no_machine(run):
    card = (run.path / "README.md").read_text()
    assert f"{100 * run.results['test']['accuracy']:.2f} %" in card
    assert run.provenance["data"]["fingerprint"][:16] in card
    assert run.provenance["data"]["class_names"][3] == "cat"
    for file in run.path.rglob("*.json*"):
        assert "/home/" not in file.read_text() and "/root/" not in file.read_text()


def test_it_knows_which_of_its_maps_are_true_without_any_images(run):
    verdicts = run.map_verdicts("validation", run.checkpoint().sha256)
    assert PASSED in verdicts.values()
    assert set(verdicts) >= set(choose(vitlab.load(run, device="cpu").module))


def test_it_is_as_accurate_on_real_images_as_its_card_says(run, cifar10):
    examples = open_dataset(run.config.data, root=cifar10).examples
    index = run.split.index[1][:1000]
    logits = vitlab.predict(run, examples.images[index], device="cpu")
    accuracy = (logits.argmax(1) == examples.labels[index]).mean()
    stated = run.results["validation"]["accuracy"]
    assert abs(accuracy - stated) < 4 * np.sqrt(stated * (1 - stated) / 1000)


def test_an_unknown_name_suggests_the_right_one():
    with pytest.raises(RunError, match="did you mean cpu-plain"):
        pretrained.shipped("cpu-plane")


def test_what_is_written_into_is_a_copy_among_the_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_RUNS", str(tmp_path / "runs"))
    copy = pretrained.open_run("cpu-plain")
    assert copy.path == tmp_path / "runs" / "cpu-plain"
    assert copy.checkpoint().sha256 == pretrained.shipped("cpu-plain").checkpoint().sha256
    assert [path.name for path in copy.path.parent.iterdir()] == ["cpu-plain"]
    copy.write_results({"validation": {}})
    for named in ("cpu-plain", pretrained.shipped("cpu-plain"), copy, copy.path):
        assert pretrained.open_run(named).results == {"validation": {}}


def test_a_folder_where_no_copy_can_be_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_RUNS", str(tmp_path))
    pretrained.open_run("cpu").path.rename(tmp_path / "cpu-plain")
    with pytest.raises(RunError, match="not a copy of the shipped model cpu-plain"):
        pretrained.open_run("cpu-plain")
    (tmp_path / "runs").touch()
    monkeypatch.setenv("VITLAB_RUNS", str(tmp_path / "runs"))
    with pytest.raises(RunError, match="cannot copy cpu to"):
        pretrained.open_run("cpu")

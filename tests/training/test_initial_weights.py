"""A training may start from weights of another: they are taken over once and then forgotten."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from vitlab.config import Config, OptimConfig, TrainConfig, ViTConfig
from vitlab.data import from_arrays
from vitlab.errors import ConfigError, RunError
from vitlab.run import Run
from vitlab.training import resume, train

SOURCE = Config(
    model=ViTConfig(patch="whitened", patch_size=2, width=16, depth=2, heads=2),
    optim=OptimConfig(average_decay=0.9),
    train=TrainConfig(epochs=1, batch_size=135),
)


@pytest.fixture(scope="module")
def source(data, tmp_path_factory) -> Run:
    return train(SOURCE, data=data, out=tmp_path_factory.mktemp("runs"), quiet=True)


def test_weights_are_taken_over_once_and_the_source_may_vanish(
    data, source, tmp_path, cut, fingerprint, capsys
):
    source = Run(shutil.copytree(source.path, tmp_path / "source"))
    config = SOURCE.override({"train.weights": str(source.path), "optim.freeze": "blocks.0"})
    straight = train(config, data=data, out=tmp_path, name="straight")
    assert "tensors taken over" in capsys.readouterr().err
    stored = straight.provenance["weights"]
    assert stored["source"] == str(source.path) and len(stored["sha256"]) == 64
    assert "head.weight" in stored["report"]["matched"]
    with cut(after=0):
        train(config, data=data, out=tmp_path, name="cut", quiet=True)
    begun = Run(tmp_path / "cut").checkpoint()
    assert begun.step == 0
    given = load_file(source.checkpoint().average)
    for file in (begun.model, begun.average):
        for name, tensor in load_file(file).items():
            assert np.array_equal(tensor, given[name]), name
    shutil.rmtree(source.path)
    assert fingerprint(resume(tmp_path / "cut", data=data, quiet=True)) == fingerprint(straight)
    final = load_file(straight.checkpoint().model)
    frozen = {name for name in given if name.startswith("blocks.0.")}
    assert frozen and all(np.array_equal(final[name], given[name]) for name in frozen)
    assert not np.array_equal(final["head.weight"], given["head.weight"])


def test_a_head_learned_for_other_classes_is_not_taken_over(data, source, tmp_path):
    config = SOURCE.override({"train.weights": str(source.path)})
    fates = {
        "matched": ("0", "1", "2"),
        "resized": ("1", "0", "2"),
        "skipped": ("ant", "bee", "cat"),
    }
    for fate, names in fates.items():
        run = train(config, data=from_arrays(*data, names), out=tmp_path, name=fate, quiet=True)
        report = run.provenance["weights"]["report"]
        assert {"head.weight", "head.bias"} <= set(report[fate]), fate
    assert "of the classes 0, 1, 2, here ant, bee, cat" in report["skipped"]["head.bias"]


def test_weights_that_do_not_fit_leave_no_run_behind(data, source, tmp_path):
    other = SOURCE.override({"train.weights": str(source.path), "model.width": 32})
    with pytest.raises(RunError, match="of another model"):
        train(other, data=data, out=tmp_path / "runs", quiet=True)
    missing = SOURCE.override({"train.weights": str(tmp_path / "nothing.safetensors")})
    with pytest.raises(RunError, match="does not exist"):
        train(missing, data=data, out=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_trained_is_told_at_once_and_leaves_no_run_behind(data, tmp_path):
    config = SOURCE.override(
        {
            "model.kind": "cnn6", "optim.freeze": "stages.stem,head", "optim.layer_decay": 0.9,
            "train.batch_size": 500, "train.drop_last": True,
        }
    )  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        train(config, data=data, out=tmp_path / "runs", quiet=True)
    message = str(refused.value)
    assert "optim.freeze='stages.stem' is no parameter: choose from stages" in message
    assert "optim.layer_decay=0.9" in message and "drop_last" in message
    single = {"model.kind": "cnn6", "train.batch_size": 269}  # 270 images: the last batch has one
    with pytest.raises(ConfigError, match=r"one image is too few for batch norm"):
        train(SOURCE.override(single), data=data, out=tmp_path / "runs", quiet=True)
    with pytest.raises(ConfigError, match=r"blocks\.0, blocks\.1"):
        train(SOURCE.override({"optim.freeze": "block"}), data=data, out=tmp_path, quiet=True)
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        everything = {"model.kind": "cnn6", "optim.freeze": "stages,head"}
        train(SOURCE.override(everything), data=data, out=tmp_path, quiet=True)
    assert not (tmp_path / "runs").exists()

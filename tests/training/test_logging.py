"""TensorBoard sees what metrics.jsonl says, each step once."""

import sys

import numpy as np
import pytest

from vitlab.config import Config, TrainConfig, ViTConfig
from vitlab.errors import VitlabError
from vitlab.run import Run
from vitlab.training import resume, train

CONFIG = Config(
    model=ViTConfig(width=16, depth=1, heads=2),
    train=TrainConfig(epochs=2, batch_size=90, log_steps=1),
)


def shown(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each tag, as TensorBoard reads them."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run.events))
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def written(run: Run, split: str, key: str) -> list[tuple[int, float]]:
    """The same from metrics.jsonl; TensorBoard's numbers have 32 bits."""
    lines = [line for line in run.metrics if line["split"] == split]
    return [(line["step"], np.float32(line[key])) for line in lines]


def test_every_line_of_metrics_is_an_event_also_after_a_crash(data, tmp_path):
    run = train(CONFIG, data=data, out=tmp_path, tensorboard=True, quiet=True)
    events = shown(run)
    assert events["train/loss"] == written(run, "train", "loss")
    assert events["lr"] == written(run, "train", "lr")
    assert events["validation/accuracy"] == written(run, "validation", "accuracy")
    assert len(events["train/loss"]) == 6
    (run.path / "finished.json").unlink()
    last = run.checkpoint()
    last.path.rename(tmp_path / "lost")
    resume(run.path, data=data, tensorboard=True, quiet=True)
    assert [step for step, _ in shown(run)["train/loss"]] == list(range(1, 7))
    assert shown(run)["train/loss"] == written(run, "train", "loss")


def test_without_the_extra_nothing_is_begun(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(VitlabError, match=r"pip install 'vitlab\[tensorboard\]'"):
        train(CONFIG, data=data, out=tmp_path / "runs", tensorboard=True, quiet=True)
    assert not (tmp_path / "runs").exists()

"""What a GPU is asked to do for a step, counted on the meta device, which asks nothing back.

A host that hands a GPU hundreds of small operations a step is slower than the GPU; one that asks
a GPU for a number waits for it, and breaks the capture of a step.
"""

import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitlab.config import Config
from vitlab.data import LabelledImages
from vitlab.data.batches import Batches, DeviceImages
from vitlab.models import build_model
from vitlab.recipes import ALL_RECIPES
from vitlab.reproduce.rows import row_config
from vitlab.training import step as step_module
from vitlab.training.cuda_graph import CUDAGraphStep
from vitlab.training.state import TrainState
from vitlab.training.step import TrainingStep

META = torch.device("meta")
MEAN = STD = (0.5, 0.5, 0.5)
SHAPE = {"data.image_size": (32, 32), "data.channels": 3, "data.classes": 10}

QUICK = ("cpu", "cpu-cnn", "vit-d9-w192", "fast", "strong-conv", "strong-plain-distilled")
"""Recipes that differ most; the others are slow."""

RECIPES = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ALL_RECIPES],
)


class Launches(TorchDispatchMode):
    """Counts the operations on meta tensors that are more than another view of memory."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.from_host: list[str] = []
        """Operations that read a tensor of the host, beside the copies that bring it over."""
        self.asked = 0
        """Numbers that the host read, wherever they lay."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        # The fused optimisers have no kernel for meta tensors, and change them in place.
        skipped = "_fused_" in str(operation) and any(tensor.is_meta for tensor in given)
        result = None if skipped else operation(*args, **(kwargs or {}))
        self.asked += "_local_scalar_dense" in str(operation)
        made = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        if any(tensor.is_meta for tensor in given + made):
            self.count += not operation.is_view
            if "copy" not in str(operation) and not all(tensor.is_meta for tensor in given):
                self.from_host.append(str(operation))
        return result


@pytest.fixture
def on_meta(monkeypatch):
    """Let a training step take meta tensors for those of a GPU."""
    for kind in ("adam", "sgd"):
        module = sys.modules[f"torch.optim.{kind}"]
        monkeypatch.setattr(module, "_device_dtype_check_for_fused", lambda *_, **__: None)
    monkeypatch.setattr(step_module, "autocast", lambda *_: nullcontext())


def shallow(name: str, **changes: Any) -> Config:
    """A recipe whose ViT has two blocks: the others are launched no differently."""
    config = row_config(name, SHAPE | changes)
    return config.override({"model.depth": 2}) if hasattr(config.model, "depth") else config


def training_step(config: Config, kind: type[TrainingStep] = TrainingStep) -> TrainingStep:
    with META:
        model = build_model(config).train()
    return kind(TrainState.build(model, config.optim, (32, 32), "fp32"), config, "fp32")


def batches(config: Config) -> Batches:
    size = 2 * config.train.batch_size
    pixels = np.zeros((size, 32, 32, 3), np.uint8)
    labels = np.arange(size) % 10
    examples = LabelledImages(pixels, labels, tuple("abcdefghij"))
    return Batches(DeviceImages(examples, np.arange(size), META), config, MEAN, STD)


class Graph:
    """A captured step: one launch."""

    def replay(self) -> None:
        torch.empty((), device=META).zero_()


@RECIPES
def test_a_replayed_step_takes_fewer_than_150_launches(name, on_meta):
    config = shallow(name)
    replay, made = training_step(config, CUDAGraphStep), batches(config)
    with Launches() as block:
        images, targets = made.batch(0)
    replay.images, replay.targets = images.clone(), targets.clone()
    replay.shape, replay.measured, replay.graph = images.shape, torch.empty(2, device=META), Graph()
    with Launches() as step:
        replay.set_scalars(1.0, seed=0)
        replay(images, targets)
    assert made.block > 1
    assert block.count / made.block + step.count < 150


@RECIPES
def test_what_is_captured_asks_nothing_of_the_host_and_gets_nothing_from_it(name, on_meta):
    config = shallow(name, **{"train.batch_size": 8})
    ours = training_step(config)
    images, targets = torch.empty(8, 3, 32, 32, device=META), torch.empty(8, 10, device=META)
    with Launches():
        ours(images, targets)  # moments come into being
    with Launches() as launches:  # a question would raise
        ours(images, targets)
    assert launches.count > 50
    assert not launches.from_host


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_the_loss_scale_of_fp16_is_captured_except_with_muon(optimizer):
    config = row_config("vit-d9-w192", {**SHAPE, "train.batch_size": 2, "model.depth": 1})
    config = config.override({"optim.optimizer": optimizer, "optim.clip_norm": 1.0})
    state = TrainState.build(build_model(config).train(), config.optim, (32, 32), "fp16")
    ours = TrainingStep(state, config, "fp32")
    images, targets = torch.randn(2, 3, 32, 32), torch.full((2, 10), 0.1)
    ours.set_scalars(1.0, seed=0)
    ours(images, targets)
    with Launches() as launches:
        ours(images, targets)
    assert bool(launches.asked) == (optimizer == "muon")

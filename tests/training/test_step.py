"""A step moves weights as its parts, written out one by one, would."""

import copy
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vitlab.config import CNN6Config, Config, DataConfig, OptimConfig, TrainConfig, ViTConfig
from vitlab.errors import DivergenceError
from vitlab.models import build_model
from vitlab.run import Checkpoint, Run
from vitlab.training.cuda_graph import CUDAGraphStep, build_step, unchanged
from vitlab.training.optim import orthogonalize
from vitlab.training.state import Clock, Plateau, TrainState
from vitlab.training.step import StepResults, TrainingStep

CONFIG = Config(
    data=DataConfig(image_size=(8, 8), channels=3, classes=10),
    # A bias on keys has no gradient but rounding, which Adam would blow up.
    model=ViTConfig(width=16, depth=2, heads=2, qkv_bias=False),
    optim=OptimConfig(lr=1e-2, muon_lr=0.05, clip_norm=0.5, average_decay=0.9),
    train=TrainConfig(batch_size=6),
)


def training_step(
    config: Config, device: str = "cpu", compilation: str = "off", precision: str = "fp32"
) -> TrainingStep:
    torch.manual_seed(0)
    model = build_model(config).to(device)
    state = TrainState.build(model, config.optim, (8, 8), precision)
    return build_step(state, config, precision, compilation)


def take(step: TrainingStep, images, targets, lr_scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Take a step; its loss and gradient norm."""
    step.set_scalars(lr_scale, seed)
    return step(images, targets)


def assert_same_weights(one, two, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    for weight, expected in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=rtol, atol=atol)


def batches(count: int, device: str = "cpu") -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(6, 3, 8, 8, generator=generator).to(device),
            F.one_hot(torch.randint(10, (6,), generator=generator), 10).float().to(device),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_steps_equal_those_of_torch_written_out(optimizer):
    ours = training_step(CONFIG.override({"optim.optimizer": optimizer, "optim.decay": "all"}))
    model, optim = copy.deepcopy(ours.state.model), ours.config.optim
    average = copy.deepcopy(model)
    if optimizer == "adamw":
        theirs = torch.optim.AdamW(model.parameters(), betas=optim.betas)
    else:
        theirs = torch.optim.SGD(model.parameters(), momentum=optim.momentum)
    theirs.param_groups[0]["weight_decay"] = optim.weight_decay
    for step, (images, targets) in enumerate(batches(5)):
        measured = take(ours, images, targets, 0.5 + step / 10)
        ours.state.step += 1
        theirs.param_groups[0]["lr"] = optim.lr * (0.5 + step / 10)
        theirs.zero_grad()
        loss = F.cross_entropy(model(images), targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        theirs.step()
        keep = min(optim.average_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, 1 - keep)
        torch.testing.assert_close(measured, torch.stack((loss.detach(), norm)))
    assert_same_weights(ours.state.model, model)
    assert_same_weights(ours.state.final_model, average)


def test_a_muon_step_is_nesterov_momentum_orthogonalized_and_scaled_to_its_shape():
    muon = {"optim.optimizer": "muon", "optim.momentum": 0.9, "optim.clip_norm": 0}
    ours = training_step(CONFIG.override(muon))
    layer = ours.state.model.blocks[0].mlp.fc1
    weight, momentum = layer.weight.detach().clone(), torch.zeros_like(layer.weight)
    for images, targets in batches(3):
        take(ours, images, targets)
        momentum = 0.9 * momentum + 0.1 * layer.weight.grad
        update = orthogonalize(0.9 * momentum + 0.1 * layer.weight.grad) * math.sqrt(64 / 16)
        weight = weight * (1 - 0.05 * CONFIG.optim.weight_decay) - 0.05 * update
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("accumulate", [2, 4, 6])
def test_a_batch_in_parts_moves_weights_as_in_one(accumulate):
    weights = torch.arange(1.0, 11.0)
    whole = training_step(CONFIG)
    parts = training_step(CONFIG.override({"train.accumulate": accumulate}))
    whole.class_weights = parts.class_weights = weights
    for images, targets in batches(3):
        torch.testing.assert_close(*(take(one, images, targets) for one in (whole, parts)))
    assert_same_weights(parts.state.model, whole.state.model)


def test_classes_weigh_in_the_loss_as_in_torchs_cross_entropy():
    images, targets = batches(1)[0]
    weights = torch.arange(1.0, 11.0)
    ours = training_step(CONFIG)
    ours.class_weights = weights
    expected = F.cross_entropy(ours.state.model(images), targets.argmax(1), weight=weights)
    torch.testing.assert_close(take(ours, images, targets, 0.0)[0], expected)


def test_sam_takes_the_gradient_where_the_loss_is_highest_nearby():
    plain = {"optimizer": "sgd", "lr": 0.5, "momentum": 0, "weight_decay": 0}
    ours = training_step(replace(CONFIG, optim=OptimConfig(**plain, sam=0.1, freeze=("norm",))))
    images, targets = batches(1)[0]
    model = copy.deepcopy(ours.state.model)
    moved = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(F.cross_entropy(model(images), targets), moved)
    before = [weight.detach().clone() for weight in moved]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    with torch.no_grad():
        for weight, gradient in zip(moved, gradients, strict=True):
            weight += 0.1 * gradient / norm
    uphill = torch.autograd.grad(F.cross_entropy(model(images), targets), moved)
    take(ours, images, targets)
    theirs = iter(zip(before, uphill, strict=True))
    for weight in ours.state.model.parameters():
        if weight.requires_grad:
            start, gradient = next(theirs)
            torch.testing.assert_close(weight.detach(), start - 0.5 * gradient)


def test_sam_leaves_the_statistics_of_batch_norms_to_the_model_itself():
    config = replace(CONFIG, model=CNN6Config(width=2))
    plain, sharp = training_step(config), training_step(config.override({"optim.sam": 10.0}))
    for one in (plain, sharp):
        take(one, *batches(1)[0], 0.0)
    buffers = (one.state.model.buffers() for one in (plain, sharp))
    assert all(torch.equal(*pair) for pair in zip(*buffers, strict=True))


def test_a_second_head_learns_the_answers_of_the_teacher():
    fields = {"model.distill_token": True, "train.teacher": "resnet18", "train.teacher_share": 0.3}
    ours = training_step(CONFIG.override(fields | {"train.accumulate": 2}))
    images, targets = batches(1)[0]
    answers = torch.tensor([3, 1, 4, 1, 5, 9])
    asked = []

    def teacher(part: torch.Tensor) -> torch.Tensor:
        asked.append(part)
        return answers[len(asked) * 3 - 3 : len(asked) * 3]

    ours.teacher = teacher
    first, second = ours.state.model.head_logits(images)
    expected = 0.7 * F.cross_entropy(first, targets) + 0.3 * F.cross_entropy(second, answers)
    torch.testing.assert_close(take(ours, images, targets, 0.0)[0], expected)
    assert torch.equal(torch.cat(asked), images)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_that_cannot_be_captured_is_taken_as_plain_python_and_says_so(monkeypatch, compiled):
    def fail(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    plain = training_step(CONFIG)
    state = training_step(CONFIG).state
    broken = CUDAGraphStep(state, CONFIG, "fp32")
    broken.compiled = compiled
    monkeypatch.setattr(broken, "capture", fail)
    for images, targets in batches(3):
        assert torch.equal(*(take(one, images, targets) for one in (plain, broken)))
    assert "operation not permitted" in broken.fallbacks[-1]
    assert "plain Python" in broken.fallbacks[-1]
    assert len(broken.fallbacks) == 1 + compiled
    assert not broken.compiled


def test_a_state_is_as_before_whatever_was_tried_on_it():
    plain, tried = (training_step(CONFIG.override({"optim.optimizer": "sgd"})) for _ in "ab")
    for failing in (False, True):
        with pytest.raises(RuntimeError) if failing else nullcontext(), unchanged(tried.state):
            take(tried, *batches(1)[0])
            if failing:
                raise RuntimeError("capture")
    for images, targets in batches(3):
        assert torch.equal(*(take(one, images, targets) for one in (plain, tried)))


def test_a_checkpoint_brings_back_all_that_it_holds(tmp_path):
    config = CONFIG.override({"optim.optimizer": "muon"})
    step = training_step(config, precision="fp16")
    take(step, *batches(1)[0])
    before, after = step.state, training_step(config, precision="fp16").state
    before.step = 7
    before.plateau = Plateau(0.5, bad_epochs=1, reductions=2)
    before.clock = Clock(9.0, process=8.0, preparation=1.0, steps=5.0, capture=2.0, joules=3.0)
    before.recent, before.recent_seconds = [2.0, 1.0], 0.25
    before.evaluation = {"validation": {"loss": 0.5, "accuracy": 0.75}}
    before.best = {"step": 3, "loss": 0.4, "accuracy": 0.8}
    before.alarms = ["resumed elsewhere"]

    def stored(state: TrainState, name: str) -> Checkpoint:
        with Run.lock(tmp_path / name):
            run = Run.create(tmp_path / name, config)
        state.save(run)
        return run.checkpoint()

    first = stored(before, "first")
    after.load(first)
    second = stored(after, "second")
    assert all(optimizer.state for optimizer in after.optimizers)
    for file in first.path.iterdir():
        assert (second.path / file.name).read_bytes() == file.read_bytes(), file.name


def test_results_are_read_all_at_once_and_a_divergence_names_its_step():
    step = training_step(CONFIG)
    results = StepResults(step)
    for value in (2.0, 1.0):
        step.set_scalars(0.5, 0)
        results.add(torch.tensor([value, 0.25]))
        step.state.step += 1
    assert results.read() == 0.25 and not results
    assert step.state.recent == [2.0, 1.0] and step.state.recent_seconds > 0
    step.state.step += 2
    for value in (1.0, math.nan):
        results.add(torch.tensor([value, 1.0]))
    with pytest.raises(DivergenceError, match=r"loss nan .* at step 3 \(learning rate 0.005\)"):
        results.read()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
@pytest.mark.parametrize("sam", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_replayed_step_equals_the_plain_one(optimizer, sam):
    config = CONFIG.override(
        {"model.dropout": 0.1, "model.drop_path": 0.1, "optim.optimizer": optimizer,
         "optim.sam": sam, "optim.layer_decay": 0.8, "optim.freeze": "norm",
         "train.accumulate": 2}
    )  # fmt: skip
    plain = training_step(config, "cuda")
    graph = training_step(config, "cuda", "graph")
    for step, (images, targets) in enumerate(batches(6, "cuda")):
        cut = 6 if step != 3 else 4  # a partial batch takes the plain way in between
        measured = [
            take(one, images[:cut], targets[:cut], 1 / (1 + step), step) for one in (plain, graph)
        ]
        torch.testing.assert_close(*measured, rtol=1e-3, atol=1e-4)
        for one in (plain, graph):
            one.state.step += 1
    assert_same_weights(graph.state.final_model, plain.state.final_model, 1e-3, 1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_loss_scale_is_replayed_with_its_step_and_skips_what_overflows():
    steps = [training_step(CONFIG, "cuda", word, precision="fp16") for word in ("off", "graph")]
    for step, (images, targets) in enumerate(batches(6, "cuda")):
        images = images * 1e6 if step == 3 else images  # infinite in fp16: the update is skipped
        for one in steps:
            take(one, images, targets, 0.5, step)
            one.state.step += 1
    plain, graph = (one.state for one in steps)
    assert graph.scaler.state_dict() == plain.scaler.state_dict()
    assert plain.scaler.get_scale() < 2**16
    assert not steps[1].fallbacks
    assert_same_weights(graph.model, plain.model, 1e-2, 1e-3)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_several_labels_learn_by_torchs_binary_cross_entropy_summed_over_labels(accumulate):
    several = CONFIG.override({"data.task": "multilabel", "train.accumulate": accumulate})
    ours = training_step(several)
    images, _ = batches(1)[0]
    targets = torch.rand(6, 10, generator=torch.Generator().manual_seed(2))
    logits = ours.state.model(images)
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / 6
    gradients = torch.autograd.grad(expected, list(ours.state.model.parameters()))
    loss, norm = take(ours, images, targets, 0.0)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(norm, torch.nn.utils.get_total_norm(gradients))

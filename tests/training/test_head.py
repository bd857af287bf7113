"""A head fitted to frozen features: it is the minimum, and its run is like any other."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vitlab
from vitlab.config import ResNet18Config
from vitlab.errors import ConfigError
from vitlab.evaluate import evaluate
from vitlab.recipes import recipe
from vitlab.run import Run
from vitlab.training import resume, train
from vitlab.training.head import logistic_regression, regression_of_each


@pytest.mark.parametrize("classes", [2, 4])
def test_the_head_is_the_minimum_of_the_loss_that_is_stated(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 90)
    features = rng.normal(labels[:, None], 2.0, (90, 6)).astype(np.float32)
    weights = rng.uniform(0.5, 2, 90)
    matrix, bias = logistic_regression(features, labels, weights, classes, 0.1)
    center = np.average(features, axis=0, weights=weights)
    scale = np.sqrt(np.average(((features - center) ** 2).mean(axis=1), weights=weights))
    w = torch.tensor(matrix * scale, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(bias + matrix @ center, dtype=torch.float64, requires_grad=True)
    scaled = torch.tensor((features - center) / scale, dtype=torch.float64)
    losses = F.cross_entropy(scaled @ w.T + b, torch.tensor(labels), reduction="none")
    decay = 0.1 if classes > 2 else 0.2  # of two classes, the norm of their difference counts half
    loss = (losses * torch.tensor(weights)).sum() / weights.sum() + decay / 2 * (w**2).sum()
    loss.backward()
    assert abs(w.grad).max() < 1e-3 and abs(b.grad).max() < 1e-3


def test_a_class_that_was_never_seen_is_never_the_answer():
    features = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    labels = np.arange(20) % 2
    matrix, bias = logistic_regression(features, labels, np.ones(20), 3, 0.1)
    assert ((features @ matrix.T + bias).argmax(axis=1) < 2).all()


@pytest.fixture(scope="module")
def linear_run(tmp_path_factory) -> Run:
    """A linear classifier on the features of an untrained small CNN, for the digits."""
    config = recipe("linear").override({"data.dataset": "digits"})
    config = vitlab.recipe("cpu-cnn").override(
        {"data.dataset": "digits", "model.width": 8, "train.small_epochs": 0, "train.epochs": 1}
        | {"optim.optimizer": "lbfgs", "optim.weight_decay": 0.01, "optim.schedule": "constant"}
        | {"optim.warmup_epochs": 0, "optim.average_decay": 0, "optim.clip_norm": 0}
    )
    assert isinstance(config.model, ResNet18Config)
    out = tmp_path_factory.mktemp("linear")
    return train(config, out=out, name="linear", device="cpu", quiet=True)


def test_its_run_is_finished_validated_and_evaluated_like_any_other(linear_run):
    assert linear_run.finished and linear_run.finished["epochs"] == 1
    assert linear_run.finished["validation"]["accuracy"] > 0.5  # of an untrained network
    result = evaluate(linear_run, device="cpu", quiet=True, pictures=False)
    assert result["accuracy"] == pytest.approx(linear_run.finished["validation"]["accuracy"])
    assert [line["split"] for line in linear_run.metrics] == ["train", "train_clean", "validation"]


def test_nothing_but_the_last_layer_moves_and_training_again_gives_the_same(linear_run, tmp_path):
    again = train(linear_run.config, out=tmp_path, name="again", device="cpu", quiet=True)
    one, other = (run.checkpoint().model.read_bytes() for run in (linear_run, again))
    assert one == other
    (again.path / "finished.json").unlink()
    assert (
        resume(again.path, device="cpu", quiet=True).finished["validation"]
        == (linear_run.finished["validation"])
    )
    untrained = vitlab.build_model(linear_run.config)
    assert untrained.state_dict().keys() == vitlab.load(again).module.state_dict().keys()


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ConfigError, match=r"train\.epochs=1, not 5"):
        recipe("linear").override({"train.epochs": 5})
    with pytest.raises(ConfigError, match=r"weight_decay above 0"):
        recipe("linear").override({"optim.weight_decay": 0})


def test_several_labels_get_a_regression_each():
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 3)) < (0.5, 0.2, 2.0)).astype(np.uint8)
    features = rng.normal(size=(120, 5)).astype(np.float32)
    features[:, :2] += 3 * labels[:, :2]
    matrix, bias = regression_of_each(features, labels, np.ones(120), 3, 0.1)
    logits = features @ matrix.T + bias
    assert ((logits > 0) == labels).mean(axis=0).min() > 0.85
    rows, both = logistic_regression(features, labels[:, 1], np.ones(120), 2, 0.1)
    one = features @ rows.T + both
    np.testing.assert_allclose(logits[:, 1], one[:, 1] - one[:, 0], rtol=1e-4, atol=1e-5)

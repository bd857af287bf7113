"""The two sentences at the end of a training rest on its own numbers and name what can be done."""

import json

import pytest

import vitlab
from vitlab.diagnosis import diagnose
from vitlab.pretrained import names, shipped
from vitlab.run import Run


@pytest.fixture
def ended(digits_run):
    """A run whose last numbers are given: accuracies, validation images, steps and so on."""

    def make(train, validation, images=143, **more) -> str:
        file = digits_run.finished_file
        final = json.loads(file.read_text())
        final["train_clean"]["accuracy"] = train
        final["validation"] = {"accuracy": validation, "loss": 1.0, "images": images}
        final["best"] = {"step": final["step"], **final["validation"]}
        if validation is None:
            del final["validation"]
        file.write_text(json.dumps({**final, **more}))
        return diagnose(Run(digits_run.path))

    return make


def test_images_learned_by_heart_are_called_overfitting_with_its_remedies(ended):
    words = ended(1.0, 0.42, images=100, step=630, epochs=30)
    assert words.startswith("100.00 % on ")
    assert "training images, 42.00 % on 100 validation images (95 % interval 32.8" in words
    assert "overfitting" in words and "--from cpu" in words and "more images" in words
    assert "augment.policy" in words  # digits has none


def test_a_gap_that_few_images_leave_open_is_no_overfitting(ended):
    words = ended(0.95, 0.8, images=5, step=630)
    assert "do not show whether that is overfitting" in words and "Try" not in words


def test_a_better_validation_long_before_the_end_asks_for_fewer_epochs(ended):
    best = {"step": 210, "accuracy": 0.6, "loss": 1.0, "images": 100}
    words = ended(1.0, 0.42, images=100, step=630, epochs=30, best=best)
    assert "fewer epochs than 30, as 60.00 % of the validation images were right after 10" in words


def test_one_mistake_of_few_images_is_no_overfitting(ended):
    words = ended(1.0, 8 / 9, images=9, step=630)
    assert "a gap of 11.11 points, but so few images do not show" in words
    words = ended(1.0, 1.0, images=9, step=630)
    assert "no sign of overfitting" in words
    assert "so few validation images do not rule out a gap of 10 points" in words


def test_a_gap_that_is_there_but_small_is_stated(ended):
    words = ended(1.0, 0.94, images=1_000, step=630)
    assert words.endswith(
        "a gap of 6.00 points, less than the 10 from which on it is called overfitting."
    )


def test_a_better_validation_of_few_images_asks_for_nothing(ended):
    best = {"step": 6, "accuracy": 2 / 6, "loss": 1.0, "images": 6}
    words = ended(1.0, 0.0, images=6, step=30, epochs=10, best=best)
    assert "overfitting, a gap of 100.00 points" in words and "fewer epochs" not in words


def test_a_batch_that_is_advised_is_smaller_than_the_training_set(ended, digits_run):
    file = digits_run.path / "provenance.json"
    origin = json.loads(file.read_text())
    origin["data"]["train_images"] = 42
    file.write_text(json.dumps(origin))
    words = ended(0.6, 0.58, step=10, epochs=10)
    assert "train.batch_size smaller than 42, as 10 steps (1 an epoch) are few" in words


def test_an_accuracy_far_from_guessing_is_not_called_guessing(ended, digits_run):
    assert "guessing" not in ended(0.125, 0.12, images=1_000, step=630)


def test_training_images_that_are_not_learned_are_called_underfitting(ended):
    words = ended(0.6, 0.58, step=3, epochs=3)
    assert "underfitting" in words
    assert "train.batch_size smaller than 64, as 3 steps (1 an epoch) are few" in words
    assert "more train.epochs than 3" in words  # what this run's metrics show


def test_few_steps_in_small_batches_ask_for_more_epochs(ended):
    words = ended(0.6, 0.58, step=63, epochs=3)
    assert "more train.epochs than 3, as 63 steps (21 an epoch) are few" in words
    assert "batch_size" not in words


def test_a_run_at_chance_is_said_to_guess(ended):
    words = ended(0.11, 0.1, step=630)
    assert "no better than guessing" in words and "a lower optim.lr than" in words


def test_without_validation_images_nothing_is_said_of_new_ones(ended):
    assert "nothing shows how it does on new ones" in ended(1.0, None)


def test_a_training_ends_with_it(tmp_path, capsys):
    config = vitlab.recipe("digits").override({"model.depth": 1, "train.epochs": 1})
    run = vitlab.train(config, out=tmp_path, device="cpu")
    assert diagnose(run) in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("name", names())
def test_the_models_that_ship_are_no_failures(name):
    words = diagnose(shipped(name))
    assert "guessing" not in words and ": underfitting" not in words

"""A teacher is trained first, inside the run of its student, and its cost is theirs together."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from vitlab.config import Config, OptimConfig, TrainConfig, ViTConfig
from vitlab.errors import ConfigError
from vitlab.run import Run
from vitlab.training import resume, train
from vitlab.training.session import Session

STUDENT = Config(
    model=ViTConfig(patch_size=2, width=16, depth=1, heads=2, distill_token=True),
    optim=OptimConfig(lr=1e-3),
    train=TrainConfig(
        epochs=2, batch_size=40, seed=3, teacher="cnn6", teacher_epochs=2, teacher_share=0.5,
        small_size=(4, 4), small_epochs=1, checkpoint_epochs=0.5,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 255, (130, 8, 8, 3), dtype=np.uint8)
    return images, np.arange(130) % 3


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> Run:
    return train(STUDENT, data=data, out=tmp_path_factory.mktemp("runs"), quiet=True)


def weights(run: Run) -> dict[str, np.ndarray]:
    return load_file(run.checkpoint().model)


def test_the_teacher_is_a_run_on_the_same_images(straight):
    teacher = Run(straight.teacher)
    assert teacher.config.model.kind == "cnn6"
    assert teacher.config.data == straight.config.data
    assert teacher.config.train.seed == 3
    assert teacher.finished["epochs"] == 2
    assert teacher.provenance["data"]["split_sha256"] == straight.provenance["data"]["split_sha256"]


def test_the_clock_of_the_student_counts_its_teachers_training(straight):
    clock, theirs = straight.finished["clock"], Run(straight.teacher).finished["clock"]
    assert clock["teacher"] == theirs
    own = straight.checkpoint().state["clock"]
    assert clock["wall_seconds"] == pytest.approx(own["wall"] + theirs["wall_seconds"], abs=0.1)
    assert clock["step_seconds"] > theirs["step_seconds"]


def test_what_the_teacher_answers_changes_the_student(data, straight, tmp_path):
    other = train(
        STUDENT.override({"train.teacher_share": 0.9}), data=data, out=tmp_path, quiet=True
    )
    assert not np.array_equal(
        weights(other)["head_dist.weight"], weights(straight)["head_dist.weight"]
    )
    pairs = weights(Run(other.teacher)), weights(Run(straight.teacher))
    assert all(np.array_equal(pairs[0][name], pairs[1][name]) for name in pairs[1])


class Cut(BaseException):
    """Stands for a power cut."""


@pytest.mark.parametrize("steps", [1, 5])
def test_a_cut_in_the_teacher_or_in_the_student_costs_no_bit(
    data, straight, tmp_path, monkeypatch, steps
):
    taken = []
    take_step = Session.take_step

    def take_step_until_cut(self, *arguments, **options):
        if len(taken) == steps:
            raise Cut
        taken.append(self)
        return take_step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "take_step", take_step_until_cut)
        with pytest.raises(Cut):
            train(STUDENT, data=data, out=tmp_path, name="cut", quiet=True)
    begun = Run(tmp_path / "cut")
    assert (Run(begun.teacher).finished is None) == (steps == 1)
    resumed = resume(begun.path, data=data, quiet=True)
    pairs = weights(resumed), weights(straight)
    assert all(np.array_equal(pairs[0][name], pairs[1][name]) for name in pairs[1])


def test_an_unknown_teacher_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(ConfigError, match="resnet18"):
        train(STUDENT.override({"train.teacher": "resnet81"}), data=data, out=tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())

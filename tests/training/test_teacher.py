"""A teacher is an ordinary run beside its student's, trained first; its cost is counted there."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from vitlab.config import Config, OptimConfig, TrainConfig, ViTConfig
from vitlab.errors import ConfigError, Interrupted, RunError
from vitlab.recipes import recipe
from vitlab.run import Run
from vitlab.training import fit, resume, teacher, train

STUDENT = Config(
    model=ViTConfig(patch_size=2, width=16, depth=1, heads=2, distill_token=True),
    optim=OptimConfig(lr=1e-3),
    train=TrainConfig(
        epochs=2, batch_size=90, seed=3, teacher="cnn6", teacher_epochs=2, teacher_share=0.5,
        small_size=(4, 4), small_epochs=1, checkpoint_epochs=0.5,
    ),
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """Let the recipe of the teacher be a narrow one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "recipe", lambda name: recipe(name).override({"model.width": 4}))
        yield


@pytest.fixture(scope="module")
def straight(narrow, data, tmp_path_factory) -> Run:
    return train(STUDENT, data=data, out=tmp_path_factory.mktemp("runs"), name="one", quiet=True)


def test_the_teacher_is_an_ordinary_run_on_the_same_images(straight):
    theirs = Run(straight.path.parent / "one-teacher")
    assert straight.teacher == theirs.path.resolve()
    assert straight.provenance["teacher"] == "one-teacher"
    assert theirs.config.model.kind == "cnn6"
    assert theirs.config.data == straight.config.data
    assert theirs.config.train.seed == 3
    assert theirs.finished["epochs"] == 2
    assert theirs.provenance["data"]["split_sha256"] == straight.provenance["data"]["split_sha256"]


def test_the_clock_of_the_student_counts_its_teachers_training(straight):
    clock, theirs = straight.finished["clock"], Run(straight.teacher).finished["clock"]
    assert clock["teacher"] == theirs
    own = straight.checkpoint().state["clock"]
    assert clock["wall_seconds"] == pytest.approx(own["wall"] + theirs["wall_seconds"], abs=0.1)
    assert clock["step_seconds"] > theirs["step_seconds"]


def test_what_the_teacher_answers_changes_the_student(data, straight, tmp_path, fingerprint):
    config = STUDENT.override({"train.teacher_share": 0.9})
    other = train(config, data=data, out=tmp_path, quiet=True)
    heads = [load_file(run.checkpoint().model)["head_dist.weight"] for run in (other, straight)]
    assert not np.array_equal(*heads)
    assert fingerprint(Run(other.teacher)) == fingerprint(Run(straight.teacher))


@pytest.mark.parametrize(
    ("after", "inside"), [(1, False), (7, False), (1, True)], ids=["teacher", "student", "earlier"]
)
def test_a_cut_in_the_teacher_or_in_the_student_costs_no_bit(
    data, straight, tmp_path, cut, fingerprint, after, inside
):
    with cut(after=after):
        train(STUDENT, data=data, out=tmp_path, name="cut", quiet=True)
    begun = Run(tmp_path / "cut")
    assert (Run(begun.teacher).finished is None) == (after == 1)
    if inside:
        begun.teacher.rename(begun.path / "teacher")
    assert fingerprint(resume(begun.path, data=data, quiet=True)) == fingerprint(straight)
    assert (tmp_path / "cut-teacher").exists() != inside


def test_a_finished_teacher_is_found_again_and_another_run_is_none(data, straight, tmp_path, cut):
    shutil.copytree(straight.teacher, tmp_path / "next-teacher")
    before = (tmp_path / "next-teacher" / "finished.json").stat().st_mtime_ns
    run = train(STUDENT, data=data, out=tmp_path, name="next", quiet=True)
    assert (run.teacher / "finished.json").stat().st_mtime_ns == before
    shutil.copytree(straight.teacher, tmp_path / "more-teacher")
    longer = STUDENT.override({"train.teacher_epochs": 3})
    with pytest.raises(RunError, match=r"more-teacher is another run .* --resume .*more`"):
        train(longer, data=data, out=tmp_path, name="more", quiet=True)
    shutil.rmtree(tmp_path / "more-teacher")
    assert resume(tmp_path / "more", data=data, quiet=True).finished


def test_a_stop_in_the_teacher_names_the_student(data, tmp_path, monkeypatch):
    def stop(config, **_):
        raise Interrupted("stopped at step 1", 15)

    monkeypatch.setattr(fit, "evaluate", stop)
    with pytest.raises(Interrupted, match=rf"in the teacher; .*--resume {tmp_path}/one`") as told:
        train(STUDENT, data=data, out=tmp_path, name="one", quiet=True)
    assert told.value.exit_code == 128 + 15


def test_an_unknown_teacher_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(ConfigError, match="resnet18"):
        train(STUDENT.override({"train.teacher": "resnet81"}), data=data, out=tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())

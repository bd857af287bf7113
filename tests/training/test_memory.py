"""What a training takes is said before it is taken; what cannot fit is refused with a way out."""

import os
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vitlab.config import Config, DataConfig
from vitlab.data import batches, open_dataset
from vitlab.errors import ConfigError, VitlabError
from vitlab.inference import BATCH, at_once
from vitlab.models import build_model
from vitlab.recipes import ALL_RECIPES, recipe
from vitlab.run import Run
from vitlab.training import autotune, evaluation, fit, memory, preflight, resume, setup, train
from vitlab.training.autotune import choose, estimate_seconds, measure, rules, step_images
from vitlab.training.setup import TrainingSetup
from vitlab.training.step import TrainingStep

CPU = torch.device("cpu")


def photos(name: str, side: int = 224, **fields: object) -> Config:
    given = {name.replace("__", "."): value for name, value in fields.items()}
    size = {"data.image_size": (side, side), "data.channels": 3, "data.classes": 3}
    return recipe(name).override(size | given)


def unread(monkeypatch, config: DataConfig, read: Callable[[], None]) -> None:
    """Let a data set be known by its headers, and `read` be called when its images are."""
    dataset = type(
        "Unread",
        (),
        {"config": config, "train_count": 50_000, "examples": property(lambda _: read())},
    )
    monkeypatch.setattr(fit, "open_dataset", lambda *_: dataset())


def room(monkeypatch, size: float) -> None:
    """Let there be so many bytes of memory."""
    for module in (memory, autotune):
        monkeypatch.setattr(module, "memory", lambda device: int(size))


@pytest.mark.parametrize(
    ("name", "patches", "larger"), [("cpu", "3,136", 8), ("digits", "12,544", 16)]
)
def test_many_patches_are_told_with_a_way_out_before_images_are_read(
    monkeypatch, capsys, name, patches, larger
):
    def read():
        raise InterruptedError("the images are read")

    unread(monkeypatch, photos(name).data, read)
    room(monkeypatch, 1e12)
    with pytest.raises(InterruptedError):
        train(recipe(name).override({"data.dataset": "photos"}), device="cpu")
    said = capsys.readouterr().err
    assert f"images      224 x 224 pixels, {patches} patches each" in said
    assert "memory      at least" in said and "of the 1,000.0 GB that this process may have" in said
    assert f"--data.image_size 32,32 or --model.patch_size {larger}" in said


def test_ordinary_images_draw_no_warning_of_tokens_or_memory(monkeypatch):
    room(monkeypatch, 16e9)
    for name in ("cpu", "digits", "vit-tiny"):
        config = photos(name, side=32)
        assert not [*memory.many_tokens(config), *memory.tight(config, CPU, 45_000)]


def options(said: str) -> list[dict[str, str]]:
    """The options that a message advises, by way out."""
    ways = [way.split() for way in said.split("Way out: ")[1].split(". ")[0].split(" or ")]
    return [
        {name.removeprefix("--"): value for name, value in zip(way[::2], way[1::2], strict=True)}
        for way in ways
    ]


@pytest.mark.parametrize("name", ["cpu", "digits", "vit-tiny", "resnet18"])
def test_what_cannot_fit_is_refused_and_each_way_out_fits(monkeypatch, name):
    room(monkeypatch, 4e9)
    config = photos(name)
    with pytest.raises(ConfigError, match="would run out of memory") as told:
        memory.refuse_excess(config, CPU, 50_000)
    found = options(str(told.value))
    assert list(found[0]) == ["train.accumulate"] and "data.image_size" in found[1]
    for way in found:
        memory.refuse_excess(config.override(way), CPU, 50_000)
    memory.refuse_excess(config, CPU, 4)  # fewer images than a batch are a smaller step


def test_nothing_is_read_or_written_where_one_image_is_too_large(monkeypatch, tmp_path):
    unread(monkeypatch, photos("digits").data, greedy)
    room(monkeypatch, 1e8)
    with pytest.raises(ConfigError, match=r"Way out: --data\.image_size 32,32 --train") as told:
        train(recipe("digits").override({"data.dataset": "photos"}), out=tmp_path, device="cpu")
    for way in options(str(told.value)):
        memory.refuse_excess(photos("digits").override(way), CPU, 50_000)
    assert told.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_little_room_is_a_warning_with_ways_that_leave_more(monkeypatch):
    config = photos("digits")
    needed = memory.need(config, CPU).of(64)
    room(monkeypatch, needed / 0.9)
    memory.refuse_excess(config, CPU, 1_000)
    (said,) = memory.tight(config, CPU, 1_000)
    for way in options(said):
        assert not list(memory.tight(config.override(way), CPU, 1_000)), way


def test_parts_are_advised_only_where_they_change_something():
    whole = photos("digits", train__batch_size=8, train__accumulate=8)
    said = memory.out_of_memory(whole, CPU)
    assert "accumulate" not in said and "--data.image_size 32,32" in said
    assert "--train.accumulate 2" in memory.out_of_memory(photos("digits"), CPU)


def test_a_run_that_goes_on_is_not_told_to_change(data, small_run, unfinished, monkeypatch):
    run = unfinished(small_run)
    room(monkeypatch, 10)
    with pytest.raises(ConfigError, match="A run goes on as it began"):
        resume(run.path, data=data, device="cpu", quiet=True)
    room(monkeypatch, 1e10)
    monkeypatch.setattr(evaluation, "compute_logits", greedy)
    (run.path / "checkpoints").rename(run.path / "kept")
    with pytest.raises(VitlabError, match="Checkpoints so far are intact"):
        resume(run.path, data=data, device="cpu", quiet=True)
    assert Run(run.path).finished is None


def greedy(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("owner", "name", "words"),
    [
        (evaluation, "compute_logits", "out of memory on cpu in an evaluation"),
        (setup, "build_model", "out of memory on cpu before the first step: 300 images"),
        (TrainingStep, "__call__", "out of memory with train.batch_size=150"),
    ],
)
def test_advice_is_for_what_ran_out(data, small, tmp_path, monkeypatch, owner, name, words):
    monkeypatch.setattr(owner, name, greedy)
    with pytest.raises(VitlabError, match=words) as told:
        train(small, data=data, out=tmp_path, device="cpu", quiet=True)
    if name != "__call__":
        assert "accumulate" not in str(told.value)


def test_images_that_do_not_fit_while_they_are_read_are_no_traceback(monkeypatch):
    unread(monkeypatch, photos("digits", side=32).data, greedy)
    with pytest.raises(VitlabError, match=r"while reading.*--data.image_size"):
        train(recipe("digits"), device="cpu", quiet=True)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a process has")
def test_the_memory_is_what_a_process_may_have(monkeypatch):
    import resource

    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < batches.memory(CPU) <= machine
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10**9, 10**9))
    assert batches.memory(CPU) < 10**9


def test_a_set_that_stays_in_its_file_is_copied_nowhere(monkeypatch):
    monkeypatch.setattr(batches, "RESIDENT", 0)
    images = np.random.default_rng(0).integers(0, 256, (200, 256, 256, 3), np.uint8)
    config = photos("vit-tiny", side=256, model__patch_size=32, train__batch_size=8)
    dataset = open_dataset(config.data, (images, np.arange(200) % 3))
    assert dataset.examples.fingerprint  # keys and order are made
    tracemalloc.start()
    built = TrainingSetup.build(config, dataset, CPU, settings=rules(config, CPU))
    list(preflight.warnings_of_setup(built))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert built.images[:2].shape == (2, 3, 256, 256)
    assert peak < 0.7 * images.nbytes


def test_files_are_counted_before_they_are_read(tmp_path):
    for number in range(150):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(path)
    dataset = open_dataset(DataConfig(dataset=str(tmp_path / "photos")))
    before = dataset.train_count
    assert "examples" not in vars(dataset)
    assert before <= len(dataset.split[0]) <= before + 4


def test_calibration_sees_images_in_parts_that_fit(monkeypatch):
    monkeypatch.setattr(setup, "CALIBRATION_PIXELS", 20 * 32 * 32)
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    config = photos("cpu", side=32, train__batch_size=20)
    dataset = open_dataset(config.data, (images, np.arange(60) % 3))
    built = TrainingSetup.build(config, dataset, CPU, settings=rules(config, CPU))
    parts = [len(part) for part in setup.calibration_images(built.batches)]
    assert sum(parts) == len(built.images) and max(parts) == 20


def test_a_trial_takes_fewer_images_where_they_are_large_or_none(monkeypatch):
    assert step_images(photos("cpu", side=32), CPU, 64) == 64
    assert 1 <= step_images(photos("cpu"), CPU, 64) < 16
    assert step_images(photos("digits"), CPU, 64) == 0
    taken = []
    noise_step = autotune.noise_step

    def watched(config, *rest):
        taken.append(config.train.batch_size)
        return noise_step(config, *rest)

    monkeypatch.setattr(autotune, "noise_step", watched)
    large = photos("cpu", side=64)
    room(monkeypatch, 8 * 3 * autotune.training_bytes(large))
    measure(large, CPU, [rules(large, CPU).values])
    assert taken == [3]


def test_a_trial_that_would_be_too_long_is_left_out_with_a_word(monkeypatch):
    monkeypatch.setattr(autotune, "measure", None)
    huge = photos("cpu", side=1536)
    settings, tried = choose(huge, CPU, 45_000)
    assert tried == {} and settings.values == rules(huge, CPU).values
    assert "no trial: a step on one image is too large for it" in settings.layout.reason
    assert "no trial" not in settings.attention.reason  # nothing was left open there


def test_the_time_of_large_steps_is_found_with_fewer_images(monkeypatch):
    shapes = []

    class Model(torch.nn.Linear):
        def resize(self, size):
            assert size == (64, 64)

        def forward(self, images):
            shapes.append(len(images))
            return super().forward(images)

    monkeypatch.setattr(autotune, "step_images", lambda config, device, most: 2)
    config = photos("digits", side=64, train__batch_size=20, train__epochs=2)
    assert estimate_seconds(config, Model(64, 1), CPU, "fp32", steps_per_epoch=2) > 0
    assert shapes == [2, 2]


def test_cifar_is_evaluated_as_before_and_large_images_in_smaller_batches():
    for name in ALL_RECIPES:
        config = recipe(name).override(
            {"data.image_size": (32, 32), "data.channels": 3, "data.classes": 10}
        )
        assert at_once(torch.nn.Identity(), (3, *config.data.image_size), BATCH) == BATCH
    model = build_model(photos("cpu"))
    plain, kept = (at_once(model, (3, 224, 224), BATCH, gradients=each) for each in (False, True))
    assert 1 <= kept < plain < BATCH
    assert at_once(model, (3, 224, 224), 64, traced=True) < 8  # attention weights are written out
    small = replace(photos("cpu"), data=DataConfig(image_size=(64, 64), channels=3, classes=3))
    assert at_once(build_model(small), (3, 64, 64), BATCH) == BATCH


def test_frozen_weights_need_no_gradients(monkeypatch):
    whole = memory.need(photos("digits"), CPU)
    head = photos("digits", optim__freeze="patch_embed,pos_embed,blocks,norm")
    frozen = memory.need(head, CPU)
    assert frozen.image < whole.image / 4 and frozen.weights < whole.weights / 3

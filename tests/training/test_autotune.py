"""How a step is computed is found out where that pays, said, stored and kept."""

import sys
from dataclasses import replace

import pytest
import torch

from vitlab.config import Config, DataConfig, ViTConfig
from vitlab.recipes import recipe
from vitlab.training import autotune, fit, resume, setup, train
from vitlab.training.autotune import choose, contenders, measure, rules, stored_settings

CPU = torch.device("cpu")
CIFAR = DataConfig(image_size=(32, 32), channels=3, classes=10)
FP32 = ("fp32", "fused", "channels_last")


def config(name: str, **train_fields) -> Config:
    start = recipe(name)
    return replace(start, data=CIFAR, train=replace(start.train, **train_fields))


@pytest.fixture(params=[True, False], ids=["bf16 is native", "bf16 is not native"])
def native(request, monkeypatch) -> bool:
    monkeypatch.setattr(autotune, "multiplies_bf16", lambda device: request.param)
    monkeypatch.setattr("vitlab.device.multiplies_bf16", lambda device: request.param)
    return request.param


def speeds(monkeypatch, found: dict) -> None:
    monkeypatch.setattr(autotune, "measure", lambda config, device, rivals: found)


def test_only_what_this_cpu_can_be_good_at_is_tried(native):
    precisions = {values[0] for values in contenders(config("cpu"), CPU)}
    assert precisions == ({"fp32", "bf16"} if native else {"fp32"})
    assert {values[0] for values in contenders(config("cpu", precision="bf16"), CPU)} == {"bf16"}


def test_what_the_config_fixes_or_the_model_lacks_is_not_tried():
    tried = contenders(config("cpu", attention="explicit", layout="contiguous"), CPU)
    assert {values[1:] for values in tried} == {("explicit", "contiguous")}
    assert {values[1] for values in contenders(config("cpu-cnn"), CPU)} == {"none"}
    assert {values[2] for values in contenders(config("vit-tiny"), CPU)} == {"channels_last"}
    start = config("vit-tiny")
    dropping = replace(start, model=replace(start.model, attention_dropout=0.1))
    assert {values[1] for values in contenders(dropping, CPU)} == {"explicit"}
    large = replace(start, data=replace(CIFAR, image_size=(128, 128)))
    assert {values[1] for values in contenders(large, CPU)} == {"fused"}


def test_the_fastest_is_taken_and_the_reason_has_its_figures(native, monkeypatch):
    explicit = ("fp32", "explicit", "channels_last")
    speeds(monkeypatch, {FP32: 100.0, explicit: 150.0})
    settings, tried = choose(config("vit-tiny"), CPU, 45_000)
    assert settings.values == explicit
    assert settings.attention.reason == "150 images/s in a trial, 100 with fused"
    assert tried == {FP32: 100.0, explicit: 150.0}
    speeds(monkeypatch, {FP32: 100.0, explicit: 109.0})  # a gain this small may be noise
    assert choose(config("vit-tiny"), CPU, 45_000)[0].values == FP32


def test_bf16_is_taken_only_when_asked_for_and_its_speed_is_told(native, monkeypatch):
    half = ("bf16", "explicit", "channels_last")
    speeds(monkeypatch, {FP32: 100.0, ("fp32", "explicit", "channels_last"): 90.0, half: 300.0})
    settings, _ = choose(config("vit-tiny"), CPU, 45_000)
    assert settings.values == FP32
    assert settings.precision.reason == (
        "100 images/s in a trial; bf16 has 300, but is not known to be as accurate: "
        "--train.precision bf16"
    )
    speeds(monkeypatch, {half: 300.0, ("bf16", "fused", "channels_last"): 150.0})
    settings, _ = choose(config("vit-tiny", precision="bf16"), CPU, 45_000)
    assert settings.values == half and settings.precision.reason == "asked for"


def test_a_short_training_a_gpu_and_a_fixed_choice_have_no_trial(monkeypatch):
    def refuse(*words):
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(autotune, "measure", refuse)
    assert choose(config("cpu"), CPU, 500) == (rules(config("cpu"), CPU), {})
    fixed = config("vit-tiny", precision="fp32", attention="fused")
    assert choose(fixed, CPU, 45_000) == (rules(fixed, CPU), {})
    gpu = torch.device("cuda")
    monkeypatch.setattr("vitlab.device.multiplies_bf16", lambda device: True)
    assert choose(config("cpu"), gpu, 45_000)[0].values == ("bf16", "fused", "channels_last")


def test_a_trial_measures_every_contender_and_leaves_random_numbers_alone():
    small = replace(
        config("cpu", batch_size=8), data=replace(CIFAR, image_size=(16, 16)), model=ViTConfig(
            patch="conv", patch_size=8, patch_convs=3, width=16, depth=1, heads=2
        )
    )  # fmt: skip
    before = torch.get_rng_state()
    many = replace(small, train=replace(small.train, epochs=10**6))
    settings, found = choose(many, CPU, 45_000)
    assert set(found) == set(contenders(small, CPU))
    assert all(rate > 0 for rate in found.values())
    assert settings.values in found
    assert torch.equal(torch.get_rng_state(), before)
    assert set(measure(small, CPU, [FP32])) == {FP32}


def test_a_run_stores_what_was_chosen_and_a_resumption_keeps_it(
    data, small, tmp_path, monkeypatch, capsys
):
    explicit = autotune.Settings(
        autotune.Choice("bf16", "900 images/s in a trial, 300 with fp32"),
        autotune.Choice("explicit", "900 images/s in a trial, 800 with fused"),
        autotune.Choice("contiguous", "asked for"),
    )
    found = {("bf16", "explicit", "contiguous"): 900.0}
    monkeypatch.setattr(setup, "choose", lambda *_: (explicit, found))
    run = train(small, data=data, out=tmp_path, device="cpu")
    assert "bf16 (900 images/s in a trial, 300 with fp32)" in capsys.readouterr().err
    for name, choice in explicit._asdict().items():
        assert run.provenance[name] == choice._asdict()
    assert run.provenance["trial"] == {"bf16, explicit, contiguous": 900.0}

    (run.path / "finished.json").unlink()
    built = []
    monkeypatch.setattr(fit, "_restore", lambda run, setup, _: built.append(setup))
    monkeypatch.setattr(setup, "choose", None)  # would choose otherwise
    resume(run.path, data=data, device="cpu", quiet=True)
    assert built[0].settings == explicit
    assert {block.attn.backend for block in built[0].state.model.blocks} == {"explicit"}


def test_a_run_from_before_there_was_a_choice_goes_on_as_it_was():
    provenance = {"device_type": "cpu", "precision": {"value": "fp32", "reason": "asked for"}}
    assert stored_settings(provenance, CPU).values == FP32
    assert stored_settings(provenance, torch.device("cuda")) is None


def test_a_run_answers_as_it_was_trained_where_the_hardware_can(
    data, small, small_run, tmp_path, monkeypatch
):
    prediction = sys.modules["vitlab.inference"]  # `vitlab.predict` is the function of that name
    fields = {"train.precision": "bf16", "train.attention": "explicit"}
    run = train(small.override(fields), data=data, out=tmp_path, device="cpu", quiet=True)
    assert prediction.open_model(run, run.checkpoint(), CPU).blocks[0].attn.backend == "explicit"
    for able, word in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(prediction, "multiplies_bf16", lambda device, able=able: able)
        assert prediction.inference_precision(run, CPU) == word
    monkeypatch.setattr(prediction, "multiplies_bf16", lambda device: True)
    assert prediction.inference_precision(small_run, CPU) == "fp32"

"""Each part of the benchmark measures what it says, names what it lacks, and draws its charts."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import peers
from kernels import attention, dropout
from vitlab.bench import PARTS, bench
from vitlab.bench import steps as our_steps
from vitlab.bench.batches import COMMON, augmented_batches
from vitlab.bench.inference import inference
from vitlab.bench.measure import Timing, interleaved
from vitlab.bench.steps import plain_vit, recipes, settings
from vitlab.bench.tables import tables
from vitlab.config import AugmentConfig, Config, ConfigError, ViTConfig
from vitlab.files import write_json
from vitlab.models.cost import cost
from vits import VITS

CPU = torch.device("cpu")
QUICK = {"device": "cpu", "rounds": 1, "seconds": 0.0, "say": lambda _: None}


@pytest.fixture
def tiny() -> Config:
    start = plain_vit()
    model = ViTConfig(width=24, depth=2, heads=3, position_on_cls=True)
    return replace(start, model=model, train=replace(start.train, batch_size=4))


def test_rates_and_ratios_have_median_lowest_and_highest():
    ours, theirs = Timing((1.0, 2.0, 4.0)), Timing((2.0, 2.0, 2.0))
    assert ours.rate(8) == {"median": 4.0, "lowest": 2.0, "highest": 8.0}
    assert ours.ratio(theirs) == {"median": 1.0, "lowest": 0.5, "highest": 2.0}


def test_contenders_take_turns_and_a_slower_one_is_told_apart():
    order = []
    calls = {
        "quick": lambda: order.append("quick") or time.sleep(0.002),
        "slow": lambda: order.append("slow") or time.sleep(0.006),
    }
    timings = interleaved(calls, device=CPU, rounds=3, seconds=0.01)
    assert len(timings["quick"].seconds) == 3
    assert timings["quick"].ratio(timings["slow"])["median"] == pytest.approx(3, rel=0.5)
    assert {"quick", "slow"} == set(order[-12:])


def test_all_can_build_the_architecture_that_is_compared():
    config = plain_vit()
    assert cost(config).parameters == 5_362_762  # DeiT-Tiny's shape at patch 4
    for name in set(VITS) - set(peers.missing()):
        model = VITS[name](config)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert abs(count / 5_362_762 - 1) < 0.01, name
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10), name


@pytest.mark.slow
def test_training_is_measured_beside_every_peer_or_the_peer_is_named(tiny, monkeypatch):
    monkeypatch.setattr(our_steps, "multiplies_bf16", lambda device: True)
    monkeypatch.setattr(our_steps, "matrix_peak", lambda device, dtype: 1e12)
    found = peers.training(tiny, CPU, rounds=2, seconds=0.0)
    assert set(found["variants"]) == {"dropout 0.1", "no dropout"}
    present = ["vitlab", *(name for name in VITS if name not in found["missing"])]
    for one in found["variants"].values():
        rows = {f"{name}, {precision}" for name in present for precision in ("fp32", "bf16")}
        assert set(one["images_per_second"]) == set(one["dropouts"]) == rows
        assert one["best"].startswith("vitlab")
        assert set(one["ratios"]) == rows - {one["best"]}
    shown = {title: (header, rows) for title, header, rows in tables("training", found)}
    assert all(len(header) == len(row) for header, rows in shown.values() for row in rows)
    best = found["variants"]["no dropout"]["best"]
    kinds = [row[0] for row in shown[f"no dropout: {best} beside the fastest"][1]]
    assert kinds == ["fastest peer in fp32", "fastest peer"]
    pipelines = peers.pipeline(tiny, CPU, rounds=1, seconds=0.0)
    assert set(pipelines["images_per_second"]) | set(pipelines["missing"]) == {
        "vitlab", "torchvision", "kornia"
    }  # fmt: skip


@pytest.mark.slow
def test_recipes_settings_and_parts_of_a_block_are_measured_in_every_way(tiny):
    found = recipes(CPU, ("digits",))["digits"]
    assert set(found["images_per_second"]) == {
        "fp32, fused, channels_last", "fp32, explicit, channels_last"
    }  # fmt: skip
    ways = attention(["fp32"], rounds=1, seconds=0.0, counts=(4,))["fp32"]["4"]
    assert set(ways) == {"fused", "explicit", "fused, forward", "explicit, forward"}
    assert set(dropout(["fp32"], rounds=1, seconds=0.0)["fp32"]) == {"vitlab", "torch"}
    threads = torch.get_num_threads()
    found = settings(tiny, rounds=1, seconds=0.0, sizes=(2, 4))
    assert set(found["threads"]) == {"1", str(threads)} and set(found["batch size"]) == {"2", "4"}
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_every_path_of_inference_is_measured_and_answers_alike(tiny, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)  # a minute that proves nothing here
    found = inference(tiny, rounds=2, seconds=0.01)
    names = {"eager", "compiled", "ONNX Runtime", "ONNX Runtime, int8"}
    assert set(found["latency_ms"]) == names
    assert set(found["ratios"]) == names - {"eager"}


def test_our_pipeline_of_the_comparison_does_what_its_neighbours_do(tiny):
    batch = augmented_batches(tiny, COMMON, CPU)()
    assert batch.shape == (4, 3, 32, 32)
    assert batch.dtype == torch.float32
    assert not torch.equal(batch, augmented_batches(tiny, AugmentConfig(), CPU)())


def test_a_bench_keeps_what_was_measured_before_draws_it_and_mixes_no_machines(tmp_path):
    bench(tmp_path, ("augmentations",), **QUICK)
    bench(tmp_path, ("pipeline",), **QUICK)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {"machine", "augmentations", "pipeline"} <= set(found)
    assert (tmp_path / "augmentations.png").exists()
    assert np.isfinite(list(found["augmentations"]["milliseconds_per_batch"].values())).all()
    write_json(tmp_path / "bench.json", {**found, "machine": {"device": "a Cray-1"}})
    with pytest.raises(ConfigError, match=r"another machine \(a Cray-1\): give another --out"):
        bench(tmp_path, ("augmentations",), **QUICK)
    assert json.loads((tmp_path / "bench.json").read_text())["machine"] == {"device": "a Cray-1"}


def test_an_unknown_part_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(ConfigError, match="did you mean inference"):
        bench(tmp_path, (PARTS[0], "inferenc"), **QUICK)
    assert not any(tmp_path.iterdir())

"""Each part of the benchmark measures what it says, names what it lacks, and draws its charts."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitlab.bench import bench, plain_vit
from vitlab.bench.inference import inference
from vitlab.bench.kernels import attention, dropout
from vitlab.bench.peers import PEERS, missing
from vitlab.bench.pipeline import COMMON, noise, ours
from vitlab.bench.tables import tables
from vitlab.bench.training import recipes, training
from vitlab.config import AugmentConfig, Config, ConfigError, ViTConfig
from vitlab.files import write_json
from vitlab.models.cost import cost

CPU = torch.device("cpu")


@pytest.fixture
def tiny() -> Config:
    start = plain_vit()
    model = ViTConfig(width=24, depth=2, heads=3, position_on_cls=True)
    return replace(start, model=model, train=replace(start.train, batch_size=4))


def test_all_can_build_the_architecture_that_is_compared():
    config = plain_vit()
    assert cost(config).parameters == 5_362_762  # DeiT-Tiny's shape at patch 4
    for name, (build, _) in PEERS.items():
        if missing(name):
            continue
        model = build(config)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert abs(count / 5_362_762 - 1) < 0.01, name
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10), name


@pytest.mark.slow
def test_training_is_measured_beside_every_peer_or_the_peer_is_named(tiny, monkeypatch):
    module = sys.modules[training.__module__]
    monkeypatch.setattr(module, "multiplies_bf16", lambda device: True)
    monkeypatch.setattr(module, "matrix_peak", lambda device, dtype: 1e12)
    found = training(tiny, CPU, rounds=2, seconds=0.0)
    assert set(found["variants"]) == {"dropout 0.1", "no dropout"}
    for one in found["variants"].values():
        rows = {f"{name}, {word}" for name in ("vitlab", *PEERS) for word in ("fp32", "bf16")}
        lacking = {row for row in rows if row.split(",")[0] in found["missing"]}
        assert set(one["images_per_second"]) == rows - lacking
        assert one["best"].startswith("vitlab")
        assert set(one["ratios"]) == set(one["images_per_second"]) - {one["best"]}
    told = {title: (header, rows) for title, header, rows in tables("training", found)}
    assert all(len(header) == len(row) for header, rows in told.values() for row in rows)
    best = found["variants"]["no dropout"]["best"]
    kinds = [row[0] for row in told[f"no dropout: {best} beside the fastest"][1]]
    assert kinds == ["fastest peer in fp32", "fastest peer"]


def test_recipes_and_parts_of_a_block_are_measured_in_every_way():
    found = recipes(CPU, ("digits",))["digits"]
    assert set(found["images_per_second"]) == {
        "fp32, fused, channels_last", "fp32, explicit, channels_last"
    }  # fmt: skip
    ways = attention(["fp32"], rounds=1, seconds=0.0, counts=(4,))["fp32"]["4"]
    assert set(ways) == {"fused", "explicit", "fused, forward", "explicit, forward"}
    assert set(dropout(["fp32"], rounds=1, seconds=0.0)["fp32"]) == {"vitlab", "torch"}


def test_every_path_of_inference_is_measured_and_answers_alike(tiny, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)  # a minute that proves nothing here
    found = inference(tiny, rounds=2, seconds=0.01)
    names = {"eager", "compiled", "ONNX Runtime", "ONNX Runtime, int8"}
    assert set(found["latency_ms"]) == names
    assert set(found["ratios"]) == names - {"eager"}


def test_our_pipeline_of_the_comparison_does_what_its_neighbours_do(tiny):
    batch = ours(tiny, COMMON, noise(tiny), CPU)()
    assert batch.shape == (4, 3, 32, 32)
    assert batch.dtype == torch.float32
    plain = ours(tiny, AugmentConfig(), noise(tiny), CPU)()
    assert not torch.equal(batch, plain)


def test_a_bench_keeps_what_was_measured_before_and_draws_it(tmp_path):
    bench(tmp_path, ("augmentations",), device="cpu", rounds=1, seconds=0.0, say=lambda _: None)
    bench(tmp_path, ("pipeline",), device="cpu", rounds=1, seconds=0.0, say=lambda _: None)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {"machine", "augmentations", "pipeline"} <= set(found)
    assert (tmp_path / "augmentations.png").exists()
    assert np.isfinite(list(found["augmentations"]["milliseconds_per_batch"].values())).all()


def test_measurements_of_two_machines_are_not_mixed(tmp_path):
    quick = {"device": "cpu", "rounds": 1, "seconds": 0.0, "say": lambda _: None}
    bench(tmp_path, ("augmentations",), **quick)
    found = json.loads((tmp_path / "bench.json").read_text())
    write_json(tmp_path / "bench.json", {**found, "machine": {"device": "a Cray-1"}})
    with pytest.raises(ConfigError, match=r"another machine \(a Cray-1\): give another --out"):
        bench(tmp_path, ("augmentations",), **quick)
    assert json.loads((tmp_path / "bench.json").read_text())["machine"] == {"device": "a Cray-1"}

"""The page of records says what the records say, and what is still to be measured."""

from pathlib import Path

import pytest

from vitlab.files import write_json
from vitlab.models.cost import cost
from vitlab.recipes import ALL_RECIPES
from vitlab.reproduce import tiers
from vitlab.reproduce.records import RECORDS
from vitlab.reproduce.tiers import (
    CORES,
    GPU,
    page,
    share_of_peak,
    training_flops,
    warm_seconds,
)
from vitlab.run import Run

ROOT = Path(__file__).parents[2]
MEASURED = Run(ROOT / RECORDS / "cpu")


def test_the_committed_page_is_generated_from_the_committed_records():
    assert (ROOT / tiers.PAGE).read_text() == page(ROOT / RECORDS)


def test_every_tier_has_recipes_and_a_reference():
    for tier in (*CORES, *GPU):
        assert tier.recipes and tier.reference
        assert set(tier.recipes) <= set(ALL_RECIPES)


def test_what_was_not_measured_says_so_and_keeps_its_reference(tmp_path):
    lines = [line for line in page(tmp_path).splitlines() if line.startswith("|  |") is False]
    for tier in GPU:
        line = next(line for line in lines if line.startswith(f"| {tier.title} |"))
        assert "not yet measured" in line and tier.reference in line


def test_the_cost_of_a_training_counts_small_images_at_their_size():
    config, images = MEASURED.config, MEASURED.provenance["data"]["train_images"]
    small = config.override({"data.image_size": config.train.small_size})
    macs = 31 * cost(small).macs + 23 * cost(config).macs
    assert training_flops(MEASURED) == pytest.approx(6 * images * macs)


def test_warm_seconds_leave_the_capture_out():
    assert MEASURED.finished is not None
    clock = MEASURED.finished["clock"]
    assert warm_seconds(MEASURED) == clock["step_seconds"] - clock.get("capture_seconds", 0)


def test_the_share_of_peak_is_that_of_the_device_that_trained(tmp_path):
    assert share_of_peak(MEASURED, tmp_path) == "-"
    origin = MEASURED.provenance
    peak = training_flops(MEASURED) / warm_seconds(MEASURED) / 0.25
    for device, folder in ((origin["device"], "speed"), ("a Cray-1", "speed-cray")):
        training = {"matrix_peak": {origin["precision"]["value"]: peak}}
        (tmp_path / folder).mkdir()
        write_json(
            tmp_path / folder / "bench.json",
            {"machine": {"device": device}, "training": training},
        )
        assert share_of_peak(MEASURED, tmp_path) == "0.25"
        peak = 1.0

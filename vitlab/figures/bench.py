"""Figures of speed: rates with their range, the price of techniques, cost as things grow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitlab.figures import charts, style
from vitlab.figures.style import BLUE, GREY, ORANGE


def draw(found: Mapping[str, Any], folder: Path) -> None:
    """Draw every part of a bench.json that is there."""
    for name, one in found.get("training", {}).get("variants", {}).items():
        path = folder / f"training-{name.replace(' ', '-')}"
        rates(one["images_per_second"], path, title=f"Training step, {name}: images per second")
    for part, title in (
        ("pipeline", "Input pipeline, images per second"),
        ("inference", "Forward pass on the CPU, images per second"),
    ):
        if part in found:
            rates(found[part]["images_per_second"], folder / part, title=title)
    if "inference" in found:
        rates(
            found["inference"]["latency_ms"],
            folder / "latency",
            title="One image on the CPU, milliseconds (less is better)",
            unit="milliseconds",
        )
    if "augmentations" in found:
        part = found["augmentations"]
        title = f"What a batch of {part['batch_size']} costs, by technique"
        bars(part["milliseconds_per_batch"], folder / "augmentations", title=title)
    if "growth" in found:
        growth(found["growth"], folder / "growth", title="What grows with what")


def rates(
    measured: Mapping[str, Mapping[str, float]],
    path: Path,
    *,
    title: str,
    unit: str = "images per second",
) -> None:
    """Draw a bar per contender, with a line from its lowest to its highest round."""
    with style.figure(path, 7, 1 + charts.LINE * len(measured), title) as figure:
        axes = figure.subplots()
        rows = [
            (
                name,
                one["median"],
                f"{one['median']:,.1f}" if one["median"] < 100 else f"{one['median']:,.0f}",
                BLUE if name.startswith(("vitlab", "ONNX")) else GREY,
            )
            for name, one in measured.items()
        ]
        charts.bars(axes, rows, across=f"{unit}; line: lowest to highest round")
        for place, one in enumerate(measured.values()):
            axes.plot((one["lowest"], one["highest"]), (place, place), color=ORANGE)
            axes.texts[place].set_x(max(one["highest"], one["median"]) + 0.012 * axes.get_xlim()[1])
        most = max(max(one["highest"], one["median"]) for one in measured.values())
        axes.set_xlim(0, 1.15 * most)
    columns = ("name", "median", "lowest", "highest")
    style.numbers(
        path, columns, ([name, *(measured[name][c] for c in columns[1:])] for name in measured)
    )


def bars(milliseconds: Mapping[str, float], path: Path, *, title: str) -> None:
    """Draw a bar of milliseconds per name."""
    rows = [(name, value, f"{value:.1f}", BLUE) for name, value in milliseconds.items()]
    with style.figure(path, 7, 1 + charts.LINE * len(rows), title) as figure:
        charts.bars(figure.subplots(), rows, across="milliseconds", room=0.12)
    style.numbers(path, ("name", "milliseconds"), milliseconds.items())


def growth(found: Mapping[str, Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draw a panel per axis: milliseconds against the value, both on logarithmic scales."""
    rows = []
    with style.figure(path, max(4.2, 2.4 * len(found)), 3, title) as figure:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, (axis, values) in zip(panels, found.items(), strict=True):
            key = "milliseconds_per_batch" if axis == "images" else "milliseconds_per_step"
            points = [(float(value), one[key]) for value, one in values.items()]
            axes.plot(*zip(*points, strict=True), "o-", color=BLUE)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks([x for x, _ in points], [f"{x:,.0f}" for x, _ in points])
            axes.minorticks_off()
            axes.set_title(axis.replace("_", " "))
            axes.set_ylabel(key.replace("_", " "))
            axes.yaxis.set_major_formatter(style.plainly)
            low, high = min(y for _, y in points), max(y for _, y in points)
            axes.set_ylim(low / 2, high * 2)
            rows += [(axis, value, one[key], one.get("macs")) for value, one in values.items()]
    style.numbers(path, ("axis", "value", "milliseconds", "macs"), rows)

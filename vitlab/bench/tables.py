"""The parts of a bench.json as tables, for a terminal and for pages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

OURS_OVER_THEIRS = "our speed over theirs"
"""Heads a column of ratios, each taken within a round: their median and range over the rounds."""


class Table(NamedTuple):
    """Rows of numbers and words under a title."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


def tables(part: str, found: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of one part of a bench.json."""
    match part:
        case "training":
            for name, one in found["variants"].items():
                yield _rates(f"training step, {name}", one, one["images_per_second"], "images/s")
                if fastest := _fastest(one):
                    title = f"{name}: {one['best']} beside the fastest"
                    yield Table(title, ("", "who", OURS_OVER_THEIRS), fastest)
            peaks = [[name, peak / 1e9] for name, peak in found["matrix_peak"].items()]
            yield Table("matrix product", ("", "GFLOP/s"), peaks)
        case "recipes":
            rows = [
                [name, one["batch_size"], settings, rate]
                for name, one in found.items()
                for settings, rate in one["images_per_second"].items()
            ]
            yield Table("training step", ("recipe", "batch", "computed in", "images/s"), rows)
        case "attention":
            for precision, counts in found.items():
                rows = [[count, *one.values()] for count, one in counts.items()]
                header = ("tokens", *next(iter(counts.values())))
                yield Table(f"milliseconds in {precision}", header, rows)
        case "dropout":
            rows = [[precision, *one.values()] for precision, one in found.items()]
            yield Table("nanoseconds a number", ("", "vitlab", "torch"), rows)
        case "pipeline":
            yield _rates(part, found, found["images_per_second"], "images/s")
        case "augmentations":
            title = f"augmentation of a batch of {found['batch_size']}"
            rows = list(found["milliseconds_per_batch"].items())
            yield Table(title, ("technique", "milliseconds"), rows)
        case "growth":
            yield Table("growth", ("axis", "value", "milliseconds"), _nested(found, 1))
        case "settings":
            header = ("setting", "", "images/s", "lowest", "highest")
            yield Table("training step of `cpu`", header, _nested(found, 3))
        case "inference":
            yield _rates("one image on the CPU", found, found["latency_ms"], "milliseconds")
            rows = [[name, one["median"]] for name, one in found["images_per_second"].items()]
            yield Table("forward pass on the CPU", ("", "images/s"), rows)
        case _:  # memory and accuracy, numbers by name
            flat = {**found, **found.get("accuracy", {})}
            left_out = ("accuracy", "checkpoint_sha256")
            rows = [[name, _text(value)] for name, value in flat.items() if name not in left_out]
            yield Table(part, ("", ""), rows)
    if missing := found.get("missing"):
        yield Table("not measured", ("", "because"), list(missing.items()))


def _nested(found: Mapping[str, Mapping[str, Mapping[str, Any]]], columns: int) -> list[list[Any]]:
    """A row for each value of each thing: so many of its numbers."""
    return [
        [thing, str(value), *list(one.values())[:columns]]
        for thing, values in found.items()
        for value, one in values.items()
    ]


def _rates(title: str, found: Mapping[str, Any], rates: Mapping[str, Any], unit: str) -> Table:
    """Contenders with their range, and beside the one that the others are compared with."""
    columns = {
        "": list(rates),
        unit: [one["median"] for one in rates.values()],
        "lowest": [one["lowest"] for one in rates.values()],
        "highest": [one["highest"] for one in rates.values()],
    }
    if ratios := found.get("ratios"):
        header = "speed over eager's" if unit == "milliseconds" else OURS_OVER_THEIRS
        columns[header] = [_ratio(ratios.get(name)) for name in rates]
    for key, header in (("share_of_peak", "share of peak"), ("dropouts", "dropouts")):
        if key in found:
            columns[header] = [found[key].get(name) for name in rates]
    return Table(title, tuple(columns), list(zip(*columns.values(), strict=True)))


def _fastest(one: Mapping[str, Any]) -> list[Sequence[Any]]:
    """Our speed over that of the fastest peer in fp32 and at any precision."""
    rates = {row: rate["median"] for row, rate in one["images_per_second"].items()}
    peers = {row: rate for row, rate in rates.items() if not row.startswith("vitlab")}
    groups = {
        "fastest peer in fp32": [row for row in peers if row.endswith(", fp32")],
        "fastest peer": list(peers),
    }
    best = {title: max(rows, key=lambda row: peers[row]) for title, rows in groups.items() if rows}
    return [[title, row, _ratio(one["ratios"][row])] for title, row in best.items()]


def _ratio(one: Mapping[str, float] | None) -> str:
    if one is None:
        return "-"
    return f"{one['median']:.2f} ({one['lowest']:.2f} to {one['highest']:.2f})"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)

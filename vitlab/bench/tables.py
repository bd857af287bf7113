"""The measured parts as tables for a terminal: (title, header, rows)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]


def tables(part: str, found: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of one part of a bench.json."""
    if part == "training":
        for name, one in found["variants"].items():
            yield from _rates(f"training step, {name}", one, one["images_per_second"], "images/s")
            yield f"{name}: {one['best']} beside the fastest", *_fastest(one)
        peaks = [[word, peak / 1e9] for word, peak in found["matrix_peak"].items()]
        yield "matrix product", ("", "GFLOP/s"), peaks
        yield from _missing(found)
    elif part == "recipes":
        rows = [
            [name, one["batch_size"], words, rate]
            for name, one in found.items()
            for words, rate in one["images_per_second"].items()
        ]
        yield "training step", ("recipe", "batch", "computed in", "images/s"), rows
    elif part == "attention":
        for precision, counts in found.items():
            ways = next(iter(counts.values()))
            rows = [[count, *one.values()] for count, one in counts.items()]
            yield f"milliseconds in {precision}", ("tokens", *ways), rows
    elif part == "dropout":
        rows = [[word, one["vitlab"], one["torch"]] for word, one in found.items()]
        yield "nanoseconds a number", ("", "vitlab", "torch"), rows
    elif part == "pipeline":
        yield from _rates(part, found, found["images_per_second"], "images/s")
        yield from _missing(found)
    elif part == "inference":
        yield from _rates("one image on the CPU", found, found["latency_ms"], "milliseconds")
        yield from _missing(found)
        rates = found["images_per_second"]
        yield "forward pass on the CPU", ("", "images/s"), _medians(rates)
    elif part == "augmentations":
        title = f"augmentation of a batch of {found['batch_size']}"
        rows = [[name, value] for name, value in found["milliseconds_per_batch"].items()]
        yield title, ("technique", "milliseconds"), rows
    elif part == "growth":
        rows = [
            [axis, str(value), *list(one.values())[:1]]
            for axis, values in found.items()
            for value, one in values.items()
        ]
        yield "growth", ("axis", "value", "milliseconds"), rows
    elif part == "settings":
        rows = [
            [setting, value, one["median"], one["lowest"], one["highest"]]
            for setting, values in found.items()
            for value, one in values.items()
        ]
        yield "training step of `cpu`", ("setting", "", "images/s", "lowest", "highest"), rows
    elif part == "calibration":
        head = ("recipe", "how", "ms/step", "share of peak", "s/epoch", "minutes")
        rows = [
            [
                name, one["how"], 1e3 * one["seconds_per_step"], one["share_of_peak"],
                one["seconds_per_epoch"], one["minutes"],
            ]
            for name, one in found.items()
        ]  # fmt: skip
        yield "calibration", head, rows
    else:
        flat = {**found, **found.get("accuracy", {})}
        rows = [[name, value] for name, value in flat.items() if not isinstance(value, dict)]
        yield part, ("", ""), [[name, _text(value)] for name, value in rows]


def _rates(
    title: str, found: Mapping[str, Any], rates: Mapping[str, Mapping[str, float]], unit: str
) -> Iterator[Table]:
    shares, ratios = found.get("share_of_peak", {}), found["ratios"]
    drops = found.get("dropouts", {})
    rows = [
        [
            name, one["median"], one["lowest"], one["highest"], _ratio(ratios.get(name)),
            *([shares.get(name)] if shares else []), *([drops.get(name)] if drops else []),
        ]
        for name, one in rates.items()
    ]  # fmt: skip
    word = "faster than eager" if unit == "milliseconds" else "ours is faster by"
    header = ("", unit, "lowest", "highest", word)
    header += ("share of peak",) * bool(shares) + ("dropouts",) * bool(drops)
    yield title, header, rows


def _missing(found: Mapping[str, Any]) -> Iterator[Table]:
    if missing := found["missing"]:
        yield "not measured", ("", "because"), [[k, _absent(v)] for k, v in missing.items()]


def _fastest(one: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """How many times faster ours is than the fastest peer in fp32 and at any precision."""
    rates = {row: rate["median"] for row, rate in one["images_per_second"].items()}
    peers = {row: rate for row, rate in rates.items() if not row.startswith("vitlab")}
    rows = []
    for title, among in (
        ("fastest peer in fp32", [row for row in peers if row.endswith(", fp32")]),
        ("fastest peer", list(peers)),
    ):
        if among:
            row = max(among, key=lambda name: peers[name])
            rows.append([title, row, _ratio(one["ratios"][row])])
    return ("", "who", "ours is faster by"), rows


def _medians(rates: Mapping[str, Mapping[str, float]]) -> Sequence[Sequence[Any]]:
    return [[name, one["median"]] for name, one in rates.items()]


def _ratio(one: Mapping[str, float] | None) -> str:
    if one is None:
        return "-"
    return f"{one['median']:.2f} ({one['lowest']:.2f} to {one['highest']:.2f})"


def _absent(reason: str) -> str:
    return reason if " " in reason else f"{reason} is not installed: pip install 'vitlab[bench]'"


def _text(value: Any) -> str:
    return (
        f"{value:.4f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )

"""Verbs that check an installation, its speed and the published figures."""

from argparse import Namespace

from vitlab.cli.arguments import (
    DATA_ROOT,
    DEVICE,
    JSON,
    RUNS_FOLDER,
    argument,
    flag,
    out,
    verb,
)
from vitlab.cli.printing import note, print_json, print_table
from vitlab.config import SECTIONS
from vitlab.errors import PartialError


@verb(DEVICE, DATA_ROOT, JSON, examples=("vitlab doctor", "vitlab doctor --device cpu --json"))
def doctor(args: Namespace) -> int:
    """Describe this installation and try it with ten steps.

    What it prints is a block to paste into a bug report.
    """
    from vitlab.doctor import examine

    facts = examine(args.device, args.data_root)
    if args.json:
        print_json(facts)
    else:
        rows = [(part, *pair) for part, pairs in facts.items() for pair in pairs.items()]
        print_table(
            ("", "", ""),
            [(part, name, "none" if value is None else str(value)) for part, name, value in rows],
        )
    return 0 if facts["self-test"]["passed"] else 1


@verb(
    argument(
        "--parts",
        "training, recipes, pipeline, augmentations, growth, settings, memory, inference, "
        "accuracy; default all",
        metavar="PART,PART",
    ),
    argument("--rounds", "turns that contenders take", type=int, default=6, metavar="N"),
    argument("--seconds", "length of a turn", type=float, default=1.0, metavar="X"),
    out("folder of numbers and pictures; default bench"),
    DEVICE,
    DATA_ROOT,
    JSON,
    examples=("vitlab bench", "vitlab bench --parts inference --rounds 3"),
)
def bench(args: Namespace) -> int:
    """Measure speed here: training, input pipeline, inference, exports."""
    from vitlab.bench import PARTS, bench
    from vitlab.bench.tables import tables

    parts = tuple(args.parts.split(",")) if args.parts else None
    out = args.out or "bench"
    where = {"device": args.device, "data_root": args.data_root}
    found = bench(out, parts, rounds=args.rounds, seconds=args.seconds, say=note, **where)
    if args.json:
        print_json(found)
        return 0
    for part in parts or [part for part in PARTS if part in found]:
        for title, header, rows in tables(part, found[part]):
            print(f"\n{title}")
            print_table(header, rows)
    print(f"\nnumbers and pictures in {out}")
    return 0


@verb(
    argument("rows", "rows of the results page, or recipes", nargs="+"),
    flag(
        "--smoke", "train a few steps of every row, resume them, time its real step, and stop there"
    ),
    argument("--seeds", "seeds 0 to N-1 of every row; default 1", type=int, metavar="N"),
    argument(
        "--minutes",
        "stop after so long, with a checkpoint; the same command goes on",
        type=float,
        metavar="X",
    ),
    argument("--workers", "rows trained side by side; default 1", type=int, metavar="N"),
    argument("--pack", "pack what is small of every run into a file", metavar="FILE.tar.gz"),
    RUNS_FOLDER,
    DEVICE,
    DATA_ROOT,
    JSON,
    examples=(
        "vitlab reproduce vit-d6-w128 --smoke",
        "vitlab reproduce cnn6 --seeds 3 --minutes 60",
    ),
    sections=SECTIONS,
)
def reproduce(args: Namespace) -> int:
    """Train rows of the results page and compare with their figures.

    In a given time, resumed by the same command; with --smoke they are only tried.
    """
    from vitlab.reproduce.queue import reproduce, smoke

    common = {
        "minutes": args.minutes,
        "overrides": args.overrides,
        "out": args.out,
        "workers": args.workers or 1,
        "device": args.device,
        "data_root": args.data_root,
        "say": note,
    }
    if args.smoke:
        lines = smoke(args.rows, **common)
        keys = ("row", "status", "compilation", "step_seconds", "share_of_peak", "seconds")
    else:
        lines = reproduce(args.rows, seeds=range(args.seeds or 1), pack=args.pack, **common)
        keys = ("row", "seed", "status", "accuracy", "published", "verdict", "seconds")
    if args.json:
        print_json(lines)
    else:
        print_table(keys, [[line.get(key) for key in keys] for line in lines])
    if args.smoke and any(line["status"] != "works" for line in lines):
        raise PartialError("not every row works here")
    done = sum(line["status"] in ("finished", "works") for line in lines)
    if done < len(lines):
        raise PartialError(f"{done} of {len(lines)} are finished; the same command goes on")
    return 0

"""Verbs that hold runs beside each other: compare, leaderboard, report."""

import os
from argparse import Namespace
from itertools import groupby
from pathlib import Path

from vitlab.cli.arguments import JSON, SPLIT, argument, flag, out, repeated, verb
from vitlab.cli.printing import note, print_json, print_table


@verb(
    argument("runs", "two or more runs; the first is the baseline", nargs="+"),
    SPLIT,
    out("folder of the comparison; default compare-RUN-RUN beside the first run"),
    JSON,
    examples=("vitlab compare cpu cpu-cnn", "vitlab compare runs/a runs/b --split test"),
)
def compare(args: Namespace) -> int:
    """Compare runs with the first of them.

    Numbers, curves, classes, images they disagree on, and tests of significance.
    """
    from vitlab.compare import default_folder, page, write
    from vitlab.compare.index import write_index
    from vitlab.pretrained import open_run

    runs = [open_run(run) for run in args.runs]
    folder = Path(args.out) if args.out else default_folder(runs)
    found = write(runs, args.split, folder)
    write_index(runs[0].path.resolve().parent)
    if args.json:
        print_json(found)
        return 0
    print_table(("", *(run["run"] for run in found["runs"])), page.rows(found))
    print()
    print("\n".join(found["findings"]))
    print(f"\nfigures, classes and disagreements in {folder / 'compare.md'}")
    return 0


@verb(
    argument("folder", "folder of runs; default $VITLAB_RUNS, else runs", nargs="?"),
    argument("--sort", "any column of models.csv", default="accuracy", metavar="COLUMN"),
    repeated("--where", "only runs whose config has this value", "FIELD=VALUE"),
    JSON,
    examples=("vitlab leaderboard", "vitlab leaderboard runs --where model.kind=vit --sort loss"),
)
def leaderboard(args: Namespace) -> int:
    """List all runs of a folder by data set, best first.

    The runs are written into models.csv beside them as well.
    """
    from vitlab.compare.index import SHOWN, ranked, select, write_index

    folder = Path(args.folder or os.environ.get("VITLAB_RUNS") or "runs")
    chosen = ranked(select(write_index(folder), args.where), args.sort)
    if args.json:
        print_json([line.values for line in chosen])
        return 0
    columns = SHOWN if args.sort in SHOWN else (*SHOWN, args.sort)
    for place, (_, lines) in enumerate(groupby(chosen, lambda line: line.values["dataset"])):
        print("\n" * (place > 0), end="")
        found = [line.values for line in lines]
        several = any(one["mean_average_precision"] is not None for one in found)
        own = [name for name in columns if name != "mean_average_precision" or several]
        print_table(own, [[one[name] for name in own] for one in found])
    if not chosen:
        note(f"vitlab: no run in {folder}{' has these values' if args.where else ''}")
    damaged = [line.values for line in chosen if line.values["status"] == "damaged"]
    note(*(f"vitlab: {one['model']} is damaged: {one['reason']}" for one in damaged))
    return 0


@verb(
    argument("subjects", "runs, names of shipped models, folders of studies", nargs="+"),
    flag("--slides", "a deck of slides instead of a page"),
    out("folder of the page; default report in the run or study"),
    examples=("vitlab report cpu cpu-cnn", "vitlab report runs/patch-size --slides"),
)
def report(args: Namespace) -> int:
    """Report runs and studies as one page, or as slides.

    Every number names the file it comes from.
    """
    from vitlab.report import report

    print(report(args.subjects, slides=args.slides, out=args.out))
    return 0

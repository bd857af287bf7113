"""Verbs that hold runs beside each other: compare, leaderboard."""

import os
from argparse import Namespace
from pathlib import Path

from vitlab.cli.printing import note, print_json, print_table


def compare(args: Namespace) -> int:
    """Compare runs with the first: numbers, curves, classes, disagreements, tests."""
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


def leaderboard(args: Namespace) -> int:
    """List all runs of a folder, best first; write them into models.csv beside them."""
    from vitlab.compare.index import SHOWN, ranked, select, write_index

    folder = Path(args.folder or os.environ.get("VITLAB_RUNS") or "runs")
    chosen = ranked(select(write_index(folder), args.where), args.sort)
    if args.json:
        print_json([line.values for line in chosen])
        return 0
    columns = SHOWN if args.sort in SHOWN else (*SHOWN, args.sort)
    print_table(columns, [[line.values[name] for name in columns] for line in chosen])
    damaged = [line.values for line in chosen if line.values["status"] == "damaged"]
    note(*(f"vitlab: {one['model']} is damaged: {one['reason']}" for one in damaged))
    return 0

"""Verbs that train and time: train, reproduce, bench."""

import os
from argparse import Namespace
from typing import Any

from vitlab.cli.printing import note, print_json, print_table
from vitlab.errors import ConfigError, PartialError
from vitlab.recipes import RECIPES, recipe


def train(args: Namespace) -> int:
    """Train a recipe into a new run, or go on with one; the last line is the run's path."""
    if not (args.recipe or args.resume):
        raise ConfigError([f"train needs a recipe ({', '.join(RECIPES)}) or --resume RUN"])
    if args.resume and (args.recipe or args.overrides or args.out or args.name):
        raise ConfigError(
            ["--resume goes on with the run as it is: leave out recipe, fields, --out and --name"]
        )
    config = recipe(args.recipe).override(args.overrides) if args.recipe else None
    where = {"device": args.device, "data_root": args.data_root, "quiet": args.quiet}

    from vitlab.training import overfit_one_batch, resume, train

    if config is None:
        run = resume(args.resume, tensorboard=args.tensorboard, **where)
    elif args.overfit_one_batch:
        return overfitted(overfit_one_batch(config, **where), args)
    else:
        named = {"out": args.out, "name": args.name}
        run = train(config, tensorboard=args.tensorboard, **named, **where)
    if os.environ.get("RANK", "0") != "0":
        return 0  # one of the processes of torchrun, the first of which prints
    if args.json:
        print_json({"run": str(run.path), **(run.finished or {})})
    else:
        print(run.path)
    return 0


def overfitted(outcome: dict[str, Any], args: Namespace) -> int:
    """Print what fitting a single batch came to; exit code 1 if it was not learned."""
    if args.json:
        print_json(outcome)
    else:
        print_table(("", ""), outcome.items())
    return 0 if outcome["learned"] else 1


def reproduce(args: Namespace) -> int:
    """Train and evaluate rows of the results page in a given time, or only try them all."""
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


def bench(args: Namespace) -> int:
    """Measure speed on this machine: training, input pipeline, inference and exports."""
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

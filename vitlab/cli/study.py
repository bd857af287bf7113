"""The verb study: plan, confirm, run."""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from vitlab.cli.arguments import (
    DATA_ROOT,
    DEVICE,
    JSON,
    QUIET,
    argument,
    flag,
    out,
    repeated,
    verb,
)
from vitlab.cli.printing import note, print_json, print_rows, print_table
from vitlab.config import SECTIONS
from vitlab.errors import ConfigError


@verb(
    argument(
        "study", "name of a study, a .toml file, or a study's folder; none lists them", nargs="?"
    ),
    argument("--recipe", "baseline of the study"),
    repeated(
        "--vary",
        "an axis; a search takes ranges too: 1..8, 0..0.3, log:1e-4..1e-2",
        "FIELD=VALUE,VALUE",
    ),
    argument(
        "--design",
        "one change at a time, all combinations, or guided by Optuna; default one-factor",
        choices=("one-factor", "grid", "search"),
    ),
    argument(
        "--seeds", "seeds 0 to N-1 of every arm; default 5, in a search 1", type=int, metavar="N"
    ),
    argument("--trials", "arms that a search may try", type=int, metavar="N"),
    argument(
        "--then",
        "train the best values together with new seeds, against the baseline",
        choices=("best",),
    ),
    flag("--test", "evaluate the baseline and the best arm on the test split; each use is logged"),
    out("folder of the study; default its name in $VITLAB_RUNS, else in runs"),
    flag("--yes", "start without asking"),
    flag("--retry", "start again what failed or diverged"),
    argument(
        "--engine",
        "processes of this machine, one a GPU (local is the same), or jobs of SLURM",
        choices=("processes", "local", "slurm"),
        default="processes",
    ),
    argument("--workers", "trials side by side", type=int, metavar="N"),
    argument("--threads", "CPU threads of a trial; default 1", type=int, metavar="N"),
    repeated(
        "--job",
        "a parameter of submitit: timeout_min=60, slurm_partition=gpu, gpus_per_node=1",
        "NAME=VALUE",
    ),
    DEVICE,
    DATA_ROOT,
    QUIET,
    JSON,
    examples=(
        "vitlab study patch-size",
        "vitlab study --recipe digits --vary model.norm=layer,rms --seeds 3",
    ),
    sections=SECTIONS,
)
def study(args: Namespace) -> int:
    """Plan a study, print its cost, run it and compare its arms.

    It starts once you confirm; without a name, the studies that ship are listed.
    """
    if not (args.study or args.vary or args.recipe):
        return ready_studies(args)

    from vitlab.study.run import check_results, open_follow_up

    folder, plan = asked_study(args)
    print_plan(plan, folder, args)
    if not args.yes:
        print_smaller(plan, folder, args)
    if not (args.yes or confirmed()):
        return 0
    run_planned(plan, folder, args)
    if args.then == "best":
        where = {"device": args.device, "data_root": args.data_root}
        best_folder, best = open_follow_up(plan, folder, **where)
        print_plan(best, best_folder, args)
        run_planned(best, best_folder, args)
        check_results(best, best_folder)
    if args.test:
        print_test(folder, args)
    check_results(plan, folder)
    return 0


def ready_studies(args: Namespace) -> int:
    """List the studies that ship."""
    from vitlab.study.define import read, ready

    studies = [read(name) for name in ready()]
    rows = [(one.name, one.recipe, ", ".join(one.axes), one.question) for one in studies]
    print_rows(("study", "recipe", "axes", "question"), rows, args)
    return 0


def asked_study(args: Namespace) -> tuple[Path, Any]:
    """Folder and plan of the study that a command names or spells out."""
    from vitlab.run import STUDY
    from vitlab.study.plan import Plan
    from vitlab.study.prepare import open_plan

    if args.study and (Path(args.study) / STUDY).exists():
        fixed = ("recipe", "vary", "design", "seeds", "trials", "out", "threads", "overrides")
        if any(vars(args)[name] for name in fixed):
            raise ConfigError([f"{args.study} is planned: leave out all that would change it"])
        return Path(args.study), Plan.load(Path(args.study))
    definition = asked(args)
    folder = Path(args.out or Path(os.environ.get("VITLAB_RUNS") or "runs") / definition.name)

    where = {"device": args.device, "data_root": args.data_root}
    where |= {} if args.quiet else {"progress": timing}
    return folder, open_plan(definition, folder, threads=args.threads, **where)


def timing(arm: str) -> None:
    """Say what is being timed."""
    note(f"timing a few steps of {arm}")


def asked(args: Namespace) -> Any:
    """The definition of the study that a command names or spells out."""
    from vitlab.study.define import from_options, read

    if args.study and args.vary:
        raise ConfigError([f"{args.study} says itself what varies: leave out --vary"])
    names = ("recipe", "design", "seeds", "trials")
    given = {} if args.study else {"recipe": None}
    given |= {name: vars(args)[name] for name in names if vars(args)[name] is not None}
    found = read(args.study, **given) if args.study else from_options(args.vary or [], **given)
    return found.with_overrides(args.overrides)


def print_plan(plan: Any, folder: Path, args: Namespace) -> None:
    """Print what a study is going to run, and what that costs."""
    if args.quiet or args.json:
        return
    from vitlab.formatting import duration

    print(f"{plan.question}\n")
    print_table(
        ("arm", "parameters", "multiply-adds", "a run takes"),
        [
            (arm.name, arm.parameters, arm.macs, duration(arm.seconds) if arm.seconds else "?")
            for arm in plan.arms
        ],
    )
    for arm in plan.refused:
        print(f"refused: {arm['name']}: {arm['reason']}")
    print(
        f"\n{plan.size} trials in {folder}, CPU threads of each: {plan.threads}; "
        f"one after another they take about {duration(plan.total_seconds)}\n"
    )


def print_smaller(plan: Any, folder: Path, args: Namespace) -> None:
    """Print which recipe asks the same in less time, where a study that has not begun is long."""
    from vitlab.formatting import duration
    from vitlab.run import STUDY
    from vitlab.study.prepare import LONG, smaller

    if plan.total_seconds < LONG or (folder / STUDY).exists() or args.quiet or args.json:
        return
    where = {"device": args.device, "data_root": args.data_root, "progress": timing}
    found = smaller(plan, asked(args), **where)
    if found is not None:
        print(
            f"with --recipe {found.recipe} the same study takes about "
            f"{duration(found.total_seconds)}\n"
        )


def confirmed() -> bool:
    """Ask whether to start; no where nobody can be asked."""
    if not sys.stdin.isatty():
        print("to start it, give the same command with --yes", file=sys.stderr)
        return False
    return input("start? [y/N] ").strip().lower() in ("y", "yes")


def print_test(folder: Path, args: Namespace) -> None:
    """Evaluate the baseline and the best arm on the test split, and print what comes out."""
    from vitlab.study.run import evaluate_best

    found = evaluate_best(folder, device=args.device, data_root=args.data_root)
    if not args.json:  # which the summary is; compare.json lies in the folder `test`
        seeds = found["findings"][len(found["models"]) :]
        print("\n".join(seeds))


def run_planned(plan: Any, folder: Path, args: Namespace) -> None:
    """Run a study on the engine that was asked for, and print where its summary is."""
    from vitlab.study.engines import build_engine
    from vitlab.study.run import run_study

    engine = build_engine(
        args.engine,
        folder,
        size=plan.size,
        threads=plan.threads,
        device=args.device,
        workers=args.workers,
        jobs=args.job,
    )
    where = {"device": args.device, "data_root": args.data_root}
    summary = run_study(plan, folder, engine, retry=args.retry, quiet=args.quiet, **where)
    if args.json:
        print_json(summary)
        return
    if not args.quiet:
        print_verdicts(summary)
    print(folder / "summary.md")


def print_verdicts(summary: dict[str, Any]) -> None:
    """Print what came out: every declared comparison with its verdict, or where none may be had,
    the arms by their accuracy.
    """
    from vitlab.formatting import between, p_value, percent, signed

    mean = {arm["name"]: percent(arm["accuracy"]["mean"]) for arm in summary["arms"]}
    if summary["comparisons"] and not summary["exploratory"]:
        head = ("arm", "accuracy", "against", "accuracy", "difference, pp", "95 % interval",
                "adjusted p", "verdict", "not equal budget")  # fmt: skip
        rows = [
            (
                one["arm"],
                mean[one["arm"]],
                one["against"],
                mean[one["against"]],
                signed(one["difference"]),
                between(one["interval"], signed),
                p_value(one["adjusted_p"]),
                one["verdict"],
                ", ".join(one["unequal"]) or "-",
            )
            for one in summary["comparisons"]
        ]
        if not any(one["unequal"] for one in summary["comparisons"]):
            head, rows = head[:-1], [row[:-1] for row in rows]
    else:
        head = ("arm", "accuracy", "95 % interval", "over")
        rows = [
            (row["arm"], percent(row["mean"]), between(row["interval"]), row["over"])
            for row in summary["ranking"]
        ]
    print_table(head, rows)
    print()

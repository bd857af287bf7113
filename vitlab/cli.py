"""The command line: a table of verbs, each a function that calls the library and prints.

Every field of a config is an option, `--section.field value`. All that is wrong with a command
is collected and told at once, with exit code 2. Results go to standard output, everything else
to standard error. What a verb needs is imported inside it, so that `--help` answers at once.
"""

import argparse
import dataclasses
import json
import os
import sys
import types
import typing
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, get_args, get_origin

from vitlab import __version__
from vitlab.config import MODELS, Config, field_help, fields_of, hints, text, unknown
from vitlab.errors import ConfigError, PartialError, VitlabError
from vitlab.recipes import RECIPES, recipe
from vitlab.run import Run


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

    from vitlab.train import overfit_one_batch, resume, train

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


def evaluate(args: Namespace) -> int:
    """Judge a run on a split; store numbers, logits and pictures in the run."""
    from vitlab.evaluate import evaluate, evaluate_robustness
    from vitlab.pretrained import open_run

    run = open_run(args.run)
    where = {"checkpoint": args.checkpoint, "device": args.device, "data_root": args.data_root}
    result = evaluate(run, args.split, **where)
    tables = [result[name] for name in ("per_class", "epochs_to_accuracy", "top_confusions")]
    if args.robustness:
        robustness = evaluate_robustness(run, args.split, **where)
        result = {**result, "robustness": robustness}
        tables.append(robustness["conditions"])
    if args.json:
        print_json(result)
        return 0
    scalars = {
        name: value for name, value in result.items() if isinstance(value, int | float | str)
    }
    print_table(("", ""), scalars.items())
    for table in filter(None, tables):
        print()
        # Intervals are in the JSON and the pictures: a table has one number a cell.
        columns = [name for name, value in table[0].items() if not isinstance(value, list)]
        print_table(columns, [[row[name] for name in columns] for row in table])
    print(f"\npictures in {run.figures}")
    return 0


def reproduce(args: Namespace) -> int:
    """Train, test and judge rows of the results page, one after another, in a given time."""
    from vitlab.reproduce.queue import reproduce

    lines = reproduce(
        args.rows,
        seeds=range(args.seeds or 1),
        minutes=args.minutes,
        overrides=args.overrides,
        out=args.out,
        pack=args.pack,
        device=args.device,
        data_root=args.data_root,
        say=note,
    )
    if args.json:
        print_json(lines)
    else:
        keys = ("row", "seed", "status", "accuracy", "published", "verdict", "seconds")
        print_table(keys, [[line.get(key) for key in keys] for line in lines])
    done = sum(line["status"] == "finished" for line in lines)
    if done < len(lines):
        raise PartialError(f"{done} of {len(lines)} are finished; the same command goes on")
    return 0


def bench(args: Namespace) -> int:
    """Measure speed on this machine, beside what others offer."""
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


def note(message: str) -> None:
    """Print a line for whoever waits."""
    print(message, file=sys.stderr)


def explore(args: Namespace) -> int:
    """Look at a data set: samples, colours, patches, augmentations, near-duplicates, maps."""
    from vitlab.explore import default_folder, explore

    config = Config().override({**args.overrides, "data.dataset": args.dataset}).data
    folder = Path(args.out) if args.out else default_folder(config)
    where = {"out": folder, "device": args.device, "data_root": args.data_root}
    numbers = explore(config, backbone=args.backbone, **where)
    if args.json:
        print_json(numbers)
        return 0
    for rows in (numbers["images"], numbers["separation"]):
        print_table(rows[0], [list(row.values()) for row in rows])
        print()
    print(f"figures in {folder / 'index.md'}")
    return 0


def features(args: Namespace) -> int:
    """Find out what the layers of a run know, or those of two runs beside each other."""
    from vitlab.features import default_folder, features
    from vitlab.pretrained import open_run

    runs = [open_run(run) for run in (args.run, args.other) if run]
    folder = Path(args.out) if args.out else default_folder(runs)
    where = {"out": folder, "device": args.device, "data_root": args.data_root}
    found = features(*runs, checkpoint=args.checkpoint, **where)
    if args.json:
        print_json(found)
        return 0
    columns = ("linear_probe", "neighbors", "within", "between", "ratio")
    rows = [
        (run["run"], layer["layer"], kind, *(layer[kind][name] for name in columns))
        for run in found["runs"]
        for layer in run["layers"]
        for kind in ("pooled", "cls", "patch")
        if layer[kind]
    ]
    print_table(("run", "layer", "of", *columns), rows)
    print()
    print("\n".join(found["sentences"]))
    print(f"\nfigures in {folder}")
    return 0


def explain(args: Namespace) -> int:
    """Draw what a run's model looks at in images, and measure which of the maps are true."""
    from vitlab.explain import explain

    found = explain(
        args.run,
        args.image,
        split=args.split,
        methods=args.methods.split(",") if args.methods else None,
        count=args.count,
        device=args.device,
        data_root=args.data_root,
    )
    if args.json:
        print_json(found)
        return 0
    rows = []
    for one in found["pictures"]:
        top = [f"{each['class']} {each['probability']:.1%}" for each in one["top"]]
        rows.append((one["image"], one["certainty"], ", ".join(top)))
    print_table(("image", "certainty", "likeliest classes"), rows)
    if found["faithfulness"]:
        print()
        columns = ("gain", "deletion", "insertion")
        rows = [
            (one["method"], *(one[name]["mean"] for name in columns), one.get("verdict", ""))
            for one in found["faithfulness"]["methods"]
        ]
        print_table(("method", *columns, "verdict"), rows)
    print(f"\npictures in {found['folder']}")
    return 0


def recipes(args: Namespace) -> int:
    """List the recipes."""
    from vitlab.data import resolve
    from vitlab.models.cost import cost

    rows = []
    for name, make in RECIPES.items():
        config = recipe(name)
        whole = cost(replace(config, data=resolve(config.data)))
        idea = (make.__doc__ or "").split("\n")[0]
        rows.append((name, config.model.kind, whole.parameters, config.train.epochs, idea))
    print_rows(("recipe", "model", "parameters", "epochs", "idea"), rows, args)
    return 0


def datasets(args: Namespace) -> int:
    """List the data sets known by name, and where they were found."""
    from vitlab.data import KNOWN
    from vitlab.data.sources import locate

    rows = []
    for name, known in KNOWN.items():
        found = "comes with scikit-learn"
        if known.sources:
            found = str(locate(name, args.data_root) or "fetched when first used")
        shape = times((known.channels, *known.image_size))
        rows.append((name, shape, known.classes, known.train, known.test, found, known.summary))
    print_rows(("dataset", "shape", "classes", "train", "test", "where", "what"), rows, args)
    return 0


def doctor(args: Namespace) -> int:
    """Describe this installation and try it with ten steps: a block to paste into a bug report."""
    from vitlab.doctor import examine

    facts = examine(args.device, args.data_root)
    if args.json:
        print_json(facts)
    else:
        rows = [(part, *pair) for part, pairs in facts.items() for pair in pairs.items()]
        print_table(("", "", ""), [(part, name, str(value)) for part, name, value in rows])
    return 0 if facts["self-test"]["passed"] else 1


def show(args: Namespace) -> int:
    """Show a config, how its parts work and its model layer by layer; or how two configs differ."""
    config = opened(args.recipe).override(args.overrides)
    if args.other:
        return show_difference(config, opened(args.other), args)

    from vitlab.data import resolve
    from vitlab.models import explain
    from vitlab.models.cost import cost, summary

    config = replace(config, data=resolve(config.data, args.data_root))
    whole, layers, words = cost(config), summary(config), explain(config.model)
    if args.json:
        print_json(
            {
                "config": config.to_dict(),
                **dataclasses.asdict(whole),
                "layers": [dataclasses.asdict(layer) for layer in layers],
                "words": words,
            }
        )
        return 0
    fields = fields_of(config)
    print_table(("field", "value"), [(name, text(value)) for name, value in fields.items()])
    print()
    print_table(
        ("axis", "word", "how it works"),
        [(axis, fields[f"model.{axis}"], sentences) for axis, sentences in words.items()],
    )
    print()
    total = ("total", "", whole.parameters, "", "", sum(x.megabytes for x in layers), whole.macs)
    print_table(
        ("layer", "type", "parameters", "input", "output", "MB", "multiply-adds"),
        [
            (x.name, x.type, x.parameters, times(x.input), times(x.output), x.megabytes, x.macs)
            for x in layers
        ]
        + [total],
    )
    print(
        "\nMultiply-adds are those of one image, forward: convolutions, linear layers and both "
        "products of attention. FLOPs are twice as many. MB are those of fp32 weights."
    )
    return 0


def show_difference(one: Config, other: Config, args: Namespace) -> int:
    """Print where two configs differ; - where a kind of model has no such field."""
    left, right = fields_of(one), fields_of(other)
    pairs = {name: (left.get(name), right.get(name)) for name in {**left, **right}}
    pairs = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if args.json:
        print_json(pairs)
        return 0
    rows = [
        (name, *(text(side[name]) if name in side else "-" for side in (left, right)))
        for name in pairs
    ]
    print_table(("field", args.recipe, args.other), rows)
    return 0


def opened(name: str) -> Config:
    """The config of a run, if the name is a folder, else of a recipe."""
    return Run(name).config if Path(name).is_dir() else recipe(name)


def study(args: Namespace) -> int:
    """Plan a study, say what it costs, and after a yes run it to its summary."""
    if not (args.study or args.vary):
        return ready_studies(args)

    from vitlab.study.prepare import open_follow_up
    from vitlab.study.run import check_results

    folder, plan = asked_study(args)
    print_plan(plan, folder, args)
    if not (args.yes or agreed()):
        return 0
    conduct_study(plan, folder, args)
    if args.then == "best":
        where = {"device": args.device, "data_root": args.data_root}
        best_folder, best = open_follow_up(plan, folder, **where)
        print_plan(best, best_folder, args)
        conduct_study(best, best_folder, args)
        check_results(best, best_folder)
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
    from vitlab.study.define import from_words, read
    from vitlab.study.plan import Plan
    from vitlab.study.prepare import open_plan

    if args.study and (Path(args.study) / "study.json").exists():
        fixed = ("recipe", "vary", "design", "seeds", "trials", "out", "threads", "overrides")
        if any(vars(args)[name] for name in fixed):
            raise ConfigError([f"{args.study} is planned: leave out all that would change it"])
        return Path(args.study), Plan.load(Path(args.study))
    if args.study and args.vary:
        raise ConfigError([f"{args.study} says itself what varies: leave out --vary"])
    names = ("recipe", "design", "seeds", "trials")
    given = {"recipe": None} if args.vary else {}
    given |= {name: vars(args)[name] for name in names if vars(args)[name] is not None}
    asked = read(args.study, **given) if args.study else from_words(args.vary, **given)
    asked = asked.with_overrides(args.overrides)
    folder = Path(args.out or Path(os.environ.get("VITLAB_RUNS") or "runs") / asked.name)

    def told(arm: str) -> None:
        if not args.quiet:
            print(f"timing a few steps of {arm}", file=sys.stderr)

    where = {"device": args.device, "data_root": args.data_root, "told": told}
    return folder, open_plan(asked, folder, threads=args.threads, **where)


def print_plan(plan: Any, folder: Path, args: Namespace) -> None:
    """Print what a study is going to run, and what that costs."""
    if args.quiet or args.json:
        return
    from vitlab.train.loop import duration

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


def agreed() -> bool:
    """Ask whether to start; no where nobody can be asked."""
    if not sys.stdin.isatty():
        print("to start it, give the same command with --yes", file=sys.stderr)
        return False
    return input("start? [y/N] ").strip().lower() in ("y", "yes")


def conduct_study(plan: Any, folder: Path, args: Namespace) -> None:
    """Run a study on the engine that was asked for, and print where its summary is."""
    from vitlab.study.engines import build_engine
    from vitlab.study.run import conduct

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
    summary = conduct(plan, folder, engine, retry=args.retry, quiet=args.quiet, **where)
    if args.json:
        print_json(summary)
    else:
        print(folder / "summary.md")


class Verb(NamedTuple):
    """What a verb does, the arguments it takes, and the sections whose config fields it takes."""

    act: Callable[[Namespace], int]
    arguments: tuple[str, ...]
    fields: tuple[str, ...] = ()


VERBS = {
    "train": Verb(
        train,
        (
            "[recipe]", "--from", "--out", "--name", "--device", "--data-root", "--resume",
            "--overfit-one-batch", "--tensorboard", "--quiet", "--json",
        ),
        fields=Config.SECTIONS,
    ),
    "evaluate": Verb(
        evaluate,
        ("run", "--split", "--checkpoint", "--robustness", "--device", "--data-root", "--json"),
    ),
    "explore": Verb(
        explore,
        ("dataset", "--backbone", "--out", "--device", "--data-root", "--json"),
        fields=("data",),
    ),
    "features": Verb(
        features,
        ("run", "[other]", "--out", "--checkpoint", "--device", "--data-root", "--json"),
    ),
    "explain": Verb(
        explain,
        (
            "run", "image", "--split", "--methods", "--count", "--device", "--data-root", "--json",
        ),
    ),
    "show": Verb(show, ("recipe", "[other]", "--data-root", "--json"), fields=Config.SECTIONS),
    "study": Verb(
        study,
        (
            "[study]", "--recipe", "--vary", "--design", "--seeds", "--trials", "--then", "--out",
            "--yes", "--retry", "--engine", "--workers", "--threads", "--job", "--device",
            "--data-root", "--quiet", "--json",
        ),
        fields=Config.SECTIONS,
    ),
    "reproduce": Verb(
        reproduce,
        (
            "rows", "--seeds", "--minutes", "--pack", "--out", "--device", "--data-root", "--json",
        ),
        fields=Config.SECTIONS,
    ),
    "bench": Verb(
        bench,
        (
            "--parts", "--rounds", "--seconds", "--out", "--device", "--data-root", "--json",
        ),
    ),
    "recipes": Verb(recipes, ("--json",)),
    "datasets": Verb(datasets, ("--data-root", "--json")),
    "doctor": Verb(doctor, ("--device", "--data-root", "--json")),
}  # fmt: skip

ARGUMENTS: dict[str, dict[str, Any]] = {
    "recipe": {"help": "name of a recipe (`vitlab recipes`); show takes a run as well"},
    "other": {"help": "a second recipe or run, to see where they differ"},
    "dataset": {"help": "a known name (`vitlab datasets`), or whatever else data.dataset takes"},
    "run": {"help": "path of a run, or the name of a shipped model"},
    "image": {"nargs": "*", "help": "picture files; default a few images of the split, at random"},
    "study": {"help": "name of a study, a .toml file, or a study's folder; none lists them"},
    "--recipe": {"help": "baseline of a study"},
    "--vary": {
        "action": "append",
        "default": [],
        "metavar": "FIELD=WORD,WORD",
        "help": "an axis; a search takes ranges too: 1..8, 0..0.3, log:1e-4..1e-2",
    },
    "--design": {
        "choices": ("one-factor", "grid", "search"),
        "help": "one change at a time, all combinations, or guided by Optuna; default one-factor",
    },
    "--seeds": {"type": int, "metavar": "N", "help": "seeds 0 to N-1 of every arm; default 5"},
    "--trials": {"type": int, "metavar": "N", "help": "arms that a search may try"},
    "--then": {
        "choices": ("best",),
        "help": "train the best words together with new seeds, against the baseline",
    },
    "--yes": {"action": "store_true", "help": "start without asking"},
    "--retry": {"action": "store_true", "help": "start again what failed or diverged"},
    "--engine": {
        "choices": ("processes", "local", "slurm"),
        "default": "processes",
        "help": "processes of this machine, or submitit's local or SLURM executor",
    },
    "--workers": {"type": int, "metavar": "N", "help": "trials side by side"},
    "--threads": {"type": int, "metavar": "N", "help": "CPU threads of a trial; default 1"},
    "--job": {
        "action": "append",
        "default": [],
        "metavar": "NAME=VALUE",
        "help": "a parameter of submitit: timeout_min=60, slurm_partition=gpu, gpus_per_node=1",
    },
    "--out": {
        "metavar": "FOLDER",
        "help": "folder of runs (default $VITLAB_RUNS, else runs), of the study, or of figures",
    },
    "--backbone": {
        "metavar": "NAME",
        "help": "a pretrained model, by its name on the Hugging Face hub or its folder",
    },
    "--name": {"help": "name of the run; default the recipe and the seed"},
    "--device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1, mps; default auto"},
    "--data-root": {"metavar": "FOLDER", "help": "folder of data sets; default $VITLAB_DATA"},
    "--from": {
        "dest": "train.weights",
        "default": argparse.SUPPRESS,
        "metavar": "WEIGHTS",
        "help": "start from a run, a shipped model, a safetensors file or hf:NAME",
    },
    "--tensorboard": {"action": "store_true", "help": "write TensorBoard events into the run"},
    "--resume": {"metavar": "RUN", "help": "go on with an interrupted run"},
    "--overfit-one-batch": {"action": "store_true", "help": "prove that the set-up can learn"},
    "--quiet": {"action": "store_true", "help": "print nothing but the result"},
    "--split": {
        "choices": ("validation", "test"),
        "default": "validation",
        "help": "test enters the test ledger; default validation",
    },
    "--checkpoint": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "best by validation accuracy; default last",
    },
    "--methods": {
        "metavar": "METHOD,METHOD",
        "help": "attention, rollout, gradient-rollout, grad-cam, occlusion, integrated-gradients; "
        "default all that the model has",
    },
    "--count": {
        "type": int,
        "default": 4,
        "metavar": "N",
        "help": "images of the split to draw; default 4",
    },
    "--robustness": {
        "action": "store_true",
        "help": "judge corrupted and attacked images as well",
    },
    "rows": {"nargs": "+", "help": "rows of the results page, or recipes"},
    "--minutes": {
        "type": float,
        "metavar": "X",
        "help": "stop after so long, with a checkpoint; the same command goes on",
    },
    "--pack": {"metavar": "FILE.tar.gz", "help": "pack what is small of every run into a file"},
    "--parts": {
        "metavar": "PART,PART",
        "help": "training, pipeline, augmentations, growth, settings, memory, inference, "
        "accuracy, calibration; default all that takes minutes",
    },
    "--rounds": {"type": int, "default": 6, "help": "turns that contenders take; default 6"},
    "--seconds": {"type": float, "default": 1.0, "help": "length of a turn; default 1"},
    "--json": {"action": "store_true", "help": "print the result as JSON"},
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are ours, and which never guesses at half a name."""

    def __init__(self, **settings: Any):
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the command."""
        raise ConfigError([message])


def build_parser() -> Parser:
    """The parser of all verbs."""
    parser = Parser(prog="vitlab", description="Vision Transformers from scratch, on small images.")
    parser.add_argument("--version", action="version", version=f"vitlab {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        about = verb.act.__doc__
        one = verbs.add_parser(name, help=about, description=about)
        for argument in verb.arguments:
            bare = argument.strip("[]")
            more = {} if bare.startswith("-") else {"metavar": bare.upper()}
            if bare != argument:
                more["nargs"] = "?"
            one.add_argument(bare, **more, **ARGUMENTS[bare])
        if verb.fields:
            # Eighty fields would bury the usage line.
            usage = one.format_usage().removeprefix("usage: ").strip()
            one.usage = f"{usage} [--section.field VALUE ...]"
            add_fields(one, verb.fields)
    return parser


def add_fields(parser: Parser, sections: Iterable[str]) -> None:
    """Add an option per config field; its text is read once the kind of model is known."""
    for section in sections:
        kinds = MODELS.values() if section == "model" else [type(getattr(Config(), section))]
        # Kinds of model share names; the words of the first, the ViT, win.
        fields = {
            name: (hint, field_help(kind)[name])
            for kind in reversed(list(kinds))
            for name, hint in hints(kind).items()
        }
        group = parser.add_argument_group(f"{section} fields")
        for name, (hint, words) in fields.items():
            group.add_argument(
                f"--{section}.{name}",
                default=argparse.SUPPRESS,
                metavar="|".join(MODELS) if name == "kind" else placeholder(hint),
                help=words.replace("%", "%%"),
            )


def placeholder(hint: Any) -> str:
    """What a field's value looks like, in a help text: N, X, on|off, layer|rms, N,N."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "|".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return "|".join("none" if arg is type(None) else placeholder(arg) for arg in args)
    if origin is tuple:
        return ",".join("..." if arg is Ellipsis else placeholder(arg) for arg in args)
    return {bool: "on|off", int: "N", float: "X", str: "TEXT"}[hint]


def spelt(word: str) -> str:
    """An option with underscores in the names of fields and dashes in all others."""
    name, sign, value = word.partition("=")
    if not name.startswith("--"):
        return word
    bare = name[2:]
    bare = bare.replace("-", "_") if "." in bare else bare.replace("_", "-")
    return f"--{bare}{sign}{value}"


def parse(words: Sequence[str]) -> Namespace:
    """Read a command; ConfigError lists every unknown name in it, with the likely one."""
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        raise ConfigError([unknown(verb, VERBS)])
    args, extra = build_parser().parse_known_args([spelt(word) for word in words])
    options = vars(args)
    args.overrides = {name: options[name] for name in list(options) if "." in name}
    if not extra:
        return args
    known = [bare[2:] for bare in VERBS[args.verb].arguments if bare.startswith("--")]
    sections = VERBS[args.verb].fields
    known += [name for name in fields_of(Config()) if name.partition(".")[0] in sections]
    names = [word.lstrip("-").partition("=")[0] for word in extra if word.startswith("-")]
    problems = [unknown(name, known) for name in names] or [f"{extra[0]!r} is one word too many"]
    if args.overrides and vars(args).get("recipe") in RECIPES:
        try:
            recipe(args.recipe).override(args.overrides)
        except ConfigError as error:
            problems += error.problems
    raise ConfigError(problems)


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"vitlab: {message}", file=sys.stderr)
        try:
            args = parse(sys.argv[1:] if words is None else words)
            if args.verb is None:
                build_parser().print_help()
                return 0
            code = VERBS[args.verb].act(args)
            sys.stdout.flush()
            return code
        except VitlabError as error:
            print(f"vitlab: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            # Whoever read the output has left; a last flush at exit must not complain again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))


def print_rows(header: Sequence[str], rows: Iterable[Sequence[Any]], args: Namespace) -> None:
    """Print a table, or as JSON a list of objects."""
    if args.json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        print_table(header, rows)


def print_table(header: Iterable[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print aligned columns, numbers to the right; whole lines where nobody reads a terminal."""
    from rich.console import Console
    from rich.table import Table

    header, rows = list(header), list(rows)
    table = Table(box=None, pad_edge=False, show_header=any(header))
    for place, name in enumerate(header):
        words = any(isinstance(row[place], str) for row in rows)
        table.add_column(name, justify="left" if words else "right")
    for row in rows:
        table.add_row(*map(number, row))
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def number(value: Any) -> str:
    """A value as a table shows it: 12,345, 0.8671, or - for nothing."""
    if isinstance(value, bool | str):
        return str(value)
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def times(shape: Iterable[int]) -> str:
    """A shape in words: 64 x 192."""
    return " x ".join(map(str, shape))

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
from vitlab.errors import ConfigError, VitlabError
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
        run = resume(args.resume, **where)
    elif args.overfit_one_batch:
        return overfitted(overfit_one_batch(config, **where), args)
    else:
        run = train(config, out=args.out, name=args.name, **where)
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
    from vitlab.evaluate import evaluate

    where = {"device": args.device, "data_root": args.data_root}
    result = evaluate(args.run, args.split, checkpoint=args.checkpoint, **where)
    if args.json:
        print_json(result)
        return 0
    scalars = {
        name: value for name, value in result.items() if isinstance(value, int | float | str)
    }
    print_table(("", ""), scalars.items())
    print()
    classes = result["per_class"]
    print_table(classes[0], [list(row.values()) for row in classes])
    print(f"\npictures in {Run(args.run).figures}")
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


class Verb(NamedTuple):
    """What a verb does, the arguments it takes, and whether config fields are among them."""

    act: Callable[[Namespace], int]
    arguments: tuple[str, ...]
    fields: bool = False


VERBS = {
    "train": Verb(
        train,
        (
            "[recipe]", "--out", "--name", "--device", "--data-root", "--resume",
            "--overfit-one-batch", "--quiet", "--json",
        ),
        fields=True,
    ),
    "evaluate": Verb(
        evaluate, ("run", "--split", "--checkpoint", "--device", "--data-root", "--json")
    ),
    "show": Verb(show, ("recipe", "[other]", "--data-root", "--json"), fields=True),
    "recipes": Verb(recipes, ("--json",)),
    "datasets": Verb(datasets, ("--data-root", "--json")),
}  # fmt: skip

ARGUMENTS: dict[str, dict[str, Any]] = {
    "recipe": {"help": "name of a recipe (`vitlab recipes`); show takes a run as well"},
    "other": {"help": "a second recipe or run, to show the difference"},
    "run": {"help": "path of a run"},
    "--out": {"metavar": "FOLDER", "help": "folder of runs; default $VITLAB_RUNS, else runs"},
    "--name": {"help": "name of the run; default the recipe and the seed"},
    "--device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1, mps; default auto"},
    "--data-root": {"metavar": "FOLDER", "help": "folder of data sets; default $VITLAB_DATA"},
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
            add_fields(one)
    return parser


def add_fields(parser: Parser) -> None:
    """Add an option per config field; its text is read once the kind of model is known."""
    for section in Config.SECTIONS:
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
    if VERBS[args.verb].fields:
        known += fields_of(Config())
    names = [word.lstrip("-").partition("=")[0] for word in extra if word.startswith("-")]
    problems = [unknown(name, known) for name in names] or [f"{extra[0]!r} is one word too many"]
    if args.overrides and args.recipe in RECIPES:
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

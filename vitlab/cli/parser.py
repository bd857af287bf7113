"""Words of a command -> a verb and its arguments; everything wrong with them, at once."""

import argparse
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from vitlab import __version__
from vitlab.cli.listing import datasets, doctor, recipes, show
from vitlab.cli.looking import evaluate, explain, explore, features
from vitlab.cli.reporting import report
from vitlab.cli.serving import serve
from vitlab.cli.studying import study
from vitlab.cli.telling import compare, leaderboard
from vitlab.cli.training import bench, reproduce, train
from vitlab.cli.using import export, predict
from vitlab.config import MODELS, SECTIONS, Config, field_types, fields_of, section_types
from vitlab.errors import ConfigError
from vitlab.fields import field_help, placeholder, unknown
from vitlab.recipes import ALL_RECIPES, recipe
from vitlab.serve.limits import Limits


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
        fields=SECTIONS,
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
    "predict": Verb(
        predict,
        ("pictures", "--top", "--csv", "--explain", "--device", "--json"),
    ),
    "export": Verb(
        export,
        ("run", "--to", "--out", "--push", "--data-root", "--json"),
    ),
    "serve": Verb(
        serve,
        (
            "[source]", "--port", "--host", "--allow-host", "--root-path", "--max-bytes",
            "--max-pixels",
        ),
    ),
    "compare": Verb(compare, ("runs", "--split", "--out", "--json")),
    "report": Verb(report, ("subjects", "--slides", "--out")),
    "leaderboard": Verb(leaderboard, ("[folder]", "--sort", "--where", "--json")),
    "show": Verb(show, ("recipe", "[other]", "--data-root", "--json"), fields=SECTIONS),
    "study": Verb(
        study,
        (
            "[study]", "--recipe", "--vary", "--design", "--seeds", "--trials", "--then", "--test",
            "--out", "--yes", "--retry", "--engine", "--workers", "--threads", "--job", "--device",
            "--data-root", "--quiet", "--json",
        ),
        fields=SECTIONS,
    ),
    "reproduce": Verb(
        reproduce,
        (
            "rows", "--smoke", "--seeds", "--minutes", "--workers", "--pack", "--out", "--device",
            "--data-root", "--json",
        ),
        fields=SECTIONS,
    ),
    "bench": Verb(
        bench,
        (
            "--parts", "--rounds", "--seconds", "--out", "--device", "--data-root", "--json",
        ),
    ),
    "recipes": Verb(recipes, ("--experiments", "--json")),
    "datasets": Verb(datasets, ("--data-root", "--json")),
    "doctor": Verb(doctor, ("--device", "--data-root", "--json")),
}  # fmt: skip


ARGUMENTS: dict[str, dict[str, Any]] = {
    "recipe": {"help": "name of a recipe (`vitlab recipes`); show takes a run as well"},
    "other": {"help": "a second recipe or run, to see where they differ"},
    "dataset": {"help": "a known name (`vitlab datasets`), or whatever else data.dataset takes"},
    "run": {"help": "path of a run, or the name of a shipped model"},
    "runs": {"nargs": "+", "help": "two or more runs; the first is the baseline"},
    "subjects": {"nargs": "+", "help": "runs, names of shipped models, folders of studies"},
    "--slides": {"action": "store_true", "help": "a deck of slides instead of a page"},
    "folder": {"help": "folder of runs; default $VITLAB_RUNS, else runs"},
    "--sort": {"default": "accuracy", "metavar": "COLUMN", "help": "any column of models.csv"},
    "--where": {
        "action": "append",
        "default": [],
        "metavar": "FIELD=VALUE",
        "help": "only runs whose config has this value; may be given several times",
    },
    "image": {"nargs": "*", "help": "picture files; default a few images of the split, at random"},
    "pictures": {
        "nargs": "*",
        "help": "a run, an ONNX export or a shipped model's name, if not the shipped cpu is meant; "
        "then picture files, folders and patterns",
    },
    "--top": {"type": int, "default": 3, "metavar": "N", "help": "classes to name; default 3"},
    "--csv": {"action": "store_true", "help": "print CSV, a line per picture"},
    "--explain": {"action": "store_true", "help": "draw what the answers rest on"},
    "--to": {
        "required": True,
        "choices": ("onnx", "onnx-int8", "torch", "timm", "hub"),
        "help": "ONNX in fp32 or int8, torch.export, timm, or a folder for the Hugging Face Hub",
    },
    "--push": {"metavar": "NAME", "help": "upload a hub folder to a private model of this name"},
    "source": {"help": "a run, an ONNX export or a shipped model's name; default the shipped cpu"},
    "--port": {
        "type": int,
        "default": 8000,
        "metavar": "N",
        "help": "port to listen on, 0 for any that is free; default 8000",
    },
    "--host": {
        "default": "127.0.0.1",
        "metavar": "ADDRESS",
        "help": "address to listen on; default 127.0.0.1, which only this machine can reach",
    },
    "--allow-host": {
        "action": "append",
        "default": [],
        "metavar": "NAME",
        "help": "another name under which the service is asked; may be given several times",
    },
    "--root-path": {
        "default": "",
        "metavar": "PATH",
        "help": "path before all addresses, such as /vit, under which a proxy shows the service",
    },
    "--max-bytes": {
        "type": int,
        "default": Limits.upload,
        "metavar": "N",
        "help": "largest picture file; memory is taken for three of them at once; default "
        f"{Limits.upload:,}",
    },
    "--max-pixels": {
        "type": int,
        "default": Limits.pixels,
        "metavar": "N",
        "help": "largest JPEG; a PNG or WebP may have a quarter of it. Each of the two processes "
        "that decode may take 10 bytes of memory and 50 nanoseconds for a pixel; default "
        f"{Limits.pixels:,}",
    },
    "study": {"help": "name of a study, a .toml file, or a study's folder; none lists them"},
    "--recipe": {"help": "baseline of a study"},
    "--vary": {
        "action": "append",
        "default": [],
        "metavar": "FIELD=VALUE,VALUE",
        "help": "an axis; a search takes ranges too: 1..8, 0..0.3, log:1e-4..1e-2",
    },
    "--design": {
        "choices": ("one-factor", "grid", "search"),
        "help": "one change at a time, all combinations, or guided by Optuna; default one-factor",
    },
    "--seeds": {
        "type": int,
        "metavar": "N",
        "help": "seeds 0 to N-1 of every arm or row; default 5, of a row or in a search 1",
    },
    "--trials": {"type": int, "metavar": "N", "help": "arms that a search may try"},
    "--then": {
        "choices": ("best",),
        "help": "train the best values together with new seeds, against the baseline",
    },
    "--test": {
        "action": "store_true",
        "help": "evaluate the baseline and the best arm on the test split; each use is logged",
    },
    "--yes": {"action": "store_true", "help": "start without asking"},
    "--retry": {"action": "store_true", "help": "start again what failed or diverged"},
    "--engine": {
        "choices": ("processes", "local", "slurm"),
        "default": "processes",
        "help": "processes of this machine, one a GPU (also called local), or jobs of SLURM",
    },
    "--workers": {"type": int, "metavar": "N", "help": "trials or rows side by side"},
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
        "help": "split to evaluate on; each use of the test split is logged; default validation",
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
        "help": "evaluate on corrupted and attacked images as well",
    },
    "rows": {"nargs": "+", "help": "rows of the results page, or recipes"},
    "--smoke": {
        "action": "store_true",
        "help": "train a few steps of every row, resume them, time its real step, and stop there",
    },
    "--minutes": {
        "type": float,
        "metavar": "X",
        "help": "stop after so long, with a checkpoint; the same command goes on",
    },
    "--pack": {"metavar": "FILE.tar.gz", "help": "pack what is small of every run into a file"},
    "--parts": {
        "metavar": "PART,PART",
        "help": "training, recipes, attention, dropout, pipeline, augmentations, growth, settings, "
        "memory, inference, accuracy, calibration; default all that takes minutes",
    },
    "--rounds": {"type": int, "default": 6, "help": "turns that contenders take; default 6"},
    "--seconds": {"type": float, "default": 1.0, "help": "length of a turn; default 1"},
    "--experiments": {"action": "store_true", "help": "recipes that were never measured instead"},
    "--json": {"action": "store_true", "help": "print the result as JSON"},
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are ours, and which never guesses at half a name."""

    def __init__(self, **settings: Any):
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the command."""
        raise ConfigError([message])


def build_parser(only: str | None = None) -> Parser:
    """The parser of all verbs; with the arguments of one alone it is made at once."""
    parser = Parser(prog="vitlab", description="Vision Transformers from scratch, on small images.")
    parser.add_argument("--version", action="version", version=f"vitlab {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        about = verb.act.__doc__
        one = verbs.add_parser(name, help=about, description=about)
        if only not in (None, name):
            continue
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
        # Kinds of model share names; the help texts of the first, the ViT, win.
        texts: dict[str, str] = {}
        for kind in reversed(MODELS):
            texts |= field_help(section_types(kind)[section])
        group = parser.add_argument_group(f"{section} fields")
        for name, words in texts.items():
            group.add_argument(
                f"--{section}.{name}",
                default=argparse.SUPPRESS,
                metavar=placeholder(field_types()[f"{section}.{name}"]),
                help=words.replace("%", "%%"),
            )


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
    end = words.index("--") if "--" in words else len(words)
    args, extra = build_parser(verb).parse_known_args([spelt(word) for word in words[:end]])
    options = vars(args)
    # A list goes on behind an option, and behind -- whatever its words look like.
    many = next((name for name in options if ARGUMENTS.get(name, {}).get("nargs")), None)
    loose = words[end + 1 :]
    if many is not None:
        options[many] += [word for word in extra if not word.startswith("-")]
        options[many] += loose
        extra = [word for word in extra if word.startswith("-")]
    else:
        extra += loose
    args.overrides = {name: options[name] for name in list(options) if "." in name}
    if not extra:
        return args
    known = [bare[2:] for bare in VERBS[args.verb].arguments if bare.startswith("--")]
    sections = VERBS[args.verb].fields
    known += [name for name in fields_of(Config()) if name.partition(".")[0] in sections]
    names = [word.lstrip("-").partition("=")[0] for word in extra if word.startswith("-")]
    problems = [unknown(name, known) for name in names] or [f"unexpected argument {extra[0]!r}"]
    if args.overrides and vars(args).get("recipe") in ALL_RECIPES:
        try:
            recipe(args.recipe).override(args.overrides)
        except ConfigError as error:
            problems += error.problems
    raise ConfigError(problems)

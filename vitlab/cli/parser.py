"""A command line -> a verb and its arguments; everything wrong with it, at once."""

import argparse
import inspect
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from vitlab import __version__
from vitlab.cli.arguments import Verb
from vitlab.cli.check import bench, doctor, reproduce
from vitlab.cli.compare import compare, leaderboard, report
from vitlab.cli.study import study
from vitlab.cli.train import datasets, fit, recipes, show, train
from vitlab.cli.understand import audit, evaluate, explain, explore, features, inside
from vitlab.cli.use import export, predict, serve
from vitlab.config import MODELS, Config, field_types, fields_of, section_types
from vitlab.errors import ConfigError
from vitlab.fields import field_help, nearest, placeholder, unknown
from vitlab.formatting import plain
from vitlab.recipes import ALL_RECIPES, recipe

GROUPS = {
    "train": {
        "fit": fit,
        "train": train,
        "recipes": recipes,
        "datasets": datasets,
        "show": show,
    },
    "understand": {
        "evaluate": evaluate,
        "explain": explain,
        "inside": inside,
        "features": features,
        "explore": explore,
        "audit": audit,
    },
    "compare": {
        "compare": compare,
        "leaderboard": leaderboard,
        "study": study,
        "report": report,
    },
    "use": {"predict": predict, "serve": serve, "export": export},
    "check": {"doctor": doctor, "bench": bench, "reproduce": reproduce},
}
"""The verbs by what they are for, in the order of the help."""

VERBS = {name: verb for group in GROUPS.values() for name, verb in group.items()}

HELP, VERSION = ("help", "-h", "--help"), ("-v", "-V", "--version")
"""What may stand where otherwise a verb does."""

MANY = 20
"""Names of options that a complaint still lists; of more it says where they stand."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError, and never guesses at half a name."""

    def __init__(self, **settings: Any):
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(**settings, allow_abbrev=False, formatter_class=form)

    def error(self, message: str) -> NoReturn:
        """Refuse the command, and say where it is described."""
        raise ConfigError([f"{message}; `{self.prog} --help` describes what it takes"])


def build_parser(only: str | None = None) -> Parser:
    """The parser of all verbs; with the arguments of one alone it is made at once."""
    parser = Parser(
        prog="vitlab",
        usage="vitlab VERB ...",
        description="Vision Transformers from scratch, on small images.",
        epilog=overview(),
    )
    parser.add_argument(*VERSION, action="version", version=f"vitlab {__version__}")
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", help=argparse.SUPPRESS, prog="vitlab"
    )
    for name, verb in VERBS.items():
        one = verbs.add_parser(
            name,
            description=inspect.cleandoc(verb.act.__doc__ or ""),
            epilog="\n  ".join(("examples:", *verb.examples)),
        )
        if only in (None, name):
            add_arguments(one, verb)
    return parser


def overview() -> str:
    """Every verb by its group, with the first line of its help."""
    lines: list[str] = []
    for group, verbs in GROUPS.items():
        lines += ["", f"{group}:"]
        for name, verb in verbs.items():
            lines.append(f"  {name:12} {(verb.act.__doc__ or '').partition(chr(10))[0]}")
    return "\n".join([*lines[1:], "", "vitlab VERB --help shows the arguments and two examples."])


def add_arguments(parser: Parser, verb: Verb) -> None:
    """Add the arguments of a verb, and the config fields that it takes."""
    for name, settings in verb.arguments:
        more = {} if name.startswith("-") else {"metavar": name.upper()}
        action = parser.add_argument(name, **more, **settings)
        if settings.get("nargs") == "*":
            action.required = False  # else it is named among what is missing
        if name in ("recipe", "--recipe"):
            offer(action, ALL_RECIPES)
    if verb.sections:
        # Eighty fields would bury the usage line.
        usage = parser.format_usage().removeprefix("usage: ").strip()
        parser.usage = f"{usage} [--section.field VALUE ...]"
        add_fields(parser, verb.sections)


def add_fields(parser: Parser, sections: Iterable[str]) -> None:
    """Add an option per config field; its text is read once the kind of model is known."""
    for section in sections:
        # Kinds of model share names; the help texts of the first, the ViT, win.
        texts: dict[str, str] = {}
        for kind in reversed(MODELS):
            texts |= field_help(section_types(kind)[section])
        group = parser.add_argument_group(f"{section} fields")
        for name, words in texts.items():
            form = placeholder(field_types()[f"{section}.{name}"])
            option = group.add_argument(
                f"--{section}.{name}",
                default=argparse.SUPPRESS,
                metavar=form,
                help=words.replace("%", "%%"),
            )
            if "|" in form:
                offer(option, form.split("|"))


def offer(action: argparse.Action, words: Iterable[str]) -> None:
    """Let argcomplete offer words for an argument; it offers files where nothing is said."""
    action.completer = lambda **_: list(words)  # pyright: ignore[reportAttributeAccessIssue]


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
    if words and words[0] in HELP:
        words = [*(word for word in words[1:2] if not word.startswith("-")), "--help"]
    name = words[0] if words and words[0] not in (*HELP, *VERSION) else None
    if name is not None and name not in VERBS:
        raise ConfigError([no_verb(name, words)])
    end = words.index("--") if "--" in words else len(words)
    args, extra = build_parser(name).parse_known_args([spelt(word) for word in words[:end]])
    options = vars(args)
    arguments = VERBS[name].arguments if name else ()
    # A list goes on behind an option, and behind -- whatever its words look like.
    many = next((one.name for one in arguments if one.is_list), None)
    behind = words[end + 1 :]
    if many is not None:
        options[many] += [word for word in extra if not word.startswith("-")]
        options[many] += behind
        extra = [word for word in extra if word.startswith("-")]
    else:
        extra += behind
    args.overrides = {name: options[name] for name in list(options) if "." in name}
    if extra:
        raise ConfigError(_problems(args, extra))
    return args


def no_verb(name: str, words: Sequence[str]) -> str:
    """What is wrong with a command that begins with this word, which is no verb."""
    if not name.strip() or name.startswith("-"):
        said = plain(name) or "''"
        verb = next((word for word in words if word in VERBS), None)
        if verb is not None:
            return f"{said} stands before the verb: what {verb} takes comes behind it"
        return f"{said} is no verb: `vitlab --help` lists them, `vitlab train digits` is a command"
    return unknown(plain(name).lower(), VERBS, "verb")


def no_option(word: str, known: Sequence[str], verb: str) -> str:
    """Say that an option is unknown, and which of these was probably meant."""
    bare = word.lstrip("-")
    meant = nearest(bare, known)
    if len(bare) == 1:  # a letter resembles whatever is short
        meant = next((name for name in known if name.startswith(bare)), None)
    way_out = f"choose from {', '.join(f'--{name}' for name in sorted(known))}"
    if meant:
        way_out = f"did you mean --{meant}?"
    elif len(known) > MANY:
        way_out = f"`vitlab {verb} --help` lists what it takes"
    return f"unknown option {plain(word)}: {way_out}"


def _problems(args: Namespace, extra: Sequence[str]) -> list[str]:
    """What is wrong with a command that has arguments beyond those known."""
    verb = VERBS[args.verb]
    known = [one.name[2:] for one in verb.arguments if one.is_option]
    known += [name for name in fields_of(Config()) if name.partition(".")[0] in verb.sections]
    options = [word.partition("=")[0] for word in extra if word.startswith("-")]
    problems = [no_option(word, known, args.verb) for word in options]
    problems = problems or [f"unexpected argument {extra[0]!r}"]
    if args.overrides and vars(args).get("recipe") in ALL_RECIPES:
        try:
            recipe(args.recipe).override(args.overrides)
        except ConfigError as error:
            problems += error.problems
    return problems

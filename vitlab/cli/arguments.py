"""What a verb of the command line is, and the arguments that several verbs share."""

from argparse import SUPPRESS, Namespace
from collections.abc import Callable
from typing import Any, NamedTuple


class Argument(NamedTuple):
    """An argument of a verb, as `ArgumentParser.add_argument` takes it."""

    name: str
    settings: dict[str, Any]

    @property
    def is_option(self) -> bool:
        """Whether it is given by name."""
        return self.name.startswith("-")

    @property
    def is_list(self) -> bool:
        """Whether it takes any number of words."""
        return self.settings.get("nargs") in ("*", "+")


class Verb(NamedTuple):
    """A verb: what it does, the arguments it takes, and how it is called."""

    act: Callable[[Namespace], int]
    """Called with the parsed arguments; its docstring is the help, its result the exit code."""
    arguments: tuple[Argument, ...] = ()
    examples: tuple[str, ...] = ()
    """Commands shown under the help."""
    sections: tuple[str, ...] = ()
    """Sections of a config whose fields are options: `--section.field VALUE`."""


def verb(
    *arguments: Argument, examples: tuple[str, ...], sections: tuple[str, ...] = ()
) -> Callable[[Callable[[Namespace], int]], Verb]:
    """Make a verb of the function below it."""
    return lambda act: Verb(act, arguments, examples, sections)


def argument(name: str, help: str, **settings: Any) -> Argument:
    """An argument; a default other than a flag's is named at the end of its help."""
    default = settings.get("default")
    named = isinstance(default, int | float | str) and default not in ("", 0, SUPPRESS)
    if named and "default" not in help:
        help = (
            f"{help}; default {default:,}"
            if isinstance(default, int)
            else f"{help}; default {default}"
        )
    return Argument(name, {"help": help, **settings})


def flag(name: str, help: str) -> Argument:
    """An option that is given or not."""
    return Argument(name, {"help": help, "action": "store_true"})


def repeated(name: str, help: str, metavar: str) -> Argument:
    """An option that may be given several times."""
    more = {"action": "append", "default": [], "metavar": metavar}
    return Argument(name, {"help": f"{help}; may be given several times", **more})


def out(help: str) -> Argument:
    """Where results are written."""
    return argument("--out", help, metavar="FOLDER")


RUN = argument("run", "path of a run, or the name of a shipped model")
SPLIT = argument(
    "--split",
    "split to evaluate on; each use of the test split is logged",
    choices=("validation", "test"),
    default="validation",
)
CHECKPOINT = argument(
    "--checkpoint", "best is by validation accuracy", choices=("last", "best"), default="last"
)
DEVICE = argument("--device", "auto, cpu, cuda, cuda:1 or mps", default="auto")
DATA_ROOT = argument("--data-root", "folder of data sets; default $VITLAB_DATA", metavar="FOLDER")
QUIET = flag("--quiet", "print nothing but the result")
JSON = flag("--json", "print the result as JSON")
RUNS_FOLDER = out("folder of runs; default $VITLAB_RUNS, else runs")

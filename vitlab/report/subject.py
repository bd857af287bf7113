"""What a report reads: a run or a study with its name, its files and its facts."""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vitlab import pretrained
from vitlab.compare import RunFacts, changed_fields
from vitlab.config import Config, DataConfig, fields_of
from vitlab.data import KNOWN
from vitlab.files import read_json
from vitlab.formatting import address, percent
from vitlab.report.document import Name, Number, Source
from vitlab.run import Run

FOLDERS = re.compile(r"(?<![\w./:>~])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"<>|:]+[/\\])+")
"""The folders of an absolute path."""


def without_folders(words: str) -> str:
    """Words without the folders of absolute paths, which may name a home or a user."""
    return FOLDERS.sub("…/", words)


def plainly(words: str) -> str:
    """A sentence without its Markdown; what a backslash marks is a letter."""
    return re.sub(r"\\(.)|\*\*|`", lambda found: found[1] or "", words)


def read_existing(path: Path) -> Any:
    """A JSON file, or None where there is none; RunError if it is damaged."""
    return read_json(path) if path.is_file() else None


def resolved(data: DataConfig) -> DataConfig:
    """The data of a config, with what is known of a data set by its name."""
    known = KNOWN.get(data.dataset)
    if known is None:
        return data
    return replace(
        data,
        image_size=data.image_size or known.image_size,
        channels=data.channels or known.channels,
        classes=data.classes or known.classes,
    )


class Subject:
    """A run, and the split that a report speaks of: test where it was used, else validation."""

    def __init__(self, run: Run, name: str):
        self.run = run
        self.text = name
        self.name = Name(name)
        test = RunFacts(run, "test", name)
        self.facts = test if test.result else RunFacts(run, "validation", name)
        self.split = self.facts.split

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "list[Subject]":
        """Runs by their names; by folder and name where names are the same."""
        called = [run.name for run in runs]
        names = [
            name if called.count(name) == 1 else f"{run.path.resolve().parent.name}/{name}"
            for run, name in zip(runs, called, strict=True)
        ]
        return [cls(run, name) for run, name in zip(runs, names, strict=True)]

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.run.config

    @property
    def several(self) -> bool:
        """Whether an image may have several labels."""
        return self.config.data.task == "multilabel"

    @property
    def is_cnn(self) -> bool:
        """Whether it has no attention."""
        return self.config.model.kind in ("resnet18", "cnn6", "backbone")

    def at(self, file: str | Path, field: str) -> Source:
        """A field of one of its files, which is named, or given by its path."""
        name = file if isinstance(file, str) else file.relative_to(self.run.path).as_posix()
        return Source(self.text, name, field)

    def where(self, fact: str) -> tuple[Source, ...]:
        """Where a fact was read."""
        found = self.facts.facts.get(fact)
        return () if found is None else (self.at(found.file, found.field),)

    def number(self, fact: str, form: Callable[[Any], str] = percent) -> Number:
        """A fact in words, or a dash."""
        found = self.facts.facts.get(fact)
        return Number("-") if found is None else Number(form(found.value), self.where(fact))

    @cached_property
    def paths(self) -> dict[str, str]:
        """Values of its config that are absolute paths, and what is shown instead."""
        texts = [value for value in fields_of(self.config).values() if isinstance(value, str)]
        hidden = [value for value in texts if value.startswith(("/", "~")) or "\\" in value]
        return {value: "…/" + re.split(r"[/\\]", value)[-1] for value in hidden}

    def shown(self, words: str) -> str:
        """Words in which its paths have no folders."""
        for path, instead in self.paths.items():
            words = words.replace(shlex.quote(path), instead).replace(path, instead)
        return without_folders(words)

    @property
    def dataset(self) -> Name:
        """What its images are called."""
        return Name(self.shown(self.config.data.dataset))

    @property
    def command(self) -> str:
        """How it is named in a command."""
        name, path = self.run.name, self.run.path
        ships = name in pretrained.names() and pretrained.shipped(name).path.samefile(path)
        return name if ships else address(path)

    @cached_property
    def options(self) -> dict[str, str] | None:
        """What it changes of its recipe, as `changed_fields` has it."""
        return changed_fields(self.config)

    def study(self, vary: str = "") -> str | None:
        """The command of a study around its config; None where no command makes the config."""
        if self.options is None:
            return None
        varied = f" --vary {vary}" if vary else ""
        options = "".join(f" --{name} {shlex.quote(value)}" for name, value in self.options.items())
        return self.shown(f"vitlab study --recipe {self.config.recipe}{varied} --seeds 5{options}")

"""What the tests of studies share: tiny studies of digits, and an engine that is this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vitlab.cli import main, parse
from vitlab.config import Config
from vitlab.errors import DivergenceError
from vitlab.recipes import recipe
from vitlab.run import Run

TINY = {
    "data.train_fraction": 0.1,
    "data.validation_fraction": 0.2,
    "model.depth": 1,
    "model.width": 16,
    "model.heads": 2,
    "optim.warmup_epochs": 0.0,
    "train.epochs": 1,
}
"""About a hundred images, once, into a model of one block."""


class Done:
    """A trial that was over when it was started."""

    def __init__(self, code: int):
        self.code = code

    def poll(self) -> int:
        return self.code

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class Inline:
    """Runs every trial in this process, which saves the seconds that importing torch takes."""

    def __init__(self):
        self.workers = 1
        self.started: list[str] = []

    def start(self, command: list[str], stem: Path) -> Done:
        """Run the words behind `python -m vitlab`."""
        self.started.append(stem.name)
        return Done(self.run(command[command.index("vitlab") + 1 :]))

    def run(self, words: list[str]) -> int:
        """Train, and return the exit code."""
        return main([*words, "--quiet"])


class Scored(Inline):
    """Gives every trial an accuracy that follows from its config, and trains nothing."""

    def __init__(self, score: Callable[[Config], float]):
        super().__init__()
        self.score = score

    def run(self, words: list[str]) -> int:
        """Write a finished run; none where the score is negative."""
        args = parse(words)
        config = recipe(args.recipe).override(args.overrides)
        accuracy = self.score(config)
        if accuracy < 0:
            return DivergenceError.exit_code
        path = Path(args.out) / args.name
        with Run.lock(path):
            run = Run.create(path, config)
            run.write_provenance({})
            run.finish({"validation": {"accuracy": accuracy}})
        return 0


@pytest.fixture(scope="session")
def tiny() -> dict[str, object]:
    return TINY


@pytest.fixture
def inline() -> Inline:
    return Inline()


@pytest.fixture
def scored() -> type[Scored]:
    return Scored

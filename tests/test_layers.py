"""A module imports only from lower layers, and what must be quick or blind stays so."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vitlab"

LAYERS = (
    {"errors"},
    {"fields"},
    {"config", "files", "formatting", "progress", "records"},
    {"experiments"},
    {"device", "recipes", "run", "tensors", "stats"},
    {"data", "models"},
    {"card", "embeddings", "metrics", "figures", "preprocessing", "pretrained"},
    {"inference"},
    {"frozen"},
    {"diagnosis", "ledger", "measured", "robustness"},
    {"training", "evaluate", "explain", "explore", "features"},
    {"compare", "explorable", "export"},
    {"classifier"},
    {"answers", "bench", "doctor", "serve", "study"},
    {"reproduce", "selection"},
    {"sklearn"},
    {"report"},
    {"auditing"},
    {"cli"},
    {"__main__"},
)
"""Files and folders of the package, lowest layer first; the root serves their names lazily."""

LAYER = {unit: number for number, units in enumerate(LAYERS) for unit in units}

WITHOUT_TORCH = (
    "errors",
    "fields",
    "config",
    "files",
    "formatting",
    "progress",
    "experiments",
    "recipes",
    "records",
    "run",
    "metrics",
    "stats",
    "embeddings",
    "figures",
    "compare",
    "cli",
)


def unit(path: Path) -> str:
    """The file or folder of the package that a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path: Path) -> Iterator[str]:
    """Names of the modules a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "vitlab":
                yield from (f"vitlab.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def test_every_file_has_a_layer():
    assert {unit(path) for path in sources()} <= set(LAYER)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_lower_layers(path):
    own = unit(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "vitlab" or parts[1:] in ([], ["__version__"]) or parts[1] == own:
            continue
        assert LAYER[parts[1]] < LAYER[own], f"{path} imports {name}"


def test_torch_is_kept_out_of_what_only_reads():
    reading = [
        path
        for path in (PACKAGE / "data").glob("*.py")
        if path.stem not in ("augment", "batches", "operations")
    ]
    for path in [path for path in sources() if unit(path) in WITHOUT_TORCH] + reading:
        assert not any(name.split(".")[0] == "torch" for name in imports(path)), path


def test_training_cannot_reach_the_test_split():
    for path in (PACKAGE / "training").rglob("*.py"):
        assert "load_test" not in path.read_text(), path
        assert "vitlab.ledger" not in imports(path), path


def loaded(*words: str) -> set[str]:
    """Modules that Python loads to run `python -m vitlab ...`."""
    command = [sys.executable, "-X", "importtime", "-m", "vitlab", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_nothing_heavy(words):
    modules = loaded(*words)
    assert "vitlab.cli" in modules
    assert not modules & {"torch", "numpy", "matplotlib", "rich", "sklearn", "scipy", "pyarrow"}


def test_help_answers_at_once():
    def seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "vitlab", "--help"], capture_output=True, check=True)
        after = os.times()
        # The processor's time, because a busy machine has nothing to do with our imports.
        return sum(after[2:4]) - sum(before[2:4])

    assert min(seconds() for _ in range(3)) < 1  # 0.2 on a core of its own


def test_reading_images_does_not_load_torch():
    code = "import sys, vitlab.data; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

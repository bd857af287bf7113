"""Pages written by hand: lines between marks, and what their blocks of code print.

A block of `sh` or `python` with a block `output` below it is run, the blocks of a page one after
another in one folder, empty at first. A long output is shown without its middle.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from difflib import unified_diff
from pathlib import Path

import torch

from vitlab.errors import RunError, VitlabError
from vitlab.training.provenance import device_name

PAGES = (Path("docs/first-run.md"), Path("docs/use.md"))
"""The pages whose outputs are produced by running them."""

BLOCK = r"^```({})\n((?:(?!```).*\n)*)```$"
SHOWN = re.compile(BLOCK.format("sh|python") + "\n\n" + BLOCK.format("output"), re.MULTILINE)

FIRST, LAST = 18, 6
"""Lines of a long output that are shown, from its start and from its end."""

VOLATILE = re.compile(
    r"\d[\d.,]* ?(?:ms|s|min|h|MB|GB)\b|(?<=seconds_per_)\w+ +[\d.]+|(?<=checkpoint_sha256) +\w+"
)
"""Times, memory and hashes of files that hold times: those of the last run, and not compared."""


def blocks(page: str, language: str) -> list[str]:
    """A page's blocks of code in a language."""
    found = re.findall(BLOCK.format(language), page, re.MULTILINE)
    return [code for _, code in found]


def fill(page: str, name: str, lines: str) -> str:
    """A page whose lines between `<!-- NAME -->` and `<!-- end of NAME -->` are those given."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if page.count(start) != 1 or page.count(end) != 1:
        raise VitlabError(f"the page needs one line {start} and one line {end}")
    before, rest = page.split(start)
    return f"{before}{start}\n{lines}\n{end}{rest.split(end)[1]}"


def machine() -> str:
    """The CPU at hand, on which digits and times may depend."""
    return f"{device_name(torch.device('cpu'))}, {torch.backends.cpu.get_cpu_capability()}"


def run(page: str) -> str:
    """A page with the outputs of its blocks as they are now.

    RunError if a block fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = SHOWN.sub(lambda match: _shown(*match.group(1, 2), Path(folder)), page)
    line = (
        f"Outputs below were printed on one thread of an {machine()}, by `tools/results.py docs`; "
        "times depend on what else ran there."
    )
    return fill(found, "machine", line)


def check(paths: Sequence[Path] = PAGES) -> None:
    """RunError with the lines in which pages are not what their blocks print, times aside."""
    changes = [
        line
        for path in paths
        for line in unified_diff(
            VOLATILE.sub("#", path.read_text()).splitlines(),
            VOLATILE.sub("#", run(path.read_text())).splitlines(),
            str(path),
            f"{path}, run",
            n=0,
            lineterm="",
        )
    ]
    if changes:
        raise RunError("\n".join([*changes, "run tools/results.py docs"]))


def _shown(language: str, code: str, folder: Path) -> str:
    """A block of code and the block of what it prints, errors included, in a folder."""
    words = ["bash", "-e", "-c"] if language == "sh" else [sys.executable, "-c"]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    environment.pop("VITLAB_RUNS", None)
    done = subprocess.run(
        [*words, code], cwd=folder, env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise RunError(f"exit code {done.returncode} of\n{code}{done.stdout}")
    printed = [line.rstrip() for line in done.stdout.replace(f"{folder}/", "").splitlines()]
    if len(printed) > FIRST + LAST + 1:
        printed = [*printed[:FIRST], "...", *printed[-LAST:]]
    return f"```{language}\n{code}```\n\n```output\n" + "".join(f"{x}\n" for x in printed) + "```"

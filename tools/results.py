"""Records and the pages that are made of them, run in the repository.

keep RUN                     copy a finished, tested run's record to docs/results
ship RUN NAME                ship a run under a name: weights halved, evaluated
measure FOLDER MODEL [...]   evaluate, explain, export and compare shipped models anew, in a folder;
                             then `page`, by which they ship with what their maps came to
page [--check]               write the pages made of records, and the README's table; with --check
                             name those that are not what the records say, with exit code 1
docs [--check]               run the blocks of code that show what they print, and write that; with
                             --check name the pages that show something else, with exit code 1
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import audit, docs, fit, goals, reliability, results, shipped, speed, unknown
from pages.docs import fill
from pages.results import PICTURES
from pages.runs import RECORDS
from vitlab import compare, measured, pretrained
from vitlab.config import DataConfig
from vitlab.errors import RunError, VitlabError
from vitlab.evaluate import draw, evaluate, evaluate_robustness
from vitlab.explain import explain
from vitlab.explore import explore
from vitlab.export import export
from vitlab.features import features
from vitlab.files import as_json, read_json, write_json, write_text
from vitlab.run import LOCK, Run

MARKED: tuple[tuple[Path, str, Callable[[], str]], ...] = (
    (Path("README.md"), "results", results.summary),
    (Path("docs/audit.md"), "label-errors", audit.label_errors),
    (Path("docs/explain.md"), "maps", shipped.gains),
    (Path("docs/inside.md"), "pages", shipped.inside),
    (Path("docs/own-images.md"), "memory", speed.memory),
    (Path("docs/explore.md"), "copies", shipped.copies),
    (Path("docs/explore.md"), "distances", shipped.distances),
    (Path("docs/explore.md"), "probes", shipped.probes),
    (Path("docs/use.md"), "exports", shipped.exports),
    (Path("docs/compare.md"), "numbers", shipped.comparison),
    (Path("docs/compare.md"), "findings", shipped.findings),
)
"""Pages written by hand, the mark in them, and what makes the lines there."""

IMAGES = Path("docs/images")
DRAWN = {
    "cpu/figures/validation-robustness.png": "robustness.png",
    "cpu-plain/explain/validation-15153.png": "explain-maps.png",
    "cpu-plain/explain/validation-15153-attention.png": "explain-attention.png",
    "cpu-plain/explain/distance.png": "explain-distance.png",
    "cpu-plain/explain/faithfulness.png": "explain-faithfulness.png",
    "cpu-cnn/explain/validation-15153-features.png": "explain-features.png",
    "together/compare/figures/curves.png": "compare-curves.png",
    "together/features/layers.png": "features-layers.png",
    "together/features/tsne-pooled.png": "features-tsne.png",
    "together/features/components.png": "features-components.png",
    "together/explore/tokens.png": "explore-tokens.png",
    "together/explore/operations.png": "explore-operations.png",
    "together/explore/intensities.png": "explore-intensities.png",
    "together/explore/maps-pixels.png": "explore-maps.png",
}
"""Where `measure` draws a picture, and its name on the pages; of the images, those drawn first."""


def keep(run: Run, folder: Path = RECORDS) -> Run:
    """Copy a run's record (no weights, no images) to where it is committed.

    RunError unless the run is finished and its test split was evaluated.
    """
    test = run.result("test")
    target = folder / run.name
    if target.exists():
        shutil.rmtree(target)
    with Run.lock(target):
        record = run.copy_record(target, run.metrics)
    (target / LOCK).unlink()
    record.write_results(run.results)
    if not all((run.figures / f"{name}.svg").exists() for name in PICTURES):
        draw(run, "test", test)
    record.figures.mkdir(exist_ok=True)
    for name in PICTURES:
        shutil.copy(run.figures / f"{name}.svg", record.figures)
    return record


def ship(run: Run, name: str, folder: Path = pretrained.FOLDER) -> Run:
    """Replace a shipped model by a run's weights in half precision, measured as they ship.

    The halved run is evaluated beside the run, where the test ledger lies.
    """
    halved = run.path.with_name(f"{run.name}-half")
    small = Run(halved) if halved.exists() else pretrained.ship(run, halved)
    for split in ("validation", "test"):
        evaluate(small, split)
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(halved, target, ignore=shutil.ignore_patterns(*Run.REMADE))
    write_text(target / "README.md", shipped.card(Run(target)))
    return Run(target)


def measure(folder: Path, names: Sequence[str]) -> list[Path]:
    """Measure models that ship in a folder of runs; return what was written for the pages.

    Each is evaluated, corrupted, attacked, explained and exported by itself; once all of them were,
    they are compared, and their layers and their data set looked at.
    """
    os.environ["VITLAB_RUNS"] = str(folder)
    written = []
    for name in names:
        run = pretrained.open_run(name)
        evaluate(run)
        evaluate_robustness(run)
        run.faithfulness_file("validation").unlink(missing_ok=True)  # what it shipped with
        written.append(shipped.EXPLAIN / f"{name}.json")
        write_json(written[-1], explain(run)["faithfulness"])
        written.append(shipped.EXPORT / f"{name}.json")
        write_json(written[-1], {"machine": docs.machine(), **exported(run)})
    together = ("cpu", "cpu-plain", "cpu-cnn")
    if all("validation-robustness" in pretrained.open_run(name).results for name in together):
        compare.write(together, out=folder / "together/compare")
        found = read_json(folder / "together/compare/compare.json")
        for model in found["models"]:
            model.pop("disagreements", None)
        write_json(shipped.COMPARE, found)
        write_json(shipped.FEATURES, features("cpu", "cpu-cnn", out=folder / "together/features"))
        looked = explore(DataConfig(dataset="cifar10"), out=folder / "together/explore")
        write_json(shipped.EXPLORE, looked)
        written += [shipped.COMPARE, shipped.FEATURES, shipped.EXPLORE]
    for drawn, name in DRAWN.items():
        if (folder / drawn).exists():
            written.append(Path(shutil.copy(folder / drawn, IMAGES / name)))
    return written


def exported(run: Run) -> dict[str, Any]:
    """The parity.json of a run's exports to ONNX."""
    folders = {target: export(run, target)["folder"] for target in ("onnx", "onnx-int8")}
    return {name: read_json(Path(folder) / "parity.json") for name, folder in folders.items()}


def pages() -> dict[Path, str]:
    """The text of every file that is made of records, or has marks for lines that are."""
    texts = {
        results.PAGE: results.page(),
        fit.PAGE: fit.page(),
        unknown.PAGE: unknown.page(),
        goals.PAGE: goals.page(),
        reliability.PAGE: reliability.page(),
        **speed.pages(),
        measured.FILE: as_json(results.measurements()),
    }
    for run in map(pretrained.shipped, pretrained.names()):
        texts[run.path / "README.md"] = shipped.card(run)
        texts[run.faithfulness_file("validation")] = shipped.faithfulness(run.name)
    for path, mark, lines in MARKED:
        texts[path] = fill(texts.get(path) or path.read_text(), mark, lines())
    return texts


def check() -> None:
    """RunError that names every page that is stale, and every record of weights of before."""
    stale = [
        path for path, text in pages().items() if not path.exists() or path.read_text() != text
    ]
    problems = [f"{path} is not what the records say: run make results" for path in stale]
    problems += [
        f"{path} is of other weights or images than what ships: run tools/results.py measure"
        for path in shipped.outdated()
    ]
    if problems:
        raise RunError("\n".join(problems))


def write(texts: Mapping[Path, str]) -> None:
    """Write files by their path."""
    for path, text in texts.items():
        write_text(path, text)


def main() -> int:
    """Carry out one of the commands above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("keep").add_argument("run")
    shipping = commands.add_parser("ship")
    shipping.add_argument("run")
    shipping.add_argument("name")
    measuring = commands.add_parser("measure")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("models", nargs="+")
    commands.add_parser("page").add_argument("--check", action="store_true")
    commands.add_parser("docs").add_argument("--check", action="store_true")
    args = parser.parse_args()
    try:
        match args.command:
            case "keep":
                print(keep(Run(args.run)).path)
            case "ship":
                print(ship(Run(args.run), args.name).path)
            case "measure":
                print(*measure(args.folder, args.models), sep="\n")
            case "page" if args.check:
                check()
            case "page":
                write(pages())
            case "docs" if args.check:
                docs.check()
            case "docs":
                write({path: docs.run(path.read_text()) for path in docs.PAGES})
    except VitlabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Verbs that look into a model or a data set: evaluate, explain, inside, features and more."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitlab.cli.arguments import (
    CHECKPOINT,
    DATA_ROOT,
    DEVICE,
    JSON,
    QUIET,
    RUN,
    SPLIT,
    argument,
    flag,
    out,
    verb,
)
from vitlab.cli.printing import print_json, print_table
from vitlab.config import Config
from vitlab.formatting import count, estimate, plain
from vitlab.run import Run


@verb(
    RUN,
    SPLIT,
    CHECKPOINT,
    flag("--robustness", "evaluate on corrupted and attacked images as well"),
    DEVICE,
    DATA_ROOT,
    QUIET,
    JSON,
    examples=("vitlab evaluate cpu", "vitlab evaluate runs/digits-seed0 --split test --robustness"),
)
def evaluate(args: Namespace) -> int:
    """Evaluate a run: numbers, logits and pictures, kept in the run."""
    from vitlab.compare.index import write_index
    from vitlab.evaluate import evaluate, evaluate_robustness
    from vitlab.pretrained import open_run

    run = open_run(args.run)
    where = {"checkpoint": args.checkpoint, "device": args.device, "data_root": args.data_root}
    result = evaluate(run, args.split, **where)
    tables = {title: result[name] for name, title in TABLES.items() if name in result}
    if args.robustness:
        robustness = evaluate_robustness(run, args.split, **where)
        result = {**result, "robustness": robustness}
        tables[f"{robustness['images']:,} of the images, corrupted and attacked"] = robustness[
            "conditions"
        ]
    write_index(run.path.resolve().parent)
    if args.json:
        print_json(result)
        return 0
    scalars = {
        name: value for name, value in result.items() if isinstance(value, int | float | str)
    }
    if "ood" in result:
        scalars["unlike_training_images"] = result["ood"]["unknown"]
    print(f"{headline(run, result, args)}\n")
    print_table(("", ""), scalars.items())
    for title, table in tables.items():
        if table:
            # Intervals are in the JSON and the pictures: a table has one number a cell.
            columns = [str(n) for n, value in table[0].items() if not isinstance(value, list)]
            heads = [HEADS.get(name, name) for name in columns]
            print(f"\n{title}")
            print_table(heads, [[epoch(row[name], name) for name in columns] for row in table])
    print(f"\npictures in {run.figures}")
    return 0


TABLES = {
    "per_class": "classes",
    "prediction_sets": "sets of classes, and how often they hold the true one",
    "epochs_to_accuracy": "first epoch at which at least this accuracy was measured",
    "top_confusions": "most frequent confusions",
}
"""Lists of a result that are printed as tables, and their titles."""

HEADS = {"train_clean": "on clean training images", "validation": "on validation images"}
"""Heads of columns that are called otherwise in results.json."""


def epoch(value: Any, name: str) -> Any:
    """An epoch as it is counted, 3 or 27.67; the value of another column as it is."""
    return f"{round(value, 2):g}" if name in HEADS and value is not None else value


def headline(run: Run, result: Mapping[str, Any], args: Namespace) -> str:
    """An evaluation in a sentence: the score, its interval and the images it speaks of."""
    score = run.config.data.score
    name = run.name if args.checkpoint == "last" else f"{run.name}, best checkpoint"
    reached = estimate(result[score], result[f"{score}_interval"], "images")
    dataset = run.config.data.dataset
    seen = result.get("validation_seen")
    before = f", {seen:,} of which it was trained on before" if seen else ""
    if folds := result.get("cross_validated"):
        before = f", held out in turn in {folds} folds; the run itself was trained on all of them"
    images = count(result["images"], f"{args.split} image")
    of = f"{Path(dataset).name or dataset}{before}"
    return plain(f"{name}: {score.replace('_', ' ')} {reached} on {images} of {of}")


@verb(
    RUN,
    argument("image", "picture files; default a few images of the split, at random", nargs="*"),
    SPLIT,
    argument(
        "--methods",
        "attention, rollout, gradient-rollout, grad-cam, occlusion, integrated-gradients; "
        "default all that the model has",
        metavar="METHOD,METHOD",
    ),
    argument("--count", "images of the split to draw", type=int, default=4, metavar="N"),
    DEVICE,
    DATA_ROOT,
    QUIET,
    JSON,
    examples=("vitlab explain cpu", "vitlab explain cpu cat.jpg --methods rollout,grad-cam"),
)
def explain(args: Namespace) -> int:
    """Draw what a model relies on, and test which maps are faithful."""
    from vitlab.explain import explain
    from vitlab.metrics.tasks import brief

    found = explain(
        args.run,
        args.image,
        split=args.split,
        methods=args.methods.split(",") if args.methods else None,
        count=args.count,
        device=args.device,
        data_root=args.data_root,
        quiet=args.quiet,
    )
    if args.json:
        print_json(found)
        return 0
    rows = []
    for one in found["pictures"]:
        top = [f"{each['class']} {each['probability']:.1%}" for each in one["top"]]
        rows.append((one["image"], brief(one), ", ".join(top)))
    several = any("labels" in one for one in found["pictures"])
    print_table(("image", "labels" if several else "certainty", "likeliest classes"), rows)
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


@verb(
    RUN,
    argument("image", "picture files; default a few validation images, of every class", nargs="*"),
    argument("--out", "HTML file to write; default inside.html in the run", metavar="FILE"),
    argument("--count", "validation images to begin with", type=int, default=10, metavar="N"),
    DEVICE,
    DATA_ROOT,
    QUIET,
    JSON,
    examples=("vitlab inside cpu-plain", "vitlab inside runs/digits-seed0 cat.jpg --out cat.html"),
)
def inside(args: Namespace) -> int:
    """Write a page in which the model itself runs, to take it apart.

    One HTML file, which needs no network: draw on an image, take out patches, heads and blocks, and
    see the answer move. Beside each map stands whether it passed the test of vitlab explain.
    """
    from vitlab.explorable import inside

    where = {"device": args.device, "data_root": args.data_root, "quiet": args.quiet}
    path = inside(args.run, args.image, out=args.out, count=args.count, **where)
    size = path.stat().st_size
    if args.json:
        print_json({"page": str(path), "bytes": size})
        return 0
    print(f"page in {path}, {size / 1e6:.1f} MB")
    return 0


@verb(
    RUN,
    argument("other", "a second run, to compare what their layers represent", nargs="?"),
    out("folder of the figures; default features in the run, features/RUN-OTHER of two"),
    CHECKPOINT,
    DEVICE,
    DATA_ROOT,
    QUIET,
    JSON,
    examples=("vitlab features cpu", "vitlab features cpu cpu-cnn"),
)
def features(args: Namespace) -> int:
    """Measure what the layers of one run or two represent.

    Probes, neighbours and maps of every layer, side by side.
    """
    from vitlab.features import default_folder, features
    from vitlab.pretrained import open_run

    runs = [open_run(run) for run in (args.run, args.other) if run]
    folder = Path(args.out) if args.out else default_folder(runs)
    where = {"out": folder, "device": args.device, "data_root": args.data_root}
    where |= {"quiet": args.quiet}
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


@verb(
    argument("dataset", "a known name (`vitlab datasets`), or whatever else data.dataset takes"),
    argument(
        "--backbone",
        "a pretrained model for the maps, by its name on the Hugging Face hub or its folder",
        metavar="NAME",
    ),
    out("folder of the figures; default explore/DATASET"),
    DEVICE,
    DATA_ROOT,
    JSON,
    examples=("vitlab explore cifar10", "vitlab explore my-pictures --data.image-size 64,64"),
    sections=("data",),
)
def explore(args: Namespace) -> int:
    """Look at a data set before training on it.

    Samples, colours, patches, augmentations, near-duplicates and maps.
    """
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


@verb(
    argument("source", "a run, a shipped model's name, or whatever data.dataset takes"),
    argument(
        "--write",
        "CSV file to write of the images that are left without those found, to train on",
        metavar="FILE.csv",
    ),
    argument(
        "--backbone",
        "pretrained network that describes images: efficientnet-lite0, timm:NAME, or a name or "
        "folder in the form of the Hugging Face Hub; of a run the default is its own",
        metavar="NAME",
    ),
    out("folder of the page and the lists; default audit in the run, audit/NAME of a data set"),
    DEVICE,
    DATA_ROOT,
    QUIET,
    JSON,
    examples=("vitlab audit photos --write cleaned.csv", "vitlab audit cpu"),
    sections=("data",),
)
def audit(args: Namespace) -> int:
    """Find what may be wrong with labelled images, and change nothing.

    Probable label errors, near-duplicates, images unlike the rest, unreadable and nearly empty
    ones, and classes that cannot be told apart, on a page.
    """
    from vitlab.auditing.audit import audit, default_folder
    from vitlab.auditing.page import PAGE, summary

    fields = {name: value for name, value in args.overrides.items() if name != "data.dataset"}
    where = {"device": args.device, "data_root": args.data_root, "quiet": args.quiet}
    files = {"out": args.out, "write": args.write}
    found = audit(args.source, backbone=args.backbone, fields=fields, **files, **where)
    if args.json:
        print_json(found.to_dict())
        return 0
    print_table(("list", "found", "worst example"), summary(found))
    run = Run(args.source) if Run.exists(Path(args.source)) else None
    folder = Path(args.out) if args.out else default_folder(found.source, run)
    if found.cleaned:
        left = [f"{number:,} {reason}" for reason, number in found.cleaned.items()][1:]
        print(f"\n{args.write}: {count(found.cleaned['kept'], 'image')}; left out: "
              f"{', '.join(left) or 'none'}")  # fmt: skip
    print(f"\npage in {folder / PAGE}")
    return 0

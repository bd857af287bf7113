"""Verbs that look: evaluate, explore, features, explain."""

from argparse import Namespace
from pathlib import Path

from vitlab.cli.printing import print_json, print_table
from vitlab.config import Config


def evaluate(args: Namespace) -> int:
    """Evaluate a run on a split; store numbers, logits and pictures in the run."""
    from vitlab.compare.index import write_index
    from vitlab.evaluate import evaluate, evaluate_robustness
    from vitlab.pretrained import open_run

    run = open_run(args.run)
    where = {"checkpoint": args.checkpoint, "device": args.device, "data_root": args.data_root}
    result = evaluate(run, args.split, **where)
    tables = [result[name] for name in ("per_class", "epochs_to_accuracy", "top_confusions")]
    if args.robustness:
        robustness = evaluate_robustness(run, args.split, **where)
        result = {**result, "robustness": robustness}
        tables.append(robustness["conditions"])
    write_index(run.path.resolve().parent)
    if args.json:
        print_json(result)
        return 0
    scalars = {
        name: value for name, value in result.items() if isinstance(value, int | float | str)
    }
    print_table(("", ""), scalars.items())
    for table in filter(None, tables):
        print()
        # Intervals are in the JSON and the pictures: a table has one number a cell.
        columns = [name for name, value in table[0].items() if not isinstance(value, list)]
        print_table(columns, [[row[name] for name in columns] for row in table])
    print(f"\npictures in {run.figures}")
    return 0


def explore(args: Namespace) -> int:
    """Look at a data set: samples, colours, patches, augmentations, near-duplicates, maps."""
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


def features(args: Namespace) -> int:
    """Find out what the layers of a run know, or those of two runs beside each other."""
    from vitlab.features import default_folder, features
    from vitlab.pretrained import open_run

    runs = [open_run(run) for run in (args.run, args.other) if run]
    folder = Path(args.out) if args.out else default_folder(runs)
    where = {"out": folder, "device": args.device, "data_root": args.data_root}
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


def explain(args: Namespace) -> int:
    """Draw what a run's model looks at in images, and measure which of the maps are true."""
    from vitlab.explain import explain

    found = explain(
        args.run,
        args.image,
        split=args.split,
        methods=args.methods.split(",") if args.methods else None,
        count=args.count,
        device=args.device,
        data_root=args.data_root,
    )
    if args.json:
        print_json(found)
        return 0
    rows = []
    for one in found["pictures"]:
        top = [f"{each['class']} {each['probability']:.1%}" for each in one["top"]]
        rows.append((one["image"], one["certainty"], ", ".join(top)))
    print_table(("image", "certainty", "likeliest classes"), rows)
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

"""Verbs around a training: train, recipes, datasets, show."""

import dataclasses
import os
from argparse import SUPPRESS, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitlab.cli.arguments import (
    DATA_ROOT,
    DEVICE,
    JSON,
    QUIET,
    RUNS_FOLDER,
    argument,
    flag,
    repeated,
    verb,
)
from vitlab.cli.printing import note, print_json, print_paragraph, print_rows, print_table, times
from vitlab.config import SECTIONS, Config, fields_of
from vitlab.errors import ConfigError
from vitlab.fields import text
from vitlab.recipes import EXPERIMENTS, RECIPES, recipe
from vitlab.run import Run


@verb(
    argument("recipe", "name of a recipe (`vitlab recipes`)", nargs="?"),
    argument(
        "--from",
        "start from a run, a shipped model, a safetensors file or hf:NAME",
        dest="train.weights",
        default=SUPPRESS,
        metavar="WEIGHTS",
    ),
    RUNS_FOLDER,
    argument("--name", "name of the run; default the recipe and the seed"),
    DEVICE,
    DATA_ROOT,
    argument("--resume", "go on with an interrupted run", metavar="RUN"),
    flag("--overfit-one-batch", "prove that the set-up can learn"),
    flag("--tensorboard", "write TensorBoard events into the run"),
    QUIET,
    JSON,
    examples=(
        "vitlab train digits",
        "vitlab train vit-tiny --train.epochs 20 --optim.lr 5e-4 --name short",
    ),
    sections=SECTIONS,
)
def train(args: Namespace) -> int:
    """Train a recipe into a new run, or go on with one.

    The last line that is printed is the run's path.
    """
    if not (args.recipe or args.resume):
        raise ConfigError([f"train needs a recipe ({', '.join(RECIPES)}) or --resume RUN"])
    if args.resume and (args.recipe or args.overrides or args.out or args.name):
        raise ConfigError(
            ["--resume goes on with the run as it is: leave out recipe, fields, --out and --name"]
        )
    config = recipe(args.recipe).override(args.overrides) if args.recipe else None
    where = {"device": args.device, "data_root": args.data_root, "quiet": args.quiet}

    from vitlab.diagnosis import diagnose
    from vitlab.training import SCALED, overfit_one_batch, resume, train

    if config is None:
        run = resume(args.resume, tensorboard=args.tensorboard, **where)
    elif args.overfit_one_batch:
        return overfitted(overfit_one_batch(config, **where), args)
    else:
        named = {"out": args.out, "name": args.name}
        scaled = [name for name in SCALED if name not in args.overrides]
        run = train(config, tensorboard=args.tensorboard, scaled=scaled, **named, **where)
    if os.environ.get("RANK", "0") != "0":
        return 0  # one of the processes of torchrun, the first of which prints
    if args.json:
        print_json({"run": str(run.path), "diagnosis": diagnose(run), **run.final_numbers})
    else:
        print(run.path)
    return 0


def overfitted(outcome: dict[str, Any], args: Namespace) -> int:
    """Print what fitting a single batch came to; exit code 1 if it was not learned."""
    if args.json:
        print_json(outcome)
    else:
        print_table(("", ""), outcome.items())
    return 0 if outcome["learned"] else 1


@verb(
    argument("pictures", "folder of class folders, CSV, Parquet, or a known name"),
    argument(
        "--minutes",
        "time to find a model in; what has begun is finished",
        type=float,
        default=10.0,
        metavar="N",
    ),
    repeated(
        "--backbone",
        "pretrained network to try: efficientnet-lite0, timm:NAME, or a name or folder in the form "
        "of the Hugging Face Hub; default those that are here",
        "NAME",
    ),
    argument(
        "--labels-per-class",
        "also say what so many labelled pictures of each class would reach",
        type=int,
        metavar="N",
    ),
    RUNS_FOLDER,
    argument("--name", "name of the run; default that of the pictures, and -fit"),
    argument("--seed", "seed of the folds and of all trainings", type=int, default=0, metavar="N"),
    DEVICE,
    DATA_ROOT,
    QUIET,
    JSON,
    examples=("vitlab fit photos", "vitlab fit photos.csv --minutes 30 --labels-per-class 100"),
    sections=("data",),
)
def fit(args: Namespace) -> int:
    """Find the best model for pictures: try every way on the same held-out ones.

    Pretrained networks, our models from scratch and fine-tuned ones are compared; the chosen one
    becomes a run. The last line that is printed is its path.
    """
    from vitlab.selection import fit
    from vitlab.selection.verdict import HEAD, cells

    fields = {name: value for name, value in args.overrides.items() if name != "data.dataset"}
    options = {"out": args.out, "name": args.name, "seed": args.seed, "quiet": args.quiet}
    where = {"device": args.device, "data_root": args.data_root}
    run = fit(
        args.pictures,
        minutes=args.minutes,
        backbones=args.backbone or None,
        labels_per_class=args.labels_per_class,
        fields=fields,
        **options,
        **where,
    )
    found = run.selection
    assert found is not None
    if args.json:
        print_json({"run": str(run.path), **found})
        return 0
    rows = found["candidates"]
    print_table(HEAD, cells([row for row in rows if row["pictures"]]))
    print()
    for row in rows:
        if not row["pictures"]:
            print(f"{row['candidate']}: {row['verdict']}")
    print()
    print_paragraph(found["advice"])
    if found["labels"]:
        print_paragraph(found["labels"]["sentence"])
    print(run.path)
    return 0


@verb(
    flag("--experiments", "recipes that were never measured instead"),
    JSON,
    examples=("vitlab recipes", "vitlab recipes --experiments"),
)
def recipes(args: Namespace) -> int:
    """List the recipes, each with its size and idea."""
    from vitlab.data import open_dataset
    from vitlab.models.cost import cost

    rows = []
    for name, make in (EXPERIMENTS if args.experiments else RECIPES).items():
        config = recipe(name)
        whole = cost(replace(config, data=open_dataset(config.data).config))
        idea = (make.__doc__ or "").split("\n")[0]
        rows.append((name, config.model.kind, whole.parameters, config.train.epochs, idea))
    print_rows(("recipe", "model", "parameters", "epochs", "idea"), rows, args)
    if not args.experiments:
        note("`vitlab recipes --experiments` lists those that were never measured.")
    return 0


@verb(DATA_ROOT, JSON, examples=("vitlab datasets", "vitlab datasets --data-root ~/data"))
def datasets(args: Namespace) -> int:
    """List the data sets known by name, and where they were found."""
    from vitlab.data import KNOWN, locate

    rows = []
    for name, known in KNOWN.items():
        found = "comes with scikit-learn"
        if known.mirrors:
            found = str(locate(name, args.data_root) or "fetched when first used")
        shape = times((known.channels, *known.image_size))
        rows.append((name, shape, known.classes, known.train, known.test, found, known.summary))
    print_rows(("dataset", "shape", "classes", "train", "test", "where", "what"), rows, args)
    return 0


@verb(
    argument("recipe", "name of a recipe, or path of a run"),
    argument("other", "a second recipe or run, to see where they differ", nargs="?"),
    DATA_ROOT,
    JSON,
    examples=("vitlab show vit-tiny --model.norm rms", "vitlab show resnet18 resnet18-sgd"),
    sections=SECTIONS,
)
def show(args: Namespace) -> int:
    """Show a config, its parts and layers; or how two configs differ."""
    config = opened(args.recipe).override(args.overrides)
    if args.other:
        return show_difference(config, opened(args.other), args)

    from vitlab.data import open_dataset
    from vitlab.models import describe_parts
    from vitlab.models.cost import cost, summary

    config = replace(config, data=open_dataset(config.data, root=args.data_root).config)
    whole, layers, parts = cost(config), summary(config), describe_parts(config.model)
    if args.json:
        print_json(
            {
                "config": config.to_dict(),
                **dataclasses.asdict(whole),
                "layers": [dataclasses.asdict(layer) for layer in layers],
                "parts": parts,
            }
        )
        return 0
    fields = fields_of(config)
    print_table(("field", "value"), [(name, text(value)) for name, value in fields.items()])
    print()
    for axis, sentences in parts.items():
        print_paragraph(f"{axis} = {fields[f'model.{axis}']}: {sentences}")
    total = ("total", "", whole.parameters, "", "", sum(x.megabytes for x in layers), whole.macs)
    print_table(
        ("layer", "type", "parameters", "input", "output", "MB", "multiply-adds"),
        [
            (x.name, x.type, x.parameters, times(x.input), times(x.output), x.megabytes, x.macs)
            for x in layers
        ]
        + [total],
    )
    print()
    print_paragraph(
        "Multiply-adds are those of one image, forward: convolutions, linear layers and both "
        "products of attention. FLOPs are twice as many. MB are those of fp32 weights."
    )
    return 0


def show_difference(one: Config, other: Config, args: Namespace) -> int:
    """Print where two configs differ; - where a kind of model has no such field."""
    left, right = fields_of(one), fields_of(other)
    pairs = {name: (left.get(name), right.get(name)) for name in {**left, **right}}
    pairs = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if args.json:
        print_json(pairs)
        return 0
    rows = [
        (name, *(text(side[name]) if name in side else "-" for side in (left, right)))
        for name in pairs
    ]
    print_table(("field", args.recipe, args.other), rows)
    return 0


def opened(name: str) -> Config:
    """The config of a run, if the name is a folder, else of a recipe."""
    if Path(name).is_dir():
        return Run(name).config
    if os.sep in name:
        raise ConfigError([f"there is no run {name}, and recipes have no {os.sep} in their names"])
    return recipe(name)

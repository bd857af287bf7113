"""Verbs that list and describe: recipes, datasets, doctor, show."""

import dataclasses
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from vitlab.cli.printing import note, print_json, print_rows, print_table, times
from vitlab.config import Config, fields_of
from vitlab.fields import text
from vitlab.recipes import EXPERIMENTS, RECIPES, recipe
from vitlab.run import Run


def recipes(args: Namespace) -> int:
    """List the recipes; with --experiments those that were never measured."""
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


def doctor(args: Namespace) -> int:
    """Describe this installation and try it with ten steps: a block to paste into a bug report."""
    from vitlab.doctor import examine

    facts = examine(args.device, args.data_root)
    if args.json:
        print_json(facts)
    else:
        rows = [(part, *pair) for part, pairs in facts.items() for pair in pairs.items()]
        print_table(("", "", ""), [(part, name, str(value)) for part, name, value in rows])
    return 0 if facts["self-test"]["passed"] else 1


def show(args: Namespace) -> int:
    """Show a config, how its parts work and its model layer by layer; or how two configs differ."""
    config = opened(args.recipe).override(args.overrides)
    if args.other:
        return show_difference(config, opened(args.other), args)

    from vitlab.data import open_dataset
    from vitlab.models import describe_parts
    from vitlab.models.cost import cost, summary

    config = replace(config, data=open_dataset(config.data, root=args.data_root).config)
    whole, layers, words = cost(config), summary(config), describe_parts(config.model)
    if args.json:
        print_json(
            {
                "config": config.to_dict(),
                **dataclasses.asdict(whole),
                "layers": [dataclasses.asdict(layer) for layer in layers],
                "words": words,
            }
        )
        return 0
    fields = fields_of(config)
    print_table(("field", "value"), [(name, text(value)) for name, value in fields.items()])
    print()
    print_table(
        ("axis", "word", "how it works"),
        [(axis, fields[f"model.{axis}"], sentences) for axis, sentences in words.items()],
    )
    print()
    total = ("total", "", whole.parameters, "", "", sum(x.megabytes for x in layers), whole.macs)
    print_table(
        ("layer", "type", "parameters", "input", "output", "MB", "multiply-adds"),
        [
            (x.name, x.type, x.parameters, times(x.input), times(x.output), x.megabytes, x.macs)
            for x in layers
        ]
        + [total],
    )
    print(
        "\nMultiply-adds are those of one image, forward: convolutions, linear layers and both "
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
    return Run(name).config if Path(name).is_dir() else recipe(name)

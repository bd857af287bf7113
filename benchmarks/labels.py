"""What `vitlab fit` makes of 10, 100 and 1,000 labels of CIFAR-10, three draws each.

VITLAB_DATA=FOLDER python benchmarks/labels.py [--minutes 10] [--backbone NAME] [--out FILE]

The labels are drawn of the training images that the recipe `cpu` has, the same number of every
class; `fit` knows nothing but these. Its run is then asked for validation images of that
recipe, which no label is of, and once, at the end, for the test images. Beside it, the recipe is
trained whole on the first draw, from scratch. What is measured already is not measured again.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vitlab
from vitlab.data import ARRAYS, LabelledImages, load_test, open_dataset
from vitlab.data.splits import draw
from vitlab.evaluate import evaluate
from vitlab.files import read_json, write_json
from vitlab.frozen import Frozen
from vitlab.stats import wilson
from vitlab.training import scale_to_images
from vitlab.training.provenance import device_name

LABELS, DRAWS = (10, 100, 1_000), 3
SCRATCH = "cpu"
VALIDATION = 2_000
"""Validation images that are looked at, drawn at random."""

CPU = torch.device("cpu")


def drawn(examples: LabelledImages, training: np.ndarray, labels: int, seed: int) -> LabelledImages:
    """So many labels, the same number of every class; a smaller draw lies within a larger one."""
    keys, classes = examples.keys[training], examples.labels[training]
    share = labels / len(training)
    index = training[draw(keys, classes, share, seed, "train")]
    return LabelledImages(
        examples.images[index], examples.labels[index], examples.class_names,
        known_keys=examples.keys[index],
    )  # fmt: skip


def right(run: vitlab.Run, examples: LabelledImages, index: np.ndarray) -> int:
    """How many of some images a run classifies correctly, by features that are kept."""
    model = vitlab.load(run, device="cpu")
    form = model.preprocessing
    if run.config.optim.optimizer == "lbfgs" and form.image_size == (32, 32):
        frozen = Frozen(model.module, form.mean, form.std, form.input_size)
        logits = frozen.logits(frozen.features(examples, index))
    else:
        logits = model.logits(examples.images[index])
    return int((logits.argmax(axis=1) == examples.labels[index]).sum())


def from_scratch(some: LabelledImages, folder: Path, name: str, seed: int) -> vitlab.Run:
    """The whole recipe, trained on the labels alone: its run."""
    fields = {"data.dataset": ARRAYS, "data.validation_fraction": 0.0, "train.seed": seed}
    config = scale_to_images(vitlab.recipe(SCRATCH).override(fields), len(some.labels))
    return vitlab.train(config, data=some, out=folder, name=name, device="cpu", quiet=True)


def share(correct: int, images: int) -> dict[str, Any]:
    """An accuracy and its interval."""
    interval = list(wilson(correct, images))
    return {"images": images, "accuracy": correct / images, "interval": interval}


def measured(
    labels: int,
    seed: int,
    minutes: float,
    backbones: list[str] | None,
    folder: Path,
    test: LabelledImages,
) -> dict[str, Any]:
    """Fit one draw of labels, and ask its run for the validation and the test images."""
    dataset = open_dataset(vitlab.recipe("cpu").data)
    examples, (training, validation) = dataset.examples, dataset.split
    validation = np.random.default_rng(0).permutation(validation)[:VALIDATION]
    some = drawn(examples, training, labels, seed)
    name = f"cifar10-{labels}-{seed}"
    shutil.rmtree(folder / name, ignore_errors=True)  # of a measurement that was interrupted
    begun = time.monotonic()
    run = vitlab.fit(
        some, minutes=minutes, backbones=backbones, out=folder, name=name, device="cpu", seed=seed
    )
    took = time.monotonic() - begun
    found = run.selection
    assert found is not None
    scratch = None
    if seed == 0:  # minutes for a number that is far below
        shutil.rmtree(folder / f"{name}-{SCRATCH}", ignore_errors=True)
        other = from_scratch(some, folder, f"{name}-{SCRATCH}", seed)
        scratch = share(right(other, examples, validation), len(validation))
    correct = right(run, examples, validation)
    result = evaluate(run, "test", data=test, device="cpu", pictures=False)
    return {
        "labels": len(some.labels),
        "draw": seed,
        "seconds": took,
        "chosen": found["chosen"],
        "candidates": found["candidates"],
        "scratch": scratch,
        "validation": share(correct, len(validation)),
        "test": {
            "images": result["images"],
            "accuracy": result["accuracy"],
            "interval": result["accuracy_interval"],
        },
    }


def main() -> None:
    """Measure what is missing, and write after every draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/fit-cifar10.json"))
    parser.add_argument("--backbone", action="append", help="default those that are here")
    parser.add_argument("--runs", type=Path, default=Path("runs/labels"))
    args = parser.parse_args()
    record: dict[str, Any] = read_json(args.out) if args.out.exists() else {"rows": []}
    done = {(row["labels"], row["draw"]) for row in record["rows"]}
    test = load_test(open_dataset(vitlab.recipe("cpu").data))
    for labels in LABELS:
        for seed in range(DRAWS):
            if (labels, seed) in done:
                continue
            row = measured(labels, seed, args.minutes, args.backbone, args.runs, test)
            record["rows"].append(row)
            record |= {
                "minutes": args.minutes,
                "command": f"python benchmarks/labels.py --minutes {args.minutes:g}",
                "device": device_name(CPU),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "vitlab": vitlab.__version__,
            }
            write_json(args.out, record)
            print(labels, seed, row["chosen"], row["validation"]["accuracy"],
                  row["test"]["accuracy"], f"{row['seconds']:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

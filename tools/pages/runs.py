"""The runs whose records are committed, and what several pages say of a run."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from vitlab.compare.facts import RunFacts
from vitlab.config import Config, shared_fields
from vitlab.formatting import between, count, minutes, percent
from vitlab.recipes import ALL_RECIPES
from vitlab.reproduce.rows import ROWS, row_config
from vitlab.run import Run
from vitlab.stats import t_interval

RECORDS = Path("docs/results")

OF_THE_DATA = ("data.image_size", "data.channels", "data.classes")
"""Fields that a recipe leaves to the data set."""

CLASS_HEAD = ("class", "accuracy", "precision", "F1", "mean confidence")


def kept(folder: Path = RECORDS) -> list[Run]:
    """The runs of which a folder holds records."""
    return [Run(path.parent) for path in sorted(folder.glob("*/config.json"))]


def by_row(folder: Path = RECORDS) -> dict[str, list[Run]]:
    """The records of every row or recipe, by seed; a run of another config stands for itself."""
    found: dict[str, list[Run]] = {}
    for run in sorted(kept(folder), key=lambda run: run.config.train.seed):
        found.setdefault(row_of(run.config) or run.name, []).append(run)
    return found


def row_of(config: Config) -> str | None:
    """The recipe or row that a run's config is, whatever its seed; None if it is none of them."""

    def fields(config: Config) -> dict[str, str]:
        shared = shared_fields(config)
        return {name: shared[name] for name in shared if name not in OF_THE_DATA}

    wanted = fields(config)
    known = (name for name in (*ALL_RECIPES, *ROWS) if fields(row_config(name)) == wanted)
    return next(known, None)


def accuracy(runs: Sequence[Run]) -> str:
    """Mean test accuracy of runs that differ in their seed, and its interval."""
    accuracies = [run.result("test")["accuracy"] for run in runs]
    if len(runs) == 1:
        interval = runs[0].result("test")["accuracy_interval"]
    else:
        low, high = t_interval(accuracies)
        interval = max(0.0, low), min(1.0, high)
    return f"**{percent(fmean(accuracies))}** ({between(interval)})"


def process_time(runs: Sequence[Run]) -> str:
    """Mean CPU time of some trainings, summed over threads."""
    return minutes(fmean(run.final_numbers["clock"]["process_seconds"] for run in runs))


def hardware(run: Run) -> str:
    """The device of a run and the threads it used."""
    origin = run.provenance
    return f"{origin['device']}, {count(origin['threads'], 'thread')}, {origin['cpu_capability']}"


def clean_accuracy(run: Run) -> tuple[str, str]:
    """What a run reached, at its last step, on training images that were not augmented."""
    clean = run.final_numbers["train_clean"]
    images = f"{clean['images']:,} " if "images" in clean else ""  # records of before do not say
    return f"accuracy on {images}clean training images", percent(clean["accuracy"])


def facts(run: Run) -> list[tuple[str, str]]:
    """Where a run's numbers come from, and the numbers of the whole test split."""
    test, validation = RunFacts(run, "test"), RunFacts(run, "validation")
    shared = ", beside other trainings" if run.final_numbers["clock"].get("shared") else ""
    sure = f"{percent(test['mean_confidence'])}, {percent(test['calibration_error'])}"
    versions = f"vitlab {test['vitlab']}, torch {test['torch']}, Python {test['python']}"
    return [
        ("command", f"`{test['command'] or 'a config made in Python'}`"),
        ("seed", str(test["seed"])),
        ("test accuracy, last step", percent(test["accuracy"])),
        ("validation accuracy, last step", percent(validation["accuracy"])),
        clean_accuracy(run),
        ("test loss", f"{test['loss']:.4f}"),
        ("mean AUC, mean F1", f"{test['mean_auc']:.4f}, {test['mean_f1']:.4f}"),
        ("top-3 accuracy", percent(test["top3_accuracy"])),
        ("mean confidence, calibration error", sure),
        *(
            (
                f"sets for {100 * row['level']:.0f} % hold the class in; mean size",
                f"{percent(row['coverage'])}; {row['mean_size']:.2f}",
            )
            for row in run.result("test").get("prediction_sets", ())
        ),
        *(
            [("test images called unlike the training images", percent(found["unknown"]))]
            if (found := run.result("test").get("ood"))
            else []
        ),
        ("hardware", hardware(run)),
        ("process time", minutes(test["process_seconds"])),
        ("wall time", minutes(test["training_seconds"]) + shared),
        ("precision", test["precision"]),
        ("versions", versions),
        ("config", f"`{test['config_sha256'][:16]}`"),
        ("data", f"`{test['data_fingerprint'][:16]}`"),
        ("split", f"`{(validation['split_sha256'] or 'none')[:16]}`"),
        (
            "opening of the test split, in the ledger beside the run",
            str(test["test_openings"] or "-"),
        ),
        *(("note", alarm) for alarm in run.final_numbers["alarms"]),
    ]


def class_rows(run: Run) -> list[list[str]]:
    """The test numbers of each class."""
    keys = ("accuracy", "precision", "f1", "confidence")
    classes = run.result("test")["per_class"]
    return [[one["class"], *(percent(one[key]) for key in keys)] for one in classes]

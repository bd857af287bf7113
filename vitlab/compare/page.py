"""A comparison as sentences computed from its numbers, as tables and as a Markdown page."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from vitlab.formatting import (
    between,
    bullets,
    count,
    difference,
    estimate,
    markdown_name,
    p_value,
    percent,
    points,
    scaled,
    signed,
    table,
    unequal_budget,
    verdict_sentence,
)
from vitlab.records import EpochsToAccuracy
from vitlab.stats import FEWEST

Found = Mapping[str, Any]
"""What `compare` returns, or a part of it."""

Facts = Callable[[str], Any]
"""Name of a fact -> its value, None where it is unknown."""

Row = tuple[tuple[str, ...], Callable[[Facts], str]]
"""The facts that stand in a row, and how they are written."""


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _row(name: str, form: Callable[[Any], str] = _text) -> Row:
    """A row of a single fact."""
    return (name,), lambda fact: form(fact(name))


def _scaled(name: str, unit: float, symbol: str, digits: int) -> Row:
    """A row of a quantity in a unit."""
    return _row(name, lambda value: scaled(value, unit, symbol, digits))


def _hash(name: str) -> Row:
    return _row(name, lambda value: (value or "-")[:16])


def _accuracy(fact: Facts) -> str:
    interval = fact("accuracy_interval")
    accuracy = percent(fact("accuracy")) + (f" ({between(interval)})" if interval else "")
    if fact("accuracy") is not None and fact("validation_seen") and fact("split") == "validation":
        accuracy += f", {_text(fact('validation_seen'))} of the images trained on before"
    if fact("cross_validated"):
        accuracy += f", held out in turn in {_text(fact('cross_validated'))} folds"
    return accuracy


def _worst(fact: Facts) -> str:
    if fact("worst_class") is None:
        return "-"
    return f"{fact('worst_class')}, {percent(fact('worst_class_accuracy'))}"


def _inference(fact: Facts) -> str:
    if fact("inference_ms") is None:
        return "-"
    threads = count(fact("inference_threads"), "thread")
    return f"{fact('inference_ms'):.2f} ms ({fact('inference_device')}, {threads})"


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


ROWS: dict[str, Row] = {
    "model": _row("kind"),
    "status": _row("status"),
    "evaluated on": (("split", "images"), lambda fact: f"{_text(fact('images'))} {fact('split')}"),
    "openings of the test split, at most, by the ledger beside the run": _row("test_openings"),
    "accuracy": (("accuracy", "accuracy_interval", "validation_seen"), _accuracy),
    "loss": _scaled("loss", 1, "", 4),
    "mean AUC": _scaled("mean_auc", 1, "", 4),
    "mean F1": _scaled("mean_f1", 1, "", 4),
    "worst class": (("worst_class", "worst_class_accuracy"), _worst),
    "calibration error": _row("calibration_error", percent),
    "generalisation gap": _scaled("generalisation_gap", 0.01, " pp", 2),
    "mean accuracy, corrupted": _row("corrupted_accuracy", percent),
    "accuracy under FGSM": _row("fgsm_accuracy", percent),
    "accuracy under PGD": _row("pgd_accuracy", percent),
    "parameters": _row("parameters"),
    "multiply-adds of an image": _scaled("macs", 1e6, " M", 1),
    "time of an epoch": _scaled("seconds_per_epoch", 1, " s", 1),
    "images per second, training": _scaled("images_per_second", 1, "", 0),
    "inference of one image": (
        ("inference_ms", "inference_device", "inference_threads"),
        _inference,
    ),
    "peak memory": _scaled("peak_memory_bytes", 1e9, " GB", 2),
    "training, wall time": _scaled("training_seconds", 60, " min", 1),
    "training, process time": _scaled("process_seconds", 60, " min", 1),
    "epochs": _row("epochs"),
    "images seen": _row("images_seen"),
    "seed": _row("seed", str),
    "device": _row("device"),
    "threads": _row("threads"),
    "precision": _row("precision"),
    "bit-reproducible": _row("bit_reproducible", _yes),
    "config": _hash("config_sha256"),
    "data": _hash("data_fingerprint"),
    "images of the split": _hash("split_sha256"),
}
"""Rows of the table by title."""

BEFORE = "parameters"
"""The row before which the epochs to each accuracy stand."""

NOT_IN_CSV = ("epochs_to_accuracy", "accuracy_interval", "command")
"""Facts that are no single number, or may hold what a table has no room for."""


def facts_of(run: Found) -> Facts:
    """The values of a run's facts."""
    facts = run["facts"]  # a stored comparison may be of before a fact was known
    return lambda name: facts[name]["value"] if facts.get(name) else None


def rows(found: Found) -> list[list[str]]:
    """The table of facts: a row for each, a title and then a cell for every run."""
    runs = [facts_of(run) for run in found["runs"]]
    lines: list[list[str]] = []
    for title, (names, write) in ROWS.items():
        if names == ("test_openings",) and found["split"] != "test":
            continue
        if title == BEFORE:
            lines += _thresholds(runs)
        lines.append([title, *(write(fact) for fact in runs)])
    return lines


def _thresholds(runs: list[Facts]) -> Iterator[list[str]]:
    """Epochs to each accuracy that a run reached, on clean training images and on validation."""

    def write(epoch: float | None) -> str:
        return "-" if epoch is None else f"{epoch:g}"

    found: list[list[EpochsToAccuracy]] = [fact("epochs_to_accuracy") or [] for fact in runs]
    for place, step in enumerate(max(found, key=len)):
        pairs = [
            (one[place]["train_clean"], one[place]["validation"]) if one else (None, None)
            for one in found
        ]
        if any(epoch is not None for pair in pairs for epoch in pair):
            title = f"epochs to {100 * step['accuracy']:g} %, training / validation"
            yield [title, *(" / ".join(map(write, pair)) for pair in pairs)]


def csv_rows(found: Found) -> Iterator[list[Any]]:
    """A row of column names, then one for every run."""
    names = [name for name in found["runs"][0]["facts"] if name not in NOT_IN_CSV]
    yield ["run", "accuracy_low", "accuracy_high", *names]
    for run in found["runs"]:
        fact = facts_of(run)
        low, high = fact("accuracy_interval") or (None, None)
        yield [run["run"], low, high, *map(fact, names)]


def findings(found: Found) -> Iterator[str]:
    """Sentences: trained models first, then recipes."""
    for one in found["models"]:
        yield model_finding(one)
    for one in found["recipes"]:
        yield from recipe_facts(one)
    for one in found["comparisons"]:
        yield recipe_finding(one)


def model_finding(one: Found) -> str:
    """A sentence on two trained models."""
    if one["reason"]:
        return (
            f"The trained models {one['run']} and {one['against']} were not compared image by "
            f"image: {one['reason']}."
        )
    details = difference(one["difference"], one["interval"], one["adjusted_p"], "images", "McNemar")
    of = f"{one['images']:,} {one['split']} images"
    accuracies = f"{percent(one['accuracy'])} against {percent(one['against_accuracy'])} of {of}"
    names = f"The trained model {one['run']}", f"the trained model {one['against']}"
    sentence = verdict_sentence(*names, one["verdict"], f"{accuracies}, {details}")
    holds = "That holds for these weights, not for their recipes."
    return f"{sentence} {holds}{unequal_budget(one['unequal'])}"


def recipe_facts(one: Found) -> Iterator[str]:
    """A sentence on the seeds of a recipe, and one for every run that does not count."""
    if one["planned"] > 1:
        spread = f", standard deviation {points(one['std'])} pp" if one["std"] is not None else ""
        lost = "".join(
            f"; {number} of {one['planned']} {status}"
            for status in ("failed", "pending")
            if (number := one[status])
        )
        mean = f"a mean of {estimate(one['mean'], one['interval'])} over " if one["n"] else ""
        reached = f"reaches {mean}" if mean else "has reached nothing yet with "
        yield f"The recipe {one['recipe']} {reached}{count(one['n'], 'seed')}{spread}{lost}."
    if one["repeated"]:
        yield (
            f"Left out of the recipe {one['recipe']}, because another run has the same seed: "
            f"{', '.join(one['repeated'])}."
        )


def recipe_finding(one: Found) -> str:
    """A sentence on two recipes."""
    design = ["paired by seed" if one["paired"] else "unpaired"]
    design += [] if one["same_seeds"] else ["the seeds differ"]
    if one["bootstrap_interval"]:
        images = between(one["bootstrap_interval"], signed)
        design.append(f"over seeds and images {images} by bootstrap")
    numbers = difference(one["difference"], one["interval"], one["adjusted_p"], "seeds", *design)
    names = f"The recipe {one['recipe']}", f"the recipe {one['against']}"
    sentence = verdict_sentence(*names, one["verdict"], numbers)
    return f"{sentence}{more_seeds(one)}{unequal_budget(one['unequal'])}"


def more_seeds(one: Found) -> str:
    """How many seeds would show a difference that is not shown; nothing where it is."""
    needed = one.get("seeds_needed")  # what was compared before had none
    if not needed or needed <= FEWEST or not (one["verdict"] or "").startswith("no "):
        return ""
    return f" About {needed} seeds each would show a difference of this size, four times in five."


def comparison_table(comparisons: Iterable[Found], called: str) -> str:
    """Groups of seeds against one another as a table; `called` is "recipe" or "arm"."""
    head = (called, "against", "difference, pp", "95 % interval", "bootstrap", "p", "adjusted p",
            "verdict", "not equal budget")  # fmt: skip
    return table(
        head,
        (
            [
                markdown_name(one[called]),
                markdown_name(one["against"]),
                signed(one["difference"]),
                between(one["interval"], signed),
                between(one["bootstrap_interval"], signed),
                p_value(one["p"]),
                p_value(one["adjusted_p"]),
                one["verdict"],
                markdown_name(", ".join(one["unequal"])) or "-",
            ]
            for one in comparisons
        ),
    )


ACCURACY_COLUMNS = ("n", "mean", "std, pp", "95 % interval", "lowest", "highest", "every seed")
"""Columns of `accuracy_cells`."""


def accuracy_cells(
    accuracy: Found, n: int, planned: int, lost: Iterable[tuple[int, str]]
) -> list[str]:
    """How accurate a group of seeds is; `lost` are the seeds without a result and their status."""
    seeds = [f"{seed}: {points(value)}" for seed, value in accuracy["seeds"].items()]
    return [
        str(n) if n == planned else f"{n} of {planned}",
        percent(accuracy["mean"]),
        points(accuracy["std"]),
        between(accuracy["interval"]),
        percent(accuracy["min"]),
        percent(accuracy["max"]),
        ", ".join([*seeds, *(f"{seed}: {status}" for seed, status in lost)]),
    ]


def markdown(found: Found, drawn: list[str]) -> str:
    """The page; `drawn` names the pictures in figures/."""
    names = [markdown_name(run["run"]) for run in found["runs"]]
    facts = [[title, *map(markdown_name, cells)] for title, *cells in rows(found)]
    parts = [
        f"# {', '.join(names)}",
        f"Compared with {names[0]} on the {found['split']} split, last step.",
        "## Findings",
        bullets(map(markdown_name, found["findings"])),
        "## Numbers",
        table(("", *names), facts),
        "`-` was never measured. Epochs to an accuracy are those of the first evaluation that "
        "found it; it may have been reached since the evaluation before. The generalisation gap is "
        "the accuracy on clean training images less that on the split.",
        *picture(drawn, "curves", "cost"),
        "## The trained models, image by image",
        *(part for number, one in enumerate(found["models"], 1)
          for part in model_part(one, number, drawn)),
        "## The recipes, over seeds",
        table(
            ("recipe", *ACCURACY_COLUMNS),
            (
                [
                    markdown_name(one["recipe"]),
                    *accuracy_cells(
                        one, one["n"], one["planned"],
                        ((lost["seed"], lost["status"]) for lost in one["without_result"]),
                    ),
                ]
                for one in found["recipes"]
            ),
        ),
        comparison_table(found["comparisons"], "recipe") if found["comparisons"] else "",
        "## Where the numbers come from",
        table(("", "files of the run"), sources(found)),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def picture(drawn: Iterable[str], *names: str) -> list[str]:
    """Those of some pictures that were drawn, as Markdown."""
    return [f"![{name}](figures/{name}.svg)" for name in names if name in drawn]


def model_part(one: Found, number: int, drawn: list[str]) -> Iterator[str]:
    """Everything about two trained models."""
    run, against = markdown_name(one["run"]), markdown_name(one["against"])
    yield f"### {run} and {against}"
    if one["reason"]:
        yield markdown_name(f"Not compared: {one['reason']}.")
    else:
        yield table(
            ("", f"{against} right", f"{against} wrong"),
            [
                [f"{run} right", f"{one['both_right']:,}", f"{one['only_run_right']:,}"],
                [f"{run} wrong", f"{one['only_against_right']:,}", f"{one['both_wrong']:,}"],
            ],
        )
        yield (
            f"They disagree on {len(one['disagreements']):,} of {one['images']:,} images, each of "
            "which is in `compare.json`."
        )
        yield table(
            ("class", "images", run, against, "difference, pp", "adjusted p"),
            (
                [
                    markdown_name(row["class"]),
                    f"{row['images']:,}",
                    percent(row["accuracy"]),
                    percent(row["against_accuracy"]),
                    signed(row["difference"]),
                    p_value(row["adjusted_p"]),
                ]
                for row in one["classes"]
            ),
        )
        yield from picture(drawn, f"classes-{number}", f"disagreements-{number}")
    yield markdown_name(unequal_budget(one["unequal"]))
    if one["changes"]:
        yield table(
            ("field", run, against),
            ([f"`{name}`", *map(markdown_name, pair)] for name, pair in one["changes"].items()),
        )


def sources(found: Found) -> Iterator[list[str]]:
    """Which files and fields each row of the table was read from."""
    for title, (names, _) in ROWS.items():
        read = dict.fromkeys(
            f"`{fact['file']}` {fact['field']}"
            for name in names
            for run in found["runs"]
            if (fact := run["facts"][name])
        )
        if read:
            yield [title, "; ".join(read)]

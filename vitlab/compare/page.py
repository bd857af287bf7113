"""A comparison as sentences computed from its numbers, as tables and as a Markdown page."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vitlab.formatting import (
    between,
    bullets,
    count,
    markdown_name,
    p_value,
    percent,
    points,
    scaled,
    signed,
    table,
)
from vitlab.records import EpochsToAccuracy
from vitlab.stats import FEWEST

Comparison = Mapping[str, Any]
"""What `compare` returns."""

Facts = Callable[[str], Any]
"""Name of a fact -> its value, None where it is unknown."""


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _accuracy(fact: Facts) -> str:
    if fact("accuracy") is None:
        return "-"
    interval = fact("accuracy_interval")
    accuracy = percent(fact("accuracy")) + (f" ({between(interval)})" if interval else "")
    if fact("validation_seen") and fact("split") == "validation":
        accuracy += f", {_text(fact('validation_seen'))} of the images trained on before"
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


ROWS: dict[str, tuple[tuple[str, ...], Callable[[Facts], str]]] = {
    "model": (("kind",), lambda fact: _text(fact("kind"))),
    "status": (("status",), lambda fact: fact("status")),
    "evaluated on": (("split", "images"), lambda fact: f"{_text(fact('images'))} {fact('split')}"),
    "openings of the test split": (("test_openings",), lambda fact: _text(fact("test_openings"))),
    "accuracy": (("accuracy", "accuracy_interval", "validation_seen"), _accuracy),
    "loss": (("loss",), lambda fact: scaled(fact("loss"), 1, "", 4)),
    "mean AUC": (("mean_auc",), lambda fact: scaled(fact("mean_auc"), 1, "", 4)),
    "mean F1": (("mean_f1",), lambda fact: scaled(fact("mean_f1"), 1, "", 4)),
    "worst class": (("worst_class", "worst_class_accuracy"), _worst),
    "calibration error": (("calibration_error",), lambda fact: percent(fact("calibration_error"))),
    "generalisation gap": (
        ("generalisation_gap",),
        lambda fact: scaled(fact("generalisation_gap"), 0.01, " pp", 2),
    ),
    "mean accuracy, corrupted": (
        ("corrupted_accuracy",),
        lambda fact: percent(fact("corrupted_accuracy")),
    ),
    "accuracy under FGSM": (("fgsm_accuracy",), lambda fact: percent(fact("fgsm_accuracy"))),
    "accuracy under PGD": (("pgd_accuracy",), lambda fact: percent(fact("pgd_accuracy"))),
    "parameters": (("parameters",), lambda fact: _text(fact("parameters"))),
    "multiply-adds of an image": (("macs",), lambda fact: scaled(fact("macs"), 1e6, " M", 1)),
    "time of an epoch": (
        ("seconds_per_epoch",),
        lambda fact: scaled(fact("seconds_per_epoch"), 1, " s", 1),
    ),
    "images per second, training": (
        ("images_per_second",),
        lambda fact: scaled(fact("images_per_second"), 1, "", 0),
    ),
    "inference of one image": (
        ("inference_ms", "inference_device", "inference_threads"),
        _inference,
    ),
    "peak memory": (
        ("peak_memory_bytes",),
        lambda fact: scaled(fact("peak_memory_bytes"), 1e9, " GB", 2),
    ),
    "training, wall time": (
        ("training_seconds",),
        lambda fact: scaled(fact("training_seconds"), 60, " min", 1),
    ),
    "training, process time": (
        ("process_seconds",),
        lambda fact: scaled(fact("process_seconds"), 60, " min", 1),
    ),
    "epochs": (("epochs",), lambda fact: _text(fact("epochs"))),
    "images seen": (("images_seen",), lambda fact: _text(fact("images_seen"))),
    "seed": (("seed",), lambda fact: str(fact("seed"))),
    "device": (("device",), lambda fact: _text(fact("device"))),
    "threads": (("threads",), lambda fact: _text(fact("threads"))),
    "precision": (("precision",), lambda fact: _text(fact("precision"))),
    "bit-reproducible": (("bit_reproducible",), lambda fact: _yes(fact("bit_reproducible"))),
    "config": (("config_sha256",), lambda fact: fact("config_sha256")[:16]),
    "data": (("data_fingerprint",), lambda fact: (fact("data_fingerprint") or "-")[:16]),
    "images of the split": (("split_sha256",), lambda fact: (fact("split_sha256") or "-")[:16]),
}
"""Rows of the table: a title, the facts that stand in it, and how they are written."""

BEFORE = "parameters"
"""The row before which the epochs to each accuracy stand."""

NOT_IN_CSV = ("epochs_to_accuracy", "accuracy_interval", "command")
"""Facts that are no single number, or may hold what a table has no room for."""


def facts_of(run: Mapping[str, Any]) -> Facts:
    """The values of a run's facts."""
    facts = run["facts"]  # a stored comparison may be of before a fact was known
    return lambda name: facts[name]["value"] if facts.get(name) else None


def rows(found: Comparison) -> list[list[str]]:
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
    steps = max(found, key=len)
    for place, step in enumerate(steps):
        pairs = [
            (one[place]["train_clean"], one[place]["validation"]) if one else (None, None)
            for one in found
        ]
        if any(epoch is not None for pair in pairs for epoch in pair):
            title = f"epochs to {100 * step['accuracy']:g} %, training / validation"
            yield [title, *(" / ".join(map(write, pair)) for pair in pairs)]


def csv_rows(found: Comparison) -> Iterator[list[Any]]:
    """A row of column names, then one for every run."""
    names = [name for name in found["runs"][0]["facts"] if name not in NOT_IN_CSV]
    yield ["run", "accuracy_low", "accuracy_high", *names]
    for run in found["runs"]:
        fact = facts_of(run)
        low, high = fact("accuracy_interval") or (None, None)
        yield [run["run"], low, high, *map(fact, names)]


def findings(found: Comparison) -> Iterator[str]:
    """Sentences: trained models first, then recipes."""
    for one in found["models"]:
        yield model_finding(one)
    for one in found["recipes"]:
        yield from recipe_facts(one)
    for one in found["comparisons"]:
        yield recipe_finding(one)


def model_finding(one: Comparison) -> str:
    """A sentence on two trained models."""
    if one["reason"]:
        return (
            f"The trained models {one['run']} and {one['against']} were not compared image by "
            f"image: {one['reason']}."
        )
    numbers = (
        f"{percent(one['accuracy'])} against {percent(one['against_accuracy'])} of "
        f"{one['images']:,} {one['split']} images, {signed(one['difference'])} pp (95 % interval "
        f"over images {between(one['interval'], signed)}; McNemar, Holm-adjusted p "
        f"{p_value(one['adjusted_p'])})"
    )
    if one["verdict"] == "no evidence of a difference":
        verdict = (
            f"No evidence that this trained model, {one['run']}, is better or worse than the "
            f"trained model {one['against']}: {numbers}"
        )
    else:
        verdict = (
            f"This trained model, {one['run']}, is {one['verdict']} than the trained model "
            f"{one['against']}: {numbers}"
        )
    return f"{verdict}. That holds for these weights, not for their recipes.{_budget(one)}"


def recipe_facts(one: Comparison) -> Iterator[str]:
    """A sentence on the seeds of a recipe, and one for every run that does not count."""
    if one["planned"] > 1:
        spread = f", standard deviation {points(one['std'])} pp" if one["std"] is not None else ""
        within = f", 95 % interval {between(one['interval'])}" if one["interval"] else ""
        lost = "".join(
            f"; {number} of {one['planned']} {status}"
            for status in ("failed", "pending")
            if (number := one[status])
        )
        mean = f"a mean of {percent(one['mean'])} over " if one["n"] else "nothing yet from "
        yield (
            f"The recipe {one['recipe']} reaches {mean}{count(one['n'], 'seed')}{spread}{within}"
            f"{lost}."
        )
    if one["repeated"]:
        yield (
            f"Left out of the recipe {one['recipe']}, because another run has the same seed: "
            f"{', '.join(one['repeated'])}."
        )


def recipe_finding(one: Comparison) -> str:
    """A sentence on two recipes."""
    numbers = [f"{signed(one['difference'])} pp"]
    if one["interval"]:
        numbers.append(f"95 % interval over seeds {between(one['interval'], signed)}")
    if one["adjusted_p"] is not None:
        numbers.append(f"Holm-adjusted p {p_value(one['adjusted_p'])}")
    if one["bootstrap_interval"]:
        numbers.append(
            f"over seeds and images {between(one['bootstrap_interval'], signed)} by bootstrap"
        )
    design = "paired by seed" if one["paired"] else "unpaired"
    if not one["same_seeds"]:
        design += ", the seeds differ"
    needed = one["seeds_needed"]
    more = (
        f" About {needed} seeds each would show a difference of this size, four times in five."
        if needed and "no " in one["verdict"][:3] and needed > FEWEST
        else ""
    )
    return (
        f"The recipe {one['recipe']} against the recipe {one['against']}: {one['verdict']}; "
        f"{', '.join(numbers)}; {design}.{more}{_budget(one)}"
    )


def _budget(one: Comparison) -> str:
    return f" Not equal budget: {', '.join(one['unequal'])}." if one["unequal"] else ""


def markdown(found: Comparison, drawn: list[str]) -> str:
    """The page; `drawn` names the pictures in figures/."""
    names = [markdown_name(run["run"]) for run in found["runs"]]
    facts = [[one if place == 0 else markdown_name(one) for place, one in enumerate(row)]
             for row in rows(found)]  # fmt: skip
    parts = [
        f"# {', '.join(names)}",
        f"Compared with {names[0]} on the {found['split']} split, last step.",
        "## Findings",
        bullets(map(markdown_name, found["findings"])),
        "## Numbers",
        table(("", *names), facts),
        "`-` was never measured. Epochs to an accuracy are as exact as the training was evaluated "
        "often. The generalisation gap is the accuracy on clean training images less that on the "
        "split.",
        *picture(drawn, "curves", "cost"),
        "## The trained models, image by image",
        *(part for number, one in enumerate(found["models"], 1)
          for part in model_part(one, number, drawn)),
        "## The recipes, over seeds",
        *recipe_part(found),
        "## Where the numbers come from",
        table(("", "files of the run"), sources(found)),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def picture(drawn: list[str], *names: str) -> list[str]:
    """Those of some pictures that were drawn, as Markdown."""
    return [f"![{name}](figures/{name}.svg)" for name in names if name in drawn]


def model_part(one: Comparison, number: int, drawn: list[str]) -> Iterator[str]:
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
    if one["unequal"]:
        yield f"Not equal budget: {markdown_name(', '.join(one['unequal']))}."
    if one["changes"]:
        yield table(
            ("field", run, against),
            ([f"`{name}`", *map(markdown_name, pair)] for name, pair in one["changes"].items()),
        )


def recipe_part(found: Comparison) -> Iterator[str]:
    """Everything about recipes."""
    yield table(
        ("recipe", "n", "mean", "std, pp", "95 % interval", "every seed", "without a result"),
        (
            [
                markdown_name(one["recipe"]),
                str(one["n"]) if one["n"] == one["planned"] else f"{one['n']} of {one['planned']}",
                percent(one["mean"]),
                points(one["std"]),
                between(one["interval"]),
                ", ".join(f"{seed}: {percent(value)}" for seed, value in one["seeds"].items()),
                ", ".join(f"{x['seed']}: {x['status']}" for x in one["without_result"]) or "-",
            ]
            for one in found["recipes"]
        ),
    )
    if found["comparisons"]:
        yield table(
            ("recipe", "against", "difference, pp", "95 % interval", "adjusted p", "verdict",
             "not equal budget"),
            (
                [
                    markdown_name(one["recipe"]),
                    markdown_name(one["against"]),
                    signed(one["difference"]),
                    between(one["interval"], signed),
                    p_value(one["adjusted_p"]),
                    one["verdict"],
                    markdown_name(", ".join(one["unequal"])) or "-",
                ]
                for one in found["comparisons"]
            ),
        )  # fmt: skip


def sources(found: Comparison) -> Iterator[list[str]]:
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

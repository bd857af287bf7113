"""What a run achieved whose images have several labels: its score, and every label by itself."""

from collections.abc import Iterator, Sequence
from typing import cast

from vitlab.figures.charts import Row
from vitlab.formatting import between, count, percent
from vitlab.metrics import FEW_FOR_TEMPERATURE
from vitlab.records import LabelResult, LabelSummary
from vitlab.report.document import (
    Block,
    Bullets,
    Missing,
    Name,
    Number,
    Panel,
    Sentence,
    Table,
    listed,
    say,
    whole,
)
from vitlab.report.pictures import dot_chart
from vitlab.report.results import MANY, of_unknown, openings
from vitlab.report.subject import Subject
from vitlab.run import RESULTS

SCORE = "mean_average_precision"


def headline(one: Subject) -> Sentence:
    """What was found, in a line."""
    return say(
        "{name} reaches a mean average precision of {score} on the {split} images",
        name=one.name,
        score=one.number(SCORE),
        split=one.split,
    )


def findings(one: Subject) -> Iterator[Sentence]:
    """What a run's numbers say."""
    if one.facts[SCORE] is None:
        yield say("{name} has no result before it is evaluated.", name=one.name)
        return
    evaluated = one.facts[f"{SCORE}_interval"] is not None
    yield say(
        "{name}: mean average precision {score} on {images} {split} images"
        + ", 95 % interval {interval} over images" * evaluated
        + " for this one trained model.",
        name=one.name,
        score=one.number(SCORE),
        images=one.number("images", whole),
        split=one.split,
        interval=one.number(f"{SCORE}_interval", between),
    )
    if one.facts[f"train_{SCORE}"] is not None:
        yield say(
            "On clean training images its mean average precision is {train}.",
            train=one.number(f"train_{SCORE}"),
        )
    yield from at_thresholds(one)


def summary(one: Subject) -> LabelSummary | None:
    """Its evaluation on the split, None where there is none."""
    return cast("LabelSummary | None", one.facts.result)


def at_thresholds(one: Subject) -> Iterator[Sentence]:
    """How right its labels are at the thresholds that were tuned."""
    result = summary(one)
    if result is None:
        return
    fitted = result.get("temperature_images")
    images = Number(whole(fitted or 0), (one.at(RESULTS, f"{one.split}.temperature_images"),))
    tuned = "thresholds of 50 %, as none were tuned"
    if fitted:
        on = "these" if one.split == "validation" else "{fitted} validation"
        tuned = f"thresholds that were tuned on {on} images" + (
            ", which flatters it" if one.split == "validation" else ""
        )
    yield say(
        f"F1 over all labels is {{micro}}, the mean over labels {{macro}}, at {tuned}; "
        "{exact} of the images are given all of their labels and no other.",
        micro=one.number("micro_f1"),
        macro=one.number("mean_f1"),
        exact=one.number("exact_match"),
        fitted=images,
    )
    if fitted and fitted < FEW_FOR_TEMPERATURE:
        yield say(
            "Thresholds were tuned on {fitted} validation images, too few for more than a guess "
            "where a label is rare.",
            fitted=images,
        )


def results(one: Subject) -> Iterator[Panel]:
    """The score, and the numbers of every label."""
    result = summary(one)
    if result is None:
        command = f"vitlab evaluate {one.command} --split test"
        if not one.facts.finished:
            command = f"vitlab train --resume {one.command}"
        blocks: list[Block] = [Missing(f"{one.text} has no numbers of its labels:", command)]
        yield Panel("result", "Result", say("It was not evaluated yet"), blocks, weight=2)
        return
    where = one.at(RESULTS, f"{one.split}.per_class")
    every = result["per_class"]
    known = [(row["average_precision"], row["class"]) for row in every]
    ranked = sorted((value, name) for value, name in known if value is not None)
    rows = [Row(name, value, None, percent(value)) for value, name in ranked[:MANY]]
    which = "Average precision of each label"
    if len(ranked) > MANY:
        which = f"Average precision of the {count(MANY, 'label')} in which it is lowest"
    caption = say(f"{which}: 100 % where all images that have it are ranked first.")
    blocks = [dot_chart(rows, "average precision of labels, lowest first", caption, (where,))]
    sentences = [*at_thresholds(one), *of_unknown(one), *openings(one)]
    blocks.append(Bullets(sentences))
    if one.split != "test" and one.facts.finished:
        blocks.append(
            Missing(
                f"{one.text} is evaluated on validation images; the final result comes from:",
                f"vitlab evaluate {one.command} --split test",
            )
        )
    words = say(
        "Mean average precision {score} on {images} {split} images, 95 % interval {interval}",
        score=one.number(SCORE),
        images=one.number("images", whole),
        split=one.split,
        interval=one.number(f"{SCORE}_interval", between),
    )
    yield Panel("result", "Result", words, blocks, weight=9)
    yield Panel("classes", "Labels", extremes(one, every), [label_table(one, every)], weight=8)


def extremes(one: Subject, found: Sequence[LabelResult]) -> Sentence:
    """The labels of the lowest and of the highest average precision."""
    where = (one.at(RESULTS, f"{one.split}.per_class.average_precision"),)
    known = {row["class"]: row["average_precision"] for row in found}
    values = [value for value in known.values() if value is not None]
    if percent(min(values)) == percent(max(values)):
        return say("Every label has the same average precision")
    parts: dict[str, Number | Sentence] = {}
    for key, value in (("low", min(values)), ("high", max(values))):
        words = percent(value)
        parts[key] = listed([name for name, other in known.items() if percent(other) == words])
        parts[f"{key}est"] = Number(words, where)
    return say(
        "Average precision is lowest for {low}, {lowest}, and highest for {high}, {highest}",
        **parts,
    )


def label_table(one: Subject, found: Sequence[LabelResult]) -> Table:
    """Every number of every label."""
    columns = {
        "images": whole,
        "average_precision": percent,
        "threshold": percent,
        "precision": percent,
        "recall": percent,
        "f1": percent,
    }
    rows = [
        [
            Name(row["class"]),
            *(
                Number(form(row[key]), (one.at(RESULTS, f"{one.split}.per_class.{key}"),))
                if row[key] is not None
                else "-"
                for key, form in columns.items()
            ),
        ]
        for row in found
    ]
    head = ("label", "images", "average precision", "threshold", "precision", "recall", "F1")
    return Table(head, rows, "Every label at its threshold, a probability.")

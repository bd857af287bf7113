"""What runs achieved: beside what others published, against each other, class by class."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from vitlab.compare import compare
from vitlab.compare import page as comparison
from vitlab.config import shared_fields
from vitlab.figures import charts, style
from vitlab.figures.charts import Row
from vitlab.figures.comparison import class_rows
from vitlab.figures.style import GREY, HUES
from vitlab.files import read_json
from vitlab.formatting import between, count, percent, points, signed
from vitlab.metrics import FEW_FOR_TEMPERATURE
from vitlab.records import ClassResult, SplitResult
from vitlab.report.document import (
    Block,
    Bullets,
    Figure,
    Missing,
    Name,
    Number,
    Panel,
    Sentence,
    Source,
    Table,
    Text,
    join,
    listed,
    merged,
    say,
    tenth,
    traced,
    whole,
)
from vitlab.report.pictures import chart, dot_chart, samples, shared_mistakes
from vitlab.report.subject import Subject, plainly, resolved, without_folders
from vitlab.reproduce.rows import PUBLISHED, SYSTEMS, published, row_config
from vitlab.run import AUDIT, RESULTS
from vitlab.stats import wilson

MANY = 20
"""Most classes that are drawn one by one."""

IN_PROVENANCE = (
    "seed",
    "device",
    "threads",
    "precision",
    "bit-reproducible",
    "config",
    "data",
    "images of the split",
    "status",
)
"""Rows of a comparison that stand where the runs come from."""


def results(found: Sequence[Subject]) -> Iterator[Panel]:
    """Accuracy, beside what others published."""
    known = [one for one in found if one.facts["accuracy"] is not None]
    if not known:
        blocks = [
            Missing(
                f"{one.text} has no result:",
                f"vitlab evaluate {one.command} --split test"
                if one.facts.finished
                else f"vitlab train --resume {one.command}",
            )
            for one in found
        ]
        yield Panel("result", "Result", say("There is no result yet"), blocks, weight=2)
        return
    rows = [
        Row(
            one.text,
            one.facts["accuracy"],
            one.facts["accuracy_interval"],
            interval_words(one),
            HUES[place % len(HUES)],
        )
        for place, one in enumerate(found)
        if one in known
    ]
    where = merged((*one.where("accuracy"), *one.where("accuracy_interval")) for one in known)
    caption = say("Accuracy with its 95 % interval over images, one trained model each.")
    if all(one.config.data.dataset == "cifar10" and one.split == "test" for one in known):
        rows += [
            Row(
                name.removesuffix("-whole"),
                published.accuracy,
                None,
                f"{percent(published.accuracy)} published",
                GREY,
                hollow=True,
            )
            for name, (_, _, published) in SYSTEMS.items()
        ]
        rows.sort(key=lambda row: -row.value)
        where = (*where, Source("vitlab", "reproduce/rows.py", "SYSTEMS"))
        caption = say(
            "Hollow: what the sources of other recipes published on these test images, one number "
            "each, of other budgets."
        )
    blocks: list[Block] = [dot_chart(rows, "accuracies", caption, where)]
    sentences = [
        *(sentence for one in known for sentence in against_published(one)),
        *(sentence for one in known for sentence in openings(one)),
    ]
    if sentences:
        blocks.append(Bullets(sentences))
    for one in found:
        if one.split != "test" and one.facts.finished:
            blocks.append(
                Missing(
                    f"{one.text} is evaluated on validation images; the final result comes from:",
                    f"vitlab evaluate {one.command} --split test",
                )
            )
    more = [result_table(known)] if len(found) == 1 else []
    yield Panel("result", "Result", headline_result(known), blocks, more, weight=9)


def interval_words(one: Subject) -> str:
    """An accuracy and its interval, shortly."""
    low, high = one.facts["accuracy_interval"]
    seen = one.facts["split"] == "validation" and one.facts["validation_seen"]
    words = f"{percent(one.facts['accuracy'])} ({points(low)} to {points(high)})"
    return words + (f", {seen:,} of the images trained on before" if seen else "")


def headline_result(known: Sequence[Subject]) -> Sentence:
    """The result in one line."""
    if len(known) > 1:
        return join(
            [say("{name} {accuracy}", name=x.name, accuracy=x.number("accuracy")) for x in known],
            ", ",
        )
    one = known[0]
    if source := published_for(one):
        return say("{ours} here, {theirs} published", ours=one.number("accuracy"), theirs=source)
    return say(
        "{accuracy} of {images} {split} images, 95 % interval {interval}",
        accuracy=one.number("accuracy"),
        images=one.number("images", whole),
        split=one.split,
        interval=one.number("accuracy_interval", between),
    )


def published_row(one: Subject) -> str | None:
    """The row of the results page whose config a run has, if it was tested on its images."""
    if one.config.data.dataset != "cifar10" or one.split != "test":
        return None
    fields = shared_fields(one.config)
    for name in (*SYSTEMS, *PUBLISHED):
        row = row_config(name)
        if shared_fields(replace(row, data=resolved(row.data))) == fields:
            return name
    return None


def published_for(one: Subject) -> Number | None:
    """What the source of a run's config published, if it has one."""
    name = published_row(one)
    if name is None or (source := published(name)) is None:
        return None
    table = "SYSTEMS" if name in SYSTEMS else "PUBLISHED"
    return Number(
        percent(source.accuracy), (Source("vitlab", "reproduce/rows.py", f"{table}.{name}"),)
    )


def against_published(one: Subject) -> Iterator[Sentence]:
    """A run beside the figure that the source of its config reports."""
    name, theirs = published_row(one), published_for(one)
    source = name and published(name)
    if not source or theirs is None:
        return
    low, high = one.facts["accuracy_interval"]
    place = "below" if source.accuracy < low else "above" if source.accuracy > high else "in"
    yield say(
        f"The source of {{recipe}} published {{theirs}}, which lies {place} the interval {{ours}}. "
        f"{source.note and f'{source.note.capitalize()}.'}",
        recipe=Name(one.config.recipe),
        theirs=theirs,
        ours=one.number("accuracy_interval", between),
    )


def openings(one: Subject) -> Iterator[Sentence]:
    """How often the test images had been opened."""
    if one.facts["test_openings"] is not None:
        yield say(
            "The ledger beside {name} counts at most {n} of these test images, this one included.",
            n=one.number("test_openings", lambda value: count(value, "opening")),
            name=one.name,
        )


def result_table(known: Sequence[Subject]) -> Table:
    """Everything measured, a column for each run, as `vitlab compare` writes it."""
    rows = []
    for title, (names, write) in comparison.ROWS.items():
        if title in IN_PROVENANCE:
            continue
        cells = []
        for one in known:
            where = merged(one.where(name) for name in names)
            words = write(one.facts.__getitem__) if where else "-"
            cells.append(Number(worst(one) if title == "worst class" else words, where))
        if any(cell.text != "-" for cell in cells):
            rows.append([title, *cells])
    return Table(["", *(one.name for one in known)], rows, "Everything measured.")


def worst(one: Subject) -> str:
    """The classes of least accuracy; a dash where no class is behind another."""
    known = by_accuracy(one.facts.result) if one.facts.result else []
    if not known or known[0][0] == known[-1][0]:
        return "-"
    names = [row["class"] for accuracy, row in known if accuracy == known[0][0]]
    return f"{listed(names)}, {percent(known[0][0])}"


def duel(found: Sequence[Subject]) -> Iterator[Panel]:
    """Runs against the first of them: the same images, and what the difference is worth."""
    if len(found) < 2:
        return
    split = "test" if all(one.split == "test" for one in found) else "validation"
    compared = compare([one.run for one in found], split)
    kinds = {one.is_cnn for one in found}
    topic = "ViT against CNN" if len(kinds) == 2 else "Against each other"
    pairs = [pair for pair in compared["models"] if pair["reason"] is None]
    wanting = [pair for pair in compared["models"] if pair["reason"] is not None]
    where = tuple(one.at(one.run.predictions(split), "logits, labels") for one in found)
    sentences = Bullets(
        [traced(without_folders(plainly(words)), *where) for words in compared["findings"]]
    )
    table = result_table(found)
    if not pairs:
        commands = [
            Missing(
                f"{one.text} has stored no answers:",
                f"vitlab evaluate {one.command} --split {split}",
            )
            for one in found
            if not one.run.predictions(split).is_file()
        ]
        headline = say("Not compared image by image")
        yield Panel("against", topic, headline, [sentences, *commands], [table], weight=7)
        return
    blocks: list[Block] = []
    for pair in pairs[:2]:
        ordered = sorted(pair["classes"], key=lambda row: -(row["difference"] or 0))
        rows = class_rows(ordered)[:MANY]
        caption = say(
            "{run} less {other}, in points, class by class; filled where the paired "
            "test, corrected over the classes, finds a difference.",
            run=Name(pair["run"]),
            other=Name(pair["against"]),
        )
        what = f"difference of {pair['run']} to {pair['against']} in each class"
        blocks.append(dot_chart(rows, what, caption, where, zero=0.0, form=style.points))
    first = pairs[0]
    counts = Table(
        ("", "images"),
        [
            [words, Number(whole(first[field]), where)]
            for words, field in (
                ("both are right", "both_right"),
                (f"only {first['run']} is right", "only_run_right"),
                (f"only {first['against']} is right", "only_against_right"),
                ("both are wrong", "both_wrong"),
                ("both say the same", "same_prediction"),
            )
        ],
        f"The same {first['images']:,} {split} images.",
    )
    word = {"better": "is better than", "worse": "is worse than"}.get(
        first["verdict"], "is not shown to differ from"
    )
    headline = say(
        f"This {{run}} {word} this {{other}}: {{difference}} points on the same images",
        run=Name(first["run"]),
        other=Name(first["against"]),
        difference=Number(signed(first["difference"]), where),
    )
    more: list[Block] = [
        sentences,
        table,
        *(Text(traced(without_folders(plainly(pair["reason"])))) for pair in wanting),
    ]
    yield Panel("against", topic, headline, [*blocks, counts], more, weight=9)
    if pictures := shared_mistakes(found[:2]):
        headline = say(
            "{n} only {run} recognises, {m} only {other}",
            n=Number(count(first["only_run_right"], "image"), where),
            run=Name(first["run"]),
            m=Number(whole(first["only_against_right"]), where),
            other=Name(first["against"]),
        )
        yield Panel("differ", "Where they differ", headline, [pictures], weight=6)


def classes(found: Sequence[Subject]) -> Iterator[Panel]:
    """What is hard, and what is taken for what."""
    pairs = evaluated(found)
    blocks: list[Block] = []
    more: list[Block] = []
    headlines = []
    if len(pairs) > 1:
        blocks += filter(None, [class_chart(pairs)])
    for one, result in pairs:
        ordered = by_accuracy(result)
        if len(pairs) == 1 and ordered:
            blocks.append(hardest(one, ordered))
        if len(result["confusion"]) <= MANY:
            target = blocks if len(blocks) < 3 else more
            target.append(matrix(one, result))
        if result["top_confusions"]:
            more.append(confusion_table(one, result))
        headlines += list(of_classes(one))[:1]
    if pairs:
        headline = (
            join(headlines[:2]) if headlines else say("Every class is recognised equally often")
        )
        yield Panel("classes", "Classes", without_stop(headline), blocks, more, weight=8)


def hardest(one: Subject, ordered: Sequence[tuple[float, ClassResult]]) -> Figure:
    """Accuracy of each class, or of the twelve hardest of many."""
    few = len(ordered) <= MANY
    rows = []
    for accuracy, row in ordered if few else ordered[:12]:
        interval = wilson(round(accuracy * row["images"]), row["images"])
        rows.append(Row(row["class"], accuracy, interval, percent(accuracy)))
    field = f"{one.split}.per_class"
    where = (one.at(RESULTS, f"{field}.accuracy"), one.at(RESULTS, f"{field}.images"))
    which = "Accuracy of each class" if few else "Accuracy of the twelve hardest classes"
    caption = say(f"{which} of {{name}}, with 95 % intervals over its images.", name=one.name)
    return dot_chart(rows, f"accuracy of classes of {one.text}, hardest first", caption, where)


def class_chart(pairs: Sequence[tuple[Subject, SplitResult]]) -> Figure | None:
    """Accuracy of each class in all runs beside each other, where the classes are the same ones."""
    names = [row["class"] for row in pairs[0][1]["per_class"]]
    if len(names) > MANY or any(
        [row["class"] for row in result["per_class"]] != names for _, result in pairs
    ):
        return None
    series = {one.text: [row["accuracy"] for row in result["per_class"]] for one, result in pairs}

    def draw(axes: Any) -> None:
        charts.class_dots(axes, series, names)
        style.legend(axes.figure, [x for x in axes.lines if x.get_label() in series])

    return chart(
        draw,
        height=charts.LINE * len(names) + 0.8,
        alt=f"accuracy of each class of {', '.join(series)}",
        caption=say("Accuracy of each class, on an axis that is cut to where they differ."),
        sources=tuple(one.at(RESULTS, f"{one.split}.per_class.accuracy") for one, _ in pairs),
    )


def matrix(one: Subject, result: SplitResult) -> Figure:
    """Which class is taken for which."""
    names = [row["class"] for row in result["per_class"]]
    caption = "{name}: how often each class (row) is taken for each other (column), and its share."
    return chart(
        charts.confusion,
        result["confusion"],
        names,
        height=charts.confusion_height(names),
        alt=f"confusion matrix of {one.text}",
        caption=say(caption, name=one.name),
        sources=(one.at(RESULTS, f"{one.split}.confusion"),),
    )


def evaluated(found: Sequence[Subject]) -> list[tuple[Subject, SplitResult]]:
    """The runs that were evaluated on their split, with what was found."""
    return [(one, one.facts.result) for one in found if one.facts.result]


def by_accuracy(result: SplitResult) -> list[tuple[float, ClassResult]]:
    """The classes that have images with their accuracies, hardest first."""
    known = [(row["accuracy"], row) for row in result["per_class"] if row["accuracy"] is not None]
    return sorted(known, key=lambda pair: pair[0])


def without_stop(sentence: Sentence) -> Sentence:
    """A sentence as a headline."""
    *pieces, last = sentence.pieces
    return Sentence((*pieces, last.rstrip(".") if isinstance(last, str) else last))


def of_classes(one: Subject) -> Iterator[Sentence]:
    """The classes that are recognised least and most often, and a frequent mistake."""
    result = one.facts.result
    if result is None:
        return
    if (known := by_accuracy(result)) and known[0][0] < known[-1][0]:
        parts = {}
        for key, accuracy in (("low", known[0][0]), ("high", known[-1][0])):
            rows = [row for value, row in known if value == accuracy]
            images = sum(row["images"] for row in rows)
            parts[key] = Number(
                f"{percent(accuracy)} of {count(images, 'image')}",
                (
                    one.at(RESULTS, f"{one.split}.per_class.accuracy"),
                    one.at(RESULTS, f"{one.split}.per_class.images"),
                ),
            )
            parts[f"{key}_names"] = listed([row["class"] for row in rows])
        yield say(
            "{name} recognises {low_names} least ({low}) and {high_names} most ({high}).",
            name=one.name,
            **parts,
        )
    if result["top_confusions"]:
        pair = result["top_confusions"][0]
        names = [row["class"] for row in result["per_class"]]
        true, predicted = names.index(pair["true"]), names.index(pair["predicted"])
        matrix, field = result["confusion"], one.at(RESULTS, f"{one.split}.confusion")
        errors = sum(map(sum, matrix)) - sum(matrix[k][k] for k in range(len(names)))
        back = matrix[predicted][true]
        yield say(
            "{name} takes {true} for {predicted}{reverse} in {n} of {errors}.",
            name=one.name,
            true=Name(pair["true"]),
            predicted=Name(pair["predicted"]),
            reverse=" or the reverse" if back else "",
            n=Number(str(matrix[true][predicted] + back), (field,)),
            errors=Number(count(errors, "mistake"), (field,)),
        )


def confusion_table(one: Subject, result: SplitResult) -> Table:
    """The most frequent mistakes."""
    field = f"{one.split}.top_confusions"
    counts = (one.at(RESULTS, f"{field}.count"),)
    parts = (one.at(RESULTS, f"{field}.share"),)
    rows = [
        [
            Name(row["true"]),
            Name(row["predicted"]),
            Number(whole(row["count"]), counts),
            Number(tenth(row["share"]), parts),
        ]
        for row in result["top_confusions"][:6]
    ]
    return Table(
        ("true class", "predicted", "images", "of all errors"), rows, "The most frequent mistakes."
    )


def confidence(found: Sequence[Subject]) -> Iterator[Panel]:
    """Whether the model knows how good it is, and where it errs."""
    pairs = evaluated(found)
    if not pairs:
        return

    def draw(axes: Any) -> None:
        for (one, result), hue in zip(pairs, HUES, strict=False):
            charts.reliability(axes, result["reliability"], hue, one.text)
        if len(pairs) > 1:
            style.legend(axes.figure, axes.collections)

    caption = say(
        "Accuracy of the images of each range of confidence, with 95 % intervals; the larger a "
        "dot, the more images. On the dashed line accuracy and confidence are equal."
    )
    where = tuple(one.at(RESULTS, f"{one.split}.reliability") for one, _ in pairs)
    alt = f"accuracy against confidence of {', '.join(one.text for one, _ in pairs)}"
    blocks: list[Block] = [chart(draw, height=4, alt=alt, caption=caption, sources=where)]
    first, result = pairs[0]
    words = "{n} mistakes at random: class, prediction, confidence."
    if mistakes := samples(first, "mistakes", words):
        blocks.append(mistakes)
    elif result["top_confusions"]:
        blocks.append(
            Missing(
                "Pictures of what it gets wrong:",
                f"vitlab evaluate {first.command} --split {first.split}",
            )
        )
    sentences = [join(list(of_confidence(one))) for one, _ in pairs]
    errors = [
        sentence
        for one, _ in pairs
        for sentence in (*of_calibration(one), *of_sets(one), *of_unknown(one), *of_audit(one))
    ]
    yield Panel(
        "confidence",
        "How sure it is",
        without_stop(sentences[0]),
        blocks,
        [Bullets([*sentences[1:], *errors])],
        weight=7,
    )


def of_confidence(one: Subject) -> Iterator[Sentence]:
    """Whether the model is as sure as it should be."""
    sure, right = one.facts["mean_confidence"], one.facts["accuracy"]
    interval = one.facts["accuracy_interval"]
    if sure is None or right is None or interval is None:
        return
    verdict = "the interval of its accuracy holds its mean confidence"
    if not interval[0] <= sure <= interval[1]:
        verdict = f"it is {'over' if sure > right else 'under'}confident"
    yield say(
        f"The mean confidence of {{name}} is {{sure}}, its accuracy {{right}}: {verdict}.",
        name=one.name,
        sure=one.number("mean_confidence"),
        right=one.number("accuracy"),
    )


def of_sets(one: Subject) -> Iterator[Sentence]:
    """How often prediction sets hold the class, at the coverage in the middle."""
    result = one.facts.result
    rows = [] if result is None else result.get("prediction_sets", [])
    if len(rows) > 1:
        row = rows[1]

        def at(field: str, words: str) -> Number:
            return Number(words, (one.at(RESULTS, f"{one.split}.prediction_sets.{field}"),))

        yield say(
            "{name}: sets of classes that are to hold the true one in {level} of the {split} "
            "images hold it in {coverage}, with {size} classes in the mean.",
            name=one.name,
            level=at("level", percent(row["level"])),
            split=one.split,
            coverage=at("coverage", percent(row["coverage"])),
            size=at("mean_size", f"{row['mean_size']:.2f}"),
        )


def of_unknown(one: Subject) -> Iterator[Sentence]:
    """How many images are called unlike the training images."""
    result = one.facts.result
    if result is not None and (found := result.get("ood")):
        share = (one.at(RESULTS, f"{one.split}.ood.unknown"),)
        yield say(
            "{name}: {share} of the {split} images are called unlike anything it was trained on, "
            "by a threshold that 95 % of the "
            + ("validation images" if found["held_out"] else "images it was trained on")
            + " stay below.",
            name=one.name,
            share=Number(percent(found["unknown"]), share),
            split=one.split,
        )


def of_audit(one: Subject) -> Iterator[Sentence]:
    """What `vitlab audit` found in its images, where it was asked."""
    file = one.run.audit / AUDIT
    if not file.exists():
        return
    found: dict[str, list[Any]] = read_json(file)

    def number(name: str, thing: str, things: str = "") -> Number:
        return Number(count(len(found[name]), thing, things), (one.at(file, name),))

    yield say(
        "In the images of {name} vitlab audit found {errors}, {copies} and {unlike}: {page}.",
        name=one.name,
        errors=number("label_errors", "probable label error"),
        copies=number("copies", "near-duplicate"),
        unlike=number("unlike", "image unlike the rest", "images unlike the rest"),
        page="audit/index.html",
    )


def of_calibration(one: Subject) -> Iterator[Sentence]:
    """The calibration error, as it is and after temperature scaling."""
    if one.facts["calibration_error"] is None:
        return
    parts: dict[str, Any] = {
        "name": one.name,
        "error": one.number("calibration_error"),
        "images": one.number("images", whole),
        "split": one.split,
    }
    words = "{name}: calibration error {error} on {images} {split} images"
    if one.facts["temperature"] is not None and one.facts["scaled_calibration_error"] is not None:
        words += ", {scaled} after its logits are divided by the temperature {temperature}"
        words += ", which was fitted on " + (
            "them" if one.split == "validation" else "{fitted} validation images"
        )
        if (one.facts["validation_images"] or 0) < FEW_FOR_TEMPERATURE:
            words += ", too few for more than a guess"
        parts |= {
            "scaled": one.number("scaled_calibration_error"),
            "temperature": one.number("temperature", lambda value: f"{value:.3f}"),
            "fitted": one.number("validation_images", whole),
        }
    yield say(f"{words}.", **parts)

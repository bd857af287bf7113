"""What runs achieved: beside what others published, against each other, class by class."""

from collections.abc import Iterator, Sequence
from typing import Any

from vitlab.compare import compare
from vitlab.compare import page as comparison
from vitlab.figures import charts, style
from vitlab.figures.charts import Row
from vitlab.figures.comparison import class_rows
from vitlab.figures.style import GREY, HUES
from vitlab.formatting import between, percent, points, signed
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
    merged,
    say,
    tenth,
    traced,
    whole,
)
from vitlab.report.pictures import chart, dot_chart, samples, shared_mistakes
from vitlab.report.subject import Subject, plainly, without_folders
from vitlab.reproduce.rows import PUBLISHED, SYSTEMS
from vitlab.run import RESULTS
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
    judged = [one for one in found if one.facts["accuracy"] is not None]
    if not judged:
        blocks = [
            Missing(
                f"{one.text} has no result on the test images:",
                f"vitlab evaluate {one.command} --split test",
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
        if one in judged
    ]
    where = merged((*one.where("accuracy"), *one.where("accuracy_interval")) for one in judged)
    first = judged[0]
    comparable = first.config.data.dataset == "cifar10" and first.split == "test"
    caption = say("Accuracy with its 95 % interval over images, one trained model each.")
    if comparable:
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
            "Hollow: what the sources of seven recipes published on these test images, "
            "one number each, of other budgets; most chose the best epoch on the test "
            "images, which is never done here."
        )
    blocks: list[Block] = [dot_chart(rows, "accuracies", caption, where)]
    blocks.append(
        Bullets(
            [
                *(s for one in judged for s in against_published(one)),
                *(s for one in judged for s in openings(one)),
            ]
        )
    )
    for one in found:
        if one.split != "test":
            blocks.append(
                Missing(
                    f"{one.text} is evaluated on validation images; the final result comes from:",
                    f"vitlab evaluate {one.command} --split test",
                )
            )
    more = [result_table(judged)] if len(found) == 1 else []
    yield Panel("result", "Result", headline_result(judged), blocks, more, weight=9)


def interval_words(one: Subject) -> str:
    """An accuracy and its interval, shortly."""
    low, high = one.facts["accuracy_interval"]
    told = f"{percent(one.facts['accuracy'])} ({points(low)} to {points(high)})"
    seen = one.facts["split"] == "validation" and one.facts["validation_seen"]
    return told + (f", {seen:,} of the images trained on before" if seen else "")


def headline_result(judged: Sequence[Subject]) -> Sentence:
    """The result in one line."""
    parts = [
        say("{name} {accuracy}", name=one.name, accuracy=one.number("accuracy")) for one in judged
    ]
    if len(judged) > 1:
        return join(parts, ", ")
    one = judged[0]
    if published := PUBLISHED.get(one.config.recipe):
        return say(
            "{ours} here, {theirs} published",
            ours=one.number("accuracy"),
            theirs=Number(percent(published.accuracy), (published_at(one),)),
        )
    return say(
        "{accuracy} of {images} {split} images, somewhere between {interval}",
        accuracy=one.number("accuracy"),
        images=one.number("images", whole),
        split=one.split,
        interval=one.number(
            "accuracy_interval", lambda value: between(value).replace(" to ", " and ")
        ),
    )


def published_at(one: Subject) -> Source:
    """Where a published figure stands."""
    return Source("vitlab", "reproduce/rows.py", f"PUBLISHED.{one.config.recipe}")


def against_published(one: Subject) -> Iterator[Sentence]:
    """A run beside the figure that its recipe's source reports."""
    published = PUBLISHED.get(one.config.recipe)
    if published is None or one.config.data.dataset != "cifar10":
        yield say(
            "{name} is a recipe of vitlab: no source published a figure for it.", name=one.name
        )
        return
    low, high = one.facts["accuracy_interval"]
    place = "below" if published.accuracy < low else "above" if published.accuracy > high else "in"
    yield say(
        f"The source of {{name}} published {{theirs}}, which lies {place} the interval {{ours}}. "
        f"{published.note.capitalize()}",
        name=one.name,
        theirs=Number(percent(published.accuracy), (published_at(one),)),
        ours=one.number("accuracy_interval", between),
    )


def openings(one: Subject) -> Iterator[Sentence]:
    """How often the test images had been opened."""
    if one.facts["test_openings"] is not None:
        yield say(
            "This was opening {n} of the test images in the folder of {name}.",
            n=one.number("test_openings", str),
            name=one.name,
        )


def result_table(judged: Sequence[Subject]) -> Table:
    """Everything measured, a column for each run, as `vitlab compare` writes it."""
    rows = []
    for title, (names, write) in comparison.ROWS.items():
        if title in IN_PROVENANCE:
            continue
        cells = []
        for one in judged:
            where = merged(one.where(name) for name in names)
            cells.append(Number(write(one.facts.__getitem__) if where else "-", where))
        if any(cell.text != "-" for cell in cells):
            rows.append([title, *cells])
    return Table(["", *(one.name for one in judged)], rows, "Everything measured.")


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
    told = Bullets(
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
        headline = say("Not compared image by image yet")
        yield Panel("against", topic, headline, [told, *commands], [table], weight=7)
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
        told,
        table,
        *(Text(traced(without_folders(plainly(pair["reason"])))) for pair in wanting),
    ]
    yield Panel("against", topic, headline, [*blocks, counts], more, weight=9)
    if pictures := shared_mistakes(found[:2]):
        headline = say(
            "{n} images only {run} recognises, {m} only {other}",
            n=Number(whole(first["only_run_right"]), where),
            run=Name(first["run"]),
            m=Number(whole(first["only_against_right"]), where),
            other=Name(first["against"]),
        )
        yield Panel("differ", "Where they differ", headline, [pictures], weight=6)


def classes(found: Sequence[Subject]) -> Iterator[Panel]:
    """What is hard, and what is taken for what."""
    judged = evaluated(found)
    blocks: list[Block] = []
    more: list[Block] = []
    headlines = []
    if len(judged) > 1:
        blocks += filter(None, [class_chart(judged)])
    for one, result in judged:
        ordered = by_accuracy(result)
        if len(judged) == 1 and ordered:
            blocks.append(hardest(one, ordered))
        if len(result["confusion"]) <= MANY:
            target = blocks if len(blocks) < 3 else more
            target.append(matrix(one, result))
        if result["top_confusions"]:
            more.append(confusion_table(one, result))
        if ordered:
            own = next(iter(of_classes(one)))
            headlines.append(
                say("{name}: {own}", name=one.name, own=own) if len(judged) > 1 else own
            )
    if judged:
        headline = join(headlines[:2]) if headlines else say("No class was evaluated")
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


def class_chart(judged: Sequence[tuple[Subject, SplitResult]]) -> Figure | None:
    """Accuracy of each class in all runs beside each other, where the classes are the same ones."""
    names = [row["class"] for row in judged[0][1]["per_class"]]
    if len(names) > MANY or any(
        [row["class"] for row in result["per_class"]] != names for _, result in judged
    ):
        return None
    series = {one.text: [row["accuracy"] for row in result["per_class"]] for one, result in judged}

    def draw(axes: Any) -> None:
        charts.class_dots(axes, series, names)
        style.legend(axes.figure, [x for x in axes.lines if x.get_label() in series])

    return chart(
        draw,
        height=charts.LINE * len(names) + 0.8,
        alt=f"accuracy of each class of {', '.join(series)}",
        caption=say("Accuracy of each class, on an axis that is cut to where they differ."),
        sources=tuple(one.at(RESULTS, f"{one.split}.per_class.accuracy") for one, _ in judged),
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
    """The hardest class, and the pair that is confused most."""
    result = one.facts.result
    if result is None:
        return
    if known := by_accuracy(result):
        (low, worst), (high, best) = known[0], known[-1]
        where = (one.at(RESULTS, f"{one.split}.per_class.accuracy"),)
        yield say(
            "Hardest is {worst} with {low}, easiest {best} with {high}.",
            worst=Name(worst["class"]),
            low=Number(percent(low), where),
            best=Name(best["class"]),
            high=Number(percent(high), where),
        )
    if result["top_confusions"]:
        pair = result["top_confusions"][0]
        where = (one.at(RESULTS, f"{one.split}.top_confusions.pair_share"),)
        yield say(
            "{true} and {predicted}, taken for one another, make {share} of all errors.",
            true=Name(pair["true"]),
            predicted=Name(pair["predicted"]),
            share=Number(tenth(pair["pair_share"]), where),
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
    judged = evaluated(found)
    if not judged:
        return

    def draw(axes: Any) -> None:
        for (one, result), hue in zip(judged, HUES, strict=False):
            charts.reliability(axes, result["reliability"], hue, one.text)
        if len(judged) > 1:
            style.legend(axes.figure, axes.collections)

    caption = say(
        "How often it is right where it is so sure, with 95 % intervals; a dot is as large as it "
        "has images. On the dashed line a model is as sure as it should be."
    )
    where = tuple(one.at(RESULTS, f"{one.split}.reliability") for one, _ in judged)
    alt = f"accuracy against confidence of {', '.join(one.text for one, _ in judged)}"
    blocks: list[Block] = [chart(draw, height=4, alt=alt, caption=caption, sources=where)]
    first, _ = judged[0]
    if mistakes := samples(first, "mistakes", "mistakes at random: class, prediction, confidence"):
        blocks.append(mistakes)
    else:
        blocks.append(
            Missing(
                "Pictures of what it gets wrong:",
                f"vitlab evaluate {first.command} --split {first.split}",
            )
        )
    sentences = [join(list(of_confidence(one))) for one, _ in judged]
    errors = [
        say(
            "{name}: calibration error {error}.",
            name=one.name,
            error=one.number("calibration_error"),
        )
        for one, _ in judged
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
    if sure is None or right is None:
        return
    yield say(
        f"On average {{name}} is {{sure}} sure, and right on {{right}}: {how_sure(sure, right)}.",
        name=one.name,
        sure=one.number("mean_confidence"),
        right=one.number("accuracy"),
    )


def how_sure(sure: float, right: float) -> str:
    """Confidence against accuracy, in words."""
    if abs(sure - right) < 0.01:
        return "it knows how good it is"
    return "it is surer than it should be" if sure > right else "it is less sure than it may be"

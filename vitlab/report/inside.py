"""What is inside of models: how they are built, what they look at, what their layers know."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vitlab.config import ViTConfig
from vitlab.formatting import between
from vitlab.report import architecture, drawing, techniques
from vitlab.report.document import (
    Block,
    Bullets,
    Figure,
    Key,
    Missing,
    Name,
    Number,
    Panel,
    Pictures,
    Sentence,
    Sources,
    Text,
    Word,
    Words,
    join,
    say,
    tenth,
    traced,
    whole,
)
from vitlab.report.drawing import LOOKS
from vitlab.report.pictures import large
from vitlab.report.subject import Subject, read_existing
from vitlab.run import CONFIG

BESIDE = 4
"""Techniques that stand beside the drawing of a model; the others follow."""


def models(found: Sequence[Subject]) -> Iterator[Panel]:
    """The models, drawn from their configs."""
    blocks: list[Block] = []
    more: list[Block] = []
    headlines = []
    rest: list[Word] = []
    for one in found:
        if not one.config.data.resolved:
            blocks.append(
                Missing(
                    f"{one.text} does not know its images yet.",
                    f"vitlab train --resume {one.command}",
                )
            )
            continue
        blocks.append(model_figure(one))
        headlines.append(in_words(one))
        words = techniques.of_model(one.config.model)
        where = (one.at(CONFIG, "model"),)
        if len(found) > 1:
            more += [Text(say("How {name} works:", name=one.name)), Words(words, where)]
            continue
        blocks.append(Words(words[:BESIDE], where))
        rest = words[BESIDE:]
    if not headlines:
        headlines = [say("The model is drawn once its images are known")]
    yield Panel(
        "model",
        "The model" if len(found) == 1 else "The models",
        join(headlines, "; "),
        blocks,
        more,
        weight=8,
    )
    if rest:
        yield parts(rest, found[0].name, (found[0].at(CONFIG, "model"),))


def parts(rest: Sequence[Word], name: Name, where: Sources) -> Panel:
    """The techniques of a model that do not stand beside its drawing."""
    headline = say(
        "{n} more choices make {name} what it is", n=Number(str(len(rest)), where), name=name
    )
    return Panel("parts", "How its parts work", headline, [Words(rest, where)], weight=5)


def in_words(one: Subject) -> Sentence:
    """A model in one line."""
    cfg, at = one.config.model, one.at(CONFIG, "model")
    size = one.config.data.image_size
    assert size
    if isinstance(cfg, ViTConfig):
        rows, columns = cfg.grid(size)
        where = (at, one.at(CONFIG, "data.image_size"))
        return say(
            "{name} reads an image as {patches} patches, in {depth} blocks of width {width}",
            name=one.name,
            patches=Number(str(rows * columns), where),
            depth=Number(str(cfg.depth), (at,)),
            width=Number(str(cfg.width), (at,)),
        )
    return say(
        "{name} is a {kind} of width {width}",
        name=one.name,
        kind=architecture.KINDS[cfg.kind],
        width=Number(str(cfg.width), (at,)),
    )


def model_figure(one: Subject) -> Figure:
    """A run's model, drawn."""
    stored = one.weights()
    where = [one.at(CONFIG, "model"), one.at(CONFIG, "data.image_size")]
    caption = say("{name}, from its config.", name=one.name)
    if stored:
        where.append(stored[1])
        caption = say(
            "{name}, from its config; shares of {parameters} parameters from its weights.",
            name=one.name,
            parameters=one.number("parameters", whole),
        )
    kind = architecture.KINDS[one.config.model.kind]
    steps = ", ".join(part.name for part in architecture.parts(one.config))
    alt = f"{one.text}, a {kind}, from image to answer: {steps}"
    return Figure(
        architecture.draw(one.config, stored and stored[0], alt),
        alt,
        caption,
        tuple(where),
        tall=True,
    )


def looks(found: Sequence[Subject]) -> Iterator[Panel]:
    """What the models look at, and whether that is true."""
    for one in found:
        file = faithfulness(one)
        key = f"looks-{found.index(one) + 1}" if len(found) > 1 else "looks"
        topic = f"What {one.text} looks at" if len(found) > 1 else "What it looks at"
        if file is None:
            yield Panel(
                key,
                topic,
                say("Nobody has asked {name} yet", name=one.name),
                [
                    Missing(
                        "Maps of what it looks at, and which of them are true:",
                        f"vitlab explain {one.command}",
                    )
                ],
                weight=0,
            )
            continue
        judged, folder = read_existing(file), file.parent
        gains = (one.at(file, "methods.gain"),)
        rows = [
            drawing.Row(
                row["method"],
                row["gain"]["mean"],
                row["gain"]["interval"],
                f"{row['gain']['mean']:+.3f}",
                "s1" if "verdict" in row else "s6",
                "verdict" not in row,
            )
            for row in judged["methods"]
        ]
        alt = "gain of each map: " + ", ".join(f"{row.name} {row.words}" for row in rows)
        caption = say(
            "What each map gains over chance when patches are covered and uncovered in "
            "its order, on {n} {split} images, 95 % intervals. Hollow: maps that know "
            "neither image nor model.",
            n=Number(whole(judged["images"]), (one.at(file, "images"),)),
            split=judged["split"],
        )
        chart = drawing.dots(rows, alt=alt, form=drawing.plain_tick, zero=0.0)
        blocks: list[Block] = [Figure(chart, alt, caption, gains)]
        drawn = sorted(path for path in folder.glob("*.png") if not _aside(path))
        shown = [large(path, f"maps of {one.text} for the image {path.stem}") for path in drawn[:3]]
        pictures = [picture for picture in shown if picture]
        if pictures:
            words = say("The image, and what each method says the answer rests on.")
            where = (one.at(f"{folder.relative_to(one.run.path).as_posix()}/", "*.png"),)
            blocks.append(Pictures(pictures[:1], words, where, large=True))
        verdicts = [row for row in judged["methods"] if "verdict" in row]
        more: list[Block] = []
        if len(pictures) > 1:
            more.append(
                Pictures(pictures[1:], say("More images, drawn at random."), (), large=True)
            )
        more.append(
            Bullets(
                [
                    say(
                        "{method}: {verdict}; gain {gain}, 95 % interval {interval}.",
                        method=row["method"],
                        verdict=row["verdict"],
                        gain=Number(f"{row['gain']['mean']:+.3f}", gains),
                        interval=Number(
                            between(row["gain"]["interval"], lambda v: f"{v:+.3f}"), gains
                        ),
                    )
                    for row in verdicts
                ]
            )
        )
        yield Panel(key, topic, truest(one, verdicts, gains), blocks, more, weight=6)


def faithfulness(one: Subject) -> Path | None:
    """The file of a run that says how faithful its maps are, if it has one."""
    files = (one.run.faithfulness_file(split) for split in ("validation", "test"))
    return next((file for file in files if file.is_file()), None)


def _aside(path: Path) -> bool:
    known = {"faithfulness", "filters", "distance", "positions"}
    return path.stem in known or path.stem.endswith(("-attention", "-features"))


def truest(one: Subject, verdicts: Sequence[dict[str, Any]], where: Sources) -> Sentence:
    """Which map to believe."""
    trusted = [row for row in verdicts if row["verdict"].startswith("beats both")]
    if not trusted:
        return say(
            "No map of {name} is shown to beat both a random one and the centre", name=one.name
        )
    best = max(trusted, key=lambda row: row["gain"]["mean"])
    refuted = len(verdicts) - len(trusted)
    return say(
        "{best} is the truest of {n} maps of {name}; {refuted} are not shown to beat both chance "
        "and the centre",
        best=best["method"],
        n=Number(str(len(verdicts)), where),
        name=one.name,
        refuted=Number(str(refuted), where),
    )


def knowledge(found: Sequence[Subject]) -> Iterator[Panel]:
    """What the layers know: probes, and PCA of features."""
    for one in found:
        known = read_existing(one.run.features_file)
        key = f"features-{found.index(one) + 1}" if len(found) > 1 else "features"
        topic = f"What the layers of {one.text} know" if len(found) > 1 else "What its layers know"
        if not known or not known.get("runs"):
            yield Panel(
                key,
                topic,
                say("The layers of {name} were not looked at", name=one.name),
                [
                    Missing(
                        "PCA of the features of every layer, and what probes read there:",
                        f"vitlab features {one.command}",
                    )
                ],
                weight=0,
            )
            continue
        facts = known["runs"][0]
        file = one.run.features_file
        series, legend, where = [], [], []
        for place, (kind, words) in enumerate(
            (
                ("pooled", "mean of the patch tokens"),
                ("cls", "CLS token"),
                ("patch", "one patch token"),
            )
        ):
            line = [
                (number, layer[kind]["linear_probe"])
                for number, layer in enumerate(facts["layers"])
                if layer[kind]
            ]
            if line:
                series.append(drawing.Series(LOOKS[place], line, True))
                legend.append(Key(LOOKS[place], words))
                where.append(one.at(file, f"runs.layers.{kind}.linear_probe"))
        alt = f"accuracy of linear probes in every layer of {one.text}"
        chart = drawing.lines(
            series, alt=alt, across="layer", form=drawing.percent_tick, low=0.0, high=1.0
        )
        images = (one.at(file, "images"),)
        caption = say(
            "What a linear probe reads in each layer, fitted on {fitted} training images "
            "and evaluated on {n} validation images.",
            fitted=Number(whole(known["images"]["fitted"]), images),
            n=Number(whole(known["images"]["measured"]), images),
        )
        blocks: list[Block] = [Figure(chart, alt, caption, tuple(where), legend)]
        drawn = [
            (
                f"pca-{facts['image']}",
                "Validation images by the first two principal "
                "components of their features, in several layers.",
            ),
            (
                "components",
                "The first three principal components of the patch tokens, as red, green and blue.",
            ),
        ]
        more: list[Block] = []
        for name, words in drawn:
            drawing_file = one.run.features / f"{name}.png"
            picture = large(drawing_file, f"{words} {one.text}")
            if picture:
                target = blocks if len(blocks) == 1 else more
                target.append(
                    Pictures([picture], say(words), (one.at(drawing_file, "all"),), large=True)
                )
        first, last = facts["layers"][0], facts["layers"][-1]
        probe = tuple(where)
        headline = say(
            "A linear probe reads the class of {start} of images in the first layer of {name}, of "
            "{end} in the last",
            start=Number(tenth(first["pooled"]["linear_probe"]), probe),
            name=one.name,
            end=Number(tenth(last[facts["image"]]["linear_probe"]), probe),
        )
        told = [traced(words, one.at(file, "sentences")) for words in known["sentences"]]
        yield Panel(key, topic, headline, blocks, [*more, Bullets(told)], weight=6)

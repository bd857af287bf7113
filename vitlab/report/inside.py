"""What is inside of models: how they are built, what they look at, what their layers know."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vitlab.config import MODEL_NAMES, BackboneConfig, Config, ViTConfig
from vitlab.figures import features as figures
from vitlab.figures import style
from vitlab.figures.explanation import gains
from vitlab.formatting import between, count
from vitlab.records import PASSED
from vitlab.report import architecture, techniques
from vitlab.report.document import (
    Block,
    Bullets,
    Figure,
    Missing,
    Name,
    Number,
    Panel,
    Pictures,
    Sentence,
    Source,
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
from vitlab.report.pictures import chart, dot_chart, large
from vitlab.report.subject import Subject, read_existing
from vitlab.run import CONFIG

BEATEN = "beats the random map and the centre map"
"""What a passed test comes to, in a sentence."""

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
    n = Number(count(len(rest), "more design choice"), where)
    headline = say("{n} of {name}", n=n, name=name)
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
            "{name} reads an image as {patches} patches, in {depth} of width {width}",
            name=one.name,
            patches=Number(str(rows * columns), where),
            depth=Number(count(cfg.depth, "block"), (at,)),
            width=Number(str(cfg.width), (at,)),
        )
    if isinstance(cfg, BackboneConfig):
        head = "its head alone was fitted" if one.config.optim.optimizer == "lbfgs" else "it learns"
        return say(
            f"{{name}} is a pretrained network, {{backbone}}, that sees {{pixels}} pixels; {head}",
            name=one.name,
            backbone=Number(one.shown(cfg.name), (at,)),
            pixels=Number(" x ".join(map(str, cfg.input_size or ())), (at,)),
        )
    return say(
        "{name} is a {kind} of width {width}",
        name=one.name,
        kind=MODEL_NAMES[cfg.kind],
        width=Number(str(cfg.width), (at,)),
    )


def model_figure(one: Subject) -> Figure:
    """A run's model, drawn."""
    where = (one.at(CONFIG, "model"), one.at(CONFIG, "data.image_size"))
    caption = say(
        "{name}, from its config, with the shape that each part hands on and its share of the "
        "parameters.",
        name=one.name,
    )
    drawing, alt = drawn(one.config, one.text)
    return Figure(drawing, alt, caption, where, tall=True)


def drawn(config: Config, name: str) -> tuple[Markup, str]:
    """The drawing of a config's model, and the same in words."""
    steps = ", ".join(part.name for part in architecture.parts(config))
    alt = f"{name}, a {MODEL_NAMES[config.model.kind]}, from image to answer: {steps}"
    return architecture.draw(config, alt), alt


def looks(found: Sequence[Subject]) -> Iterator[Panel]:
    """What the models look at, and whether that is true."""
    for one in found:
        file = faithfulness(one)
        key, topic = _named("looks", "What {} looks at", one, found)
        if file is None:
            yield Panel(
                key,
                topic,
                say("The maps of {name} were not tested", name=one.name),
                [
                    Missing(
                        "Maps of what it looks at, and which of them pass their test:",
                        f"vitlab explain {one.command}",
                    )
                ],
                weight=0,
            )
            continue
        tested, folder = read_existing(file), file.parent
        gained = (one.at(file, "methods.gain"),)
        rows = gains(tested["methods"])
        level = Number(f"{100 * tested['level']:.0f} %", (one.at(file, "level"),))
        caption = say(
            "The gain of each map: how much higher the probability of the class is while cells are "
            "uncovered in its order than while they are covered, on {n} {split} images, "
            "{level} intervals. Hollow: maps that know neither image nor model.",
            n=Number(whole(tested["images"]), (one.at(file, "images"),)),
            level=level,
            split=tested["split"],
        )
        options = {"zero": 0.0, "form": style.plainly}
        blocks: list[Block] = [dot_chart(rows, "gain of each map", caption, gained, **options)]
        files = sorted(path for path in folder.glob("*.png") if not _aside(path))
        shown = [
            large(path.with_suffix(""), f"maps of {one.text} for the image {path.stem}")
            for path in files[:3]
        ]
        pictures = [picture for picture in shown if picture]
        if pictures:
            words = say("The image, and what each method says the answer rests on.")
            where = (one.at(f"{folder.relative_to(one.run.path).as_posix()}/", "*.png"),)
            blocks.append(Pictures(pictures[:1], words, where, large=True))
        verdicts = [row for row in tested["methods"] if "verdict" in row]
        more: list[Block] = []
        if len(pictures) > 1:
            more.append(Pictures(pictures[1:], say("More images."), (), large=True))
        more.append(
            Bullets(
                [
                    say(
                        "{method}: {verdict}; gain {gain}, {level} interval {interval}.",
                        method=row["method"],
                        verdict=row["verdict"].replace(PASSED, BEATEN),
                        level=level,
                        gain=Number(f"{row['gain']['mean']:+.3f}", gained),
                        interval=Number(
                            between(row["gain"]["interval"], lambda v: f"{v:+.3f}"), gained
                        ),
                    )
                    for row in verdicts
                ]
            )
        )
        yield Panel(key, topic, truest(one, verdicts, gained), blocks, more, weight=6)


def faithfulness(one: Subject) -> Path | None:
    """The file of a run that says how faithful its maps are, if it has one of these weights."""
    weights = one.facts["checkpoint_sha256"]
    for file in (one.run.faithfulness_file(split) for split in ("validation", "test")):
        known = file.is_file() and read_existing(file).get("checkpoint_sha256", weights)
        if file.is_file() and weights in (None, known):
            return file
    return None


def _aside(path: Path) -> bool:
    known = {"faithfulness", "filters", "distance", "positions"}
    return path.stem in known or path.stem.endswith(("-attention", "-features"))


def truest(one: Subject, verdicts: Sequence[dict[str, Any]], where: Sources) -> Sentence:
    """Which map to believe."""
    passed = [row for row in verdicts if row["verdict"] == PASSED]
    best = max(passed, key=lambda row: row["gain"]["mean"], default=None)
    return say(
        "{n} of {all} maps of {name} passed their test"
        + ("; the gain of {best} is largest" if best else ""),
        n=Number(str(len(passed)), where),
        all=Number(str(len(verdicts)), where),
        name=one.name,
        best=best["method"] if best else "",
    )


def features_file(one: Subject, found: Sequence[Subject]) -> Path | None:
    """Where `features` measured a run: by itself, or beside another one of the report."""
    folder = one.run.path.resolve().parent / "features"
    pairs = [
        folder / f"{a.run.name}-{b.run.name}" / one.run.features_file.name
        for a in found
        for b in found
        if a is not b and one in (a, b)
    ]
    files = [*(pairs if len(found) > 1 else ()), one.run.features_file]
    return next((file for file in files if file.is_file()), None)


PICTURED = {
    "components": "The first three principal components of the patch tokens, as red, green and "
    "blue, for an image of each class that is named.",
    "pca": "Validation images by the first two principal components of their features, in several "
    "layers.",
    "tsne": "The same by t-SNE, which keeps neighbours together.",
}
"""Figures that `features` draws, in words."""


def knowledge(found: Sequence[Subject]) -> Iterator[Panel]:
    """What the layers know: probes, and PCA of features, of runs measured together in one panel."""
    groups: dict[Path, list[Subject]] = {}
    for one in found:
        file = features_file(one, found)
        if file is None:
            key, topic = _named("features", "What the layers of {} know", one, found)
            missing = Missing(
                "PCA of the features of every layer, and what probes read there:",
                f"vitlab features {one.command}",
            )
            headline = say("The layers of {name} were not looked at", name=one.name)
            yield Panel(key, topic, headline, [missing], weight=0)
        else:
            groups.setdefault(file, []).append(one)
    for file, group in groups.items():
        yield from measured_layers(file, group, found)


def _named(key: str, topic: str, one: Subject, found: Sequence[Subject]) -> tuple[str, str]:
    """Address and topic of a panel of one run among several."""
    if len(found) == 1:
        return key, topic.replace("the layers of {}", "its layers").replace("{} looks", "it looks")
    return f"{key}-{found.index(one) + 1}", topic.format(one.text)


def measured_layers(
    file: Path, group: Sequence[Subject], found: Sequence[Subject]
) -> Iterator[Panel]:
    """What probes read in every layer of one run, or of two beside each other."""
    known = read_existing(file)
    if not known or not known.get("runs"):
        return
    first = group[0]
    key, topic = _named("features", "What the layers of {} know", first, found)
    if len(group) > 1:
        topic = "What their layers know"

    def at(field: str) -> Source:
        if file.is_relative_to(first.run.path):
            return first.at(file, field)
        return Source(f"features/{file.parent.name}", file.name, field)

    facts = known["runs"]
    probes = tuple(
        at(f"runs.layers.{kind}.linear_probe")
        for kind in figures.KINDS
        if any(layer[kind] for run in facts for layer in run["layers"])
    )
    caption = say(
        "What a linear probe reads in each layer, fitted on {fitted} training images and evaluated "
        "on {n} validation images.",
        fitted=Number(whole(known["images"]["fitted"]), (at("images"),)),
        n=Number(whole(known["images"]["measured"]), (at("images"),)),
    )
    names = ", ".join(run["run"] for run in facts)
    probed = chart(
        figures.depth,
        facts,
        "linear_probe",
        height=3.2 + 0.15 * len(facts),
        alt=f"accuracy of linear probes in every layer of {names}",
        caption=caption,
        sources=probes,
    )
    drawn = {
        name: large(file.parent / name, f"{PICTURED[name.partition('-')[0]]} {names}")
        for name in ("components", *(f"{how}-{facts[0]['image']}" for how in ("pca", "tsne")))
    }
    pictures = [
        Pictures([picture], say(PICTURED[name.partition("-")[0]]), (at("sentences"),), large=True)
        for name, picture in drawn.items()
        if picture
    ]
    statements = [traced(words, at("sentences")) for words in known["sentences"]]
    # The first sentence of each run stands beside the chart, the others on the page only.
    first_of = {run["run"]: next((k for k, one in enumerate(statements)
                if str(one).startswith(f"{run['run']}:")), 0) for run in facts}  # fmt: skip
    said = Bullets([statements[k] for k in dict.fromkeys(first_of.values())])
    rest = Bullets([one for k, one in enumerate(statements) if k not in first_of.values()])
    starts = facts[0]["layers"][0], facts[0]["layers"][-1]
    headline = say(
        "A linear probe is right on {start} of {n} validation images from the first layer of "
        "{name}, on {end} from the last",
        n=Number(whole(known["images"]["measured"]), (at("images"),)),
        start=Number(tenth(starts[0]["pooled"]["linear_probe"]), probes),
        name=Name(facts[0]["run"]),
        end=Number(tenth(starts[1][facts[0]["image"]]["linear_probe"]), probes),
    )
    yield Panel(key, topic, headline, [probed, said], [rest, *pictures[2:]], weight=7)
    if pictures:
        words = "{a} beside {b}, in colours" if len(facts) > 1 else "The tokens of {a} in colours"
        names_ = {"a": Name(facts[0]["run"]), "b": Name(facts[-1]["run"])}
        what = "Their patch tokens" if len(facts) > 1 else "Its patch tokens"
        yield Panel(
            f"{key}-patches", what, say(words, **names_), pictures[:1], pictures[1:2], weight=6
        )

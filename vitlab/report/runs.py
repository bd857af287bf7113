"""What a report says of runs: a panel for each question, its headline computed from the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from vitlab.config import ViTConfig
from vitlab.data.known import KNOWN
from vitlab.figures import style
from vitlab.figures import training as figures
from vitlab.figures.charts import Line
from vitlab.formatting import between, count, minutes, percent, points, signed
from vitlab.recipes import ALL_RECIPES
from vitlab.report import architecture, techniques
from vitlab.report.document import (
    Block,
    Bullets,
    Figure,
    Missing,
    Name,
    Number,
    Panel,
    Report,
    Sentence,
    Source,
    Table,
    Text,
    Tile,
    Tiles,
    Words,
    join,
    listed,
    millions,
    say,
    tenth,
    whole,
)
from vitlab.report.inside import faithfulness, features_file, knowledge, looks, models
from vitlab.report.pictures import line_chart, samples
from vitlab.report.results import classes, confidence, duel, of_classes, of_confidence, results
from vitlab.report.subject import Subject
from vitlab.run import CONFIG, FINISHED, METRICS, PROVENANCE, RESULTS

IDEAS = 7
"""Most hypotheses of a report."""


def report(found: Sequence[Subject]) -> Report:
    """The report of one run, or of several beside each other."""
    panels = [
        in_short(found),
        data(found[0]),
        *models(found),
        *training(found),
        *curves(found),
        *results(found),
        *duel(found),
        *classes(found),
        *confidence(found),
        *looks(found),
        *knowledge(found),
        limits(found),
        trials(found),
        provenance(found),
    ]
    return Report(
        title=" and ".join(one.text for one in found),
        question=question(found),
        cover=cover(found),
        about=about(found),
        panels=panels,
    )


def question(found: Sequence[Subject]) -> Sentence:
    """What the runs were made to find out."""
    first = found[0]
    if len(found) > 1:
        names = join([Sentence((one.name,)) for one in found[:-1]], ", ")
        return say(
            "{names} or {last}: which one knows {data} better, and at what cost?",
            names=names,
            last=found[-1].name,
            data=first.dataset,
        )
    size = first.number("parameters", millions)
    kind = architecture.KINDS[first.config.model.kind]
    if first.facts["parameters"] is None:
        return say(f"What does a {kind} learn from the images of {{data}}?", data=first.dataset)
    return say(
        f"What does a {kind} of {{size}} parameters learn from the images of {{data}}?",
        size=size,
        data=first.dataset,
    )


def about(found: Sequence[Subject]) -> Sentence:
    """What the runs are."""
    return join([of_recipe(one) for one in found])


def of_recipe(one: Subject) -> Sentence:
    """What a run's recipe is, in its own first sentence."""
    recipe = one.config.recipe
    idea = (ALL_RECIPES[recipe].__doc__ or "").split("\n")[0] if recipe in ALL_RECIPES else ""
    return say(
        "{name}: {idea}", name=one.name, idea=idea.replace("`", "") or "a config of its own."
    )


def cover(found: Sequence[Subject]) -> Tiles:
    """The numbers that come first."""
    if len(found) > 1:
        return Tiles([accuracy_tile(one, one.text) for one in found])
    one = found[0]
    return Tiles(
        [
            accuracy_tile(one, f"{one.split} accuracy"),
            Tile(
                one.number("parameters", millions),
                "parameters",
                say("{macs} multiply-adds an image", macs=one.number("macs", millions)),
            ),
            Tile(
                one.number("process_seconds", minutes),
                "of processor time",
                say("{epochs} epochs", epochs=one.number("epochs", whole)),
            ),
        ]
    )


def accuracy_tile(one: Subject, what: str) -> Tile:
    """A run's accuracy with its interval."""
    more = say("{interval}, n = 1", interval=one.number("accuracy_interval", between))
    return Tile(one.number("accuracy"), what, more)


def in_short(found: Sequence[Subject]) -> Panel:
    """What was found, in sentences."""
    first = found[0]
    sentences = [sentence for one in found for sentence in findings(one, brief=len(found) > 1)]
    if first.facts["accuracy"] is None:
        headline = say("{name} has not been evaluated yet", name=first.name)
        sentences.append(say("There is no accuracy to speak of before it is."))
    elif len(found) == 1:
        headline = say(
            "{name} is right on {accuracy} of the {split} images",
            name=first.name,
            accuracy=first.number("accuracy"),
            split=first.split,
        )
    else:
        best = max(found, key=lambda one: one.facts["accuracy"] or 0)
        headline = say(
            "{name} is right most often, on {accuracy} of the {split} images",
            name=best.name,
            accuracy=best.number("accuracy"),
            split=best.split,
        )
    return Panel("short", "In short", headline, [Bullets(sentences)], weight=9)


def findings(one: Subject, brief: bool) -> Iterator[Sentence]:
    """What a run's numbers say."""
    if one.facts["accuracy"] is not None:
        yield say(
            "{name}: {accuracy} of {images} {split} images, 95 % interval {interval} over images "
            "for this one trained model.",
            name=one.name,
            accuracy=one.number("accuracy"),
            images=one.number("images", whole),
            split=one.split,
            interval=one.number("accuracy_interval", between),
        )
    if (gap := one.facts["generalisation_gap"]) is not None:
        words = "Clean training images: {train}, so {gap} points more than new ones."
        if gap < 0:
            words = "Clean training images: {train}, so {gap} points less than new ones."
        yield say(
            words,
            train=one.number("train_accuracy"),
            gap=one.number("generalisation_gap", lambda value: points(abs(value))),
        )
    if not brief:
        yield from of_classes(one)
        yield from of_confidence(one)
    if one.facts["parameters"] is not None:
        yield say(
            "{name} has {parameters} parameters and takes {macs} multiply-adds for an image; "
            "training took {time} of processor time.",
            name=one.name,
            parameters=one.number("parameters", whole),
            macs=one.number("macs", millions),
            time=one.number("process_seconds", minutes),
        )


def data(one: Subject) -> Panel:
    """Which images, how many, and how they were split."""
    facts: Mapping[str, Any] = one.facts.provenance["data"] if one.facts.provenance else {}
    known = KNOWN.get(one.config.data.dataset)
    size = one.config.data.image_size or (0, 0)
    channels = {1: "grey", 3: "colour"}.get(one.config.data.channels or 0, "")
    rows = []
    uses = {
        "train": "learns from them",
        "validation": "choices are made on them",
        "test": "the last word",
    }
    for split, use in uses.items():
        number = facts.get(f"{split}_images")
        where = (one.at(PROVENANCE, f"data.{split}_images"),)
        sha = facts.get("split_sha256", {}).get(split)
        whence = (one.at(PROVENANCE, f"data.split_sha256.{split}"),)
        judged = one.facts.results.get(split)
        if number is None and judged:
            number, where = judged["images"], (one.at(RESULTS, f"{split}.images"),)
            sha, whence = judged["index_sha256"], (one.at(RESULTS, f"{split}.index_sha256"),)
        if number is not None:
            rows.append(
                [split, Number(whole(number), where), use, Number(sha[:12], whence) if sha else "-"]
            )
    if skipped := facts.get("skipped_images"):
        where = (one.at(PROVENANCE, "data.skipped_images"),)
        rows.append(["left out", Number(whole(skipped), where), "could not be read", "-"])
    if seen := facts.get("validation_seen"):
        where = (one.at(PROVENANCE, "data.validation_seen"),)
        told = "validation images that the weights it started from were trained on"
        rows.append(["seen before", Number(whole(seen), where), told, "-"])
    names = facts.get("class_names", [])
    headline = say(
        "{data}: {summary}",
        data=one.dataset,
        summary=known.summary if known else "images of your own",
    )
    where = (
        one.at(PROVENANCE, "data.class_names"),
        one.at(CONFIG, "data.image_size"),
    )
    shape = say(
        "{size} pixels, {channels}, {classes}: {names}.",
        size=Number(f"{size[0]} x {size[1]}", where[1:]),
        channels=channels,
        classes=Number(count(len(names), "class").replace("classs", "classes"), where[:1]),
        names=listed(names),
    )
    if not names:
        missing = Missing(
            "The run has not begun, so its data is not known.",
            f"vitlab train --resume {one.command}",
        )
        return Panel("data", "Data", headline, [missing], weight=2)
    blocks: list[Block] = [Text(shape)]
    if rows:
        blocks.append(Table(("split", "images", "what for", "hash of its images"), rows))
    if pictures := samples(one, "random", "16 {split} images drawn at random, with their class"):
        blocks.append(pictures)
    place = one.shown(one.config.data.dataset)
    more = [
        Missing(
            "Colours, samples of each class, near-duplicates and maps of the data:",
            f"vitlab explore {place}",
        )
    ]
    return Panel("data", "Data", headline, blocks, more, weight=8)


def training(found: Sequence[Subject]) -> Iterator[Panel]:
    """How each technique of the training works."""
    first = found[0]
    words = {one.text: list(techniques.of_training(one.config)) for one in found}
    shared = [word for word in words[first.text] if all(word in own for own in words.values())]
    where = tuple(one.at(CONFIG, part) for one in found for part in ("augment", "optim"))
    train = first.config.train
    headline = say(
        "{epochs} epochs in batches of {batch}, with {n}",
        epochs=Number(str(train.epochs), (first.at(CONFIG, "train.epochs"),)),
        batch=Number(str(train.batch_size), (first.at(CONFIG, "train.batch_size"),)),
        n=Number(count(len(shared), "technique"), where),
    )
    if len(found) > 1:
        headline = say("{n} in all of them", n=Number(count(len(shared), "technique"), where))
    more: list[Block] = []
    for one in found:
        own = [word for word in words[one.text] if word not in shared]
        if own:
            more += [Text(say("Only in {name}:", name=one.name)), Words(own, where)]
    blocks: list[Block] = [Words(shared, where)] if shared else [Text(say("Nothing is shared."))]
    yield Panel("training", "How it was trained", headline, blocks, more, weight=5)


def curves(found: Sequence[Subject]) -> Iterator[Panel]:
    """Loss and accuracy over epochs."""
    judged = [one for one in found if any("accuracy" in line for line in one.facts.metrics)]
    topic = "Training curves"
    if not judged:
        one = found[0]
        yield Panel(
            "curves",
            topic,
            say("Nothing was measured during training yet"),
            [
                Missing(
                    "Curves appear with the first validation:",
                    f"vitlab train --resume {one.command}",
                )
            ],
            weight=2,
        )
        return
    blocks: list[Block] = [*filter(None, (curve(judged, name) for name in CURVES))]
    sentences = [sentence for one in judged for sentence in of_training(one)]
    ends = [of_end(one) for one in judged]
    head = ends[0] if len(ends) == 1 else join([*ends[:2]], "; ")
    if sentences:
        blocks.append(Bullets(sentences))
    yield Panel("curves", topic, head, blocks, weight=8)


CURVES = {
    "accuracy": ("Accuracy over epochs.", style.percent, None),
    "loss": ("Loss over epochs.", style.plainly, 0.0),
    "lr": ("Learning rate over epochs.", style.plainly, 0.0),
    "seconds": ("Seconds for one epoch, from the pace of its batches.", style.plainly, 0.0),
}
"""What is drawn over epochs: its caption, how a number is written, and the least of the axis."""


def curve(judged: Sequence[Subject], name: str) -> Figure | None:
    """One number of the metrics over epochs: validation solid, clean training images dashed."""
    own = name in ("lr", "seconds")
    splits = {"train": ""} if own else {"validation": "", "train_clean": "clean training images"}
    field = "images_per_second" if name == "seconds" else name
    series, where = [], []
    hues = style.colours([one.text for one in judged])
    for one in judged:
        for split, words in splits.items():
            points = figures.points(one.facts.metrics, split, field)
            if name == "seconds":
                images = one.facts["train_images"] or 0
                points = [(epoch, images / pace) for epoch, pace in points if pace and images]
            if not points:
                continue
            parts = [one.text] * (len(judged) > 1) + [words or split] * (not own)
            label = ", ".join(parts) or one.text
            dash = "--" if words else "-"
            series.append(Line(label, points, hues[one.text], dash))
            where.append(one.at(METRICS, f"{split} {field}"))
    if not series:
        return None
    words, form, low = CURVES[name]
    return line_chart(series, name, say(words), tuple(where), form=form, low=low)


def of_end(one: Subject) -> Sentence:
    """Where the curves end."""
    lines = [x for x in one.facts.metrics if x["split"] == "validation" and "accuracy" in x]
    train = one.number("train_accuracy")
    if not lines:
        return say("{name} ends at {train} on clean training images", name=one.name, train=train)
    value = Number(percent(lines[-1]["accuracy"]), (one.at(METRICS, "validation accuracy"),))
    return say(
        "{name} ends at {value} on validation images and {train} on training images",
        name=one.name,
        value=value,
        train=train,
    )


def of_training(one: Subject) -> Iterator[Sentence]:
    """When thresholds were reached, and whether it was still rising."""
    where = (one.at(METRICS, "validation accuracy"),)
    lines = [x for x in one.facts.metrics if x["split"] == "validation" and "accuracy" in x]
    reached = [row for row in one.facts["epochs_to_accuracy"] or () if row["validation"]]
    if reached:
        row = reached[-1]
        yield say(
            "{name} was first measured above {threshold} of the validation images after {epoch} "
            "epochs.",
            name=one.name,
            threshold=f"{100 * row['accuracy']:.0f} %",
            epoch=Number(f"{row['validation']:g}", where),
        )
    if len(lines) > 1:
        last, before = lines[-1], lines[-2]
        step = last["accuracy"] - before["accuracy"]
        yield say(
            "Over the last {epochs} epochs validation accuracy changed by {step} points.",
            epochs=Number(f"{last['epoch'] - before['epoch']:g}", where),
            step=Number(signed(step), where),
        )


def limits(found: Sequence[Subject]) -> Panel:
    """What these numbers cannot say."""
    first = found[0]
    where = tuple(one.at(CONFIG, "train.seed") for one in found)
    seeds = sorted({one.config.train.seed for one in found})
    sentences = [
        say(
            "One trained model of each recipe ({seeds}). The intervals are over images: they "
            "say how well these models would do on more such images, and nothing of the recipe "
            "with another seed.",
            seeds=Number(", ".join(f"seed {seed}" for seed in seeds), where),
        ),
    ]
    if first.config.data.dataset == "cifar10":
        sentences.append(
            say(
                "About {near} of the CIFAR-10 test images have a near-duplicate among the training "
                "images, and about {wrong} of its labels are wrong: gaps below 0.1 points mean "
                "nothing.",
                near=Number("3.25 %", (Source("published", "Barz & Denzler, 2020", "ciFAIR"),)),
                wrong=Number(
                    "0.5 %", (Source("published", "Northcutt et al., 2021", "label errors"),)
                ),
            )
        )
    for one in found:
        if one.facts["bit_reproducible"] is False:
            reason = why_not(one)
            sentences.append(
                say("{name} is not bit-reproducible: {reason}.", name=one.name, reason=reason)
            )
        if one.split == "validation" and one.facts["accuracy"] is not None:
            sentences.append(
                say(
                    "{name} was evaluated on validation images, which may have guided choices.",
                    name=one.name,
                )
            )
        if one.facts.finished is None:
            sentences.append(say("{name} is not finished.", name=one.name))
    if first.facts.result and first.facts.result["absent_classes"]:
        sentences.append(
            say(
                "Classes without {split} images were not evaluated: {names}.",
                split=first.split,
                names=listed(first.facts.result["absent_classes"]),
            )
        )
    headline = say("One seed: this speaks of a model, not of a recipe")
    if len(found) > 1:
        headline = say("One seed each: this speaks of models, not of recipes")
    return Panel("limits", "Limits", headline, [Bullets(sentences)], weight=7)


def why_not(one: Subject) -> Number:
    """Why a run is not bit-reproducible."""
    every = one.facts.finished["alarms"] if one.facts.finished else ()
    if alarms := [alarm for alarm in every if "not bit-exact" in alarm]:
        return Number(one.shown(alarms[0]), (one.at(FINISHED, "alarms"),))
    origin = one.facts.provenance
    reason = origin["determinism"]["reason"] if origin else "it was not asked for"
    return Number(reason, (one.at(PROVENANCE, "determinism.reason"),))


def trials(found: Sequence[Subject]) -> Panel:
    """What to try next: hypotheses that the numbers suggest, each with its command."""
    # What is said of a pair comes first, then the first guess of each run, the second, ...
    own = zip_longest(*(list(hypotheses(one)) for one in found))
    ideas = [*between_families(found), *(idea for row in own for idea in row if idea)][:IDEAS]
    commands = []
    for one in found:
        if one.facts["accuracy"] is not None and not one.run.predictions(one.split).is_file():
            commands.append(f"vitlab evaluate {one.command} --split {one.split}")
        if faithfulness(one) is None:
            commands.append(f"vitlab explain {one.command}")
        if features_file(one, found) is None:
            commands.append(f"vitlab features {one.command}")
    rest: list[Block] = [Missing("Not made yet:", "; ".join(commands))] if commands else []
    headline = say(
        "{n}, each a command away",
        n=count(len(ideas), "hypothesis").replace("hypothesiss", "hypotheses"),
    )
    return Panel(
        "next", "What to try next", headline, [Bullets(ideas, "Hypothesis"), *rest], weight=7
    )


def between_families(found: Sequence[Subject]) -> Iterator[Sentence]:
    """Why the best ViT is ahead of the best CNN or behind it, as guesses."""
    known = [one for one in found if one.facts["accuracy"] is not None]
    vits, cnns = ([one for one in known if one.is_cnn is cnn] for cnn in (False, True))
    if not (vits and cnns):
        return
    vit, cnn = (max(group, key=lambda one: one.facts["accuracy"]) for group in (vits, cnns))
    ahead = vit.facts["accuracy"] > cnn.facts["accuracy"]
    names = {"vit": vit.name, "cnn": cnn.name}
    if ahead:
        yield say(
            "{vit} is ahead of {cnn} because attention joins places that are far apart, which a "
            "convolution reaches only in its last layers; on fewer training images it would fall "
            "behind: vitlab study data-size",
            **names,
        )
        return
    yield say(
        "{vit} lags behind {cnn} because a convolution is given that neighbouring pixels belong "
        "together and that an object may lie anywhere, and attention has to learn both from the "
        "images; with more of them the gap would close: vitlab study data-size",
        **names,
    )
    gaps = [one.facts["generalisation_gap"] for one in (vit, cnn)]
    if None not in gaps and gaps[0] < gaps[1]:
        yield say(
            "{vit} lags on images it was trained on as well: its gap to new ones is {gap} points, "
            "that of {cnn} {other}. It is not memorising that holds it back but fitting, so a "
            "longer training would help it more.",
            **names,
            gap=vit.number("generalisation_gap", points),
            other=cnn.number("generalisation_gap", points),
        )


def hypotheses(one: Subject) -> Iterator[Sentence]:
    """What a run's numbers suggest, as guesses."""
    recipe = one.config.recipe
    if recipe not in ALL_RECIPES:
        recipe = "RECIPE"
    cfg, gap = one.config.model, one.facts["generalisation_gap"]
    weak = one.config.augment.policy == "none" and not one.config.augment.mixes
    if gap is not None and gap > 0.05 and weak:
        yield say(
            "{name} gains {gap} points on images it was trained on, so stronger augmentation "
            "would help: vitlab study --recipe {recipe} --vary "
            "augment.policy=none,trivialaugment --seeds 5",
            name=one.name,
            gap=one.number("generalisation_gap", points),
            recipe=recipe,
        )
    lines = [x for x in one.facts.metrics if x["split"] == "validation" and "accuracy" in x]
    if len(lines) > 1 and lines[-1]["accuracy"] - lines[-2]["accuracy"] > 0.005:
        yield say(
            "{name} was still rising by {step} points at its last validation, so more epochs "
            "would help: vitlab study --recipe {recipe} --vary train.epochs={now},{more} --seeds 5",
            name=one.name,
            step=Number(
                points(lines[-1]["accuracy"] - lines[-2]["accuracy"]),
                (one.at(METRICS, "validation accuracy"),),
            ),
            recipe=recipe,
            now=Number(str(one.config.train.epochs), one.where("epochs")),
            more=Number(str(2 * one.config.train.epochs), one.where("epochs")),
        )
    if isinstance(cfg, ViTConfig) and cfg.kind == "vit" and cfg.patch == "linear":
        yield say(
            "{name} has to learn from data that neighbouring pixels belong together, so "
            "convolutions before its patches would help: vitlab study --recipe {recipe} --vary "
            "model.patch=linear,conv --seeds 5",
            name=one.name,
            recipe=recipe,
        )
    sure, right = one.facts["mean_confidence"], one.facts["accuracy"]
    shy = sure is not None and right is not None and right - sure > 0.01
    if shy and one.config.augment.label_smoothing:
        yield say(
            "{name} is less sure than it may be because of label smoothing, so a temperature "
            "fitted on validation images would halve its calibration error.",
            name=one.name,
        )
    if one.facts.result and (pairs := one.facts.result["top_confusions"]):
        size = one.config.data.image_size or (0, 0)
        if pairs[0]["pair_share"] > 0.1 and max(size) <= 64:
            yield say(
                "{true} and {predicted} make {share} of all errors because {side} pixels do not "
                "show what tells them apart; a model of larger images would confuse them less.",
                true=Name(pairs[0]["true"]),
                predicted=Name(pairs[0]["predicted"]),
                share=Number(
                    tenth(pairs[0]["pair_share"]),
                    (one.at(RESULTS, f"{one.split}.top_confusions.pair_share"),),
                ),
                side=Number(f"{size[0]} x {size[1]}", (one.at(CONFIG, "data.image_size"),)),
            )
    yield say(
        "Another seed would move {name} by a few tenths of a point: vitlab reproduce {recipe} "
        "--seeds 5",
        name=one.name,
        recipe=recipe,
    )


def provenance(found: Sequence[Subject]) -> Panel:
    """Where everything comes from."""
    first = lambda value: str(value)[:16]  # noqa: E731
    lines = (
        ("command", "command", str),
        ("seed", "seed", str),
        ("config hash", "config_sha256", first),
        ("data hash", "data_fingerprint", first),
        ("split hash", "split_sha256", first),
        ("checkpoint hash", "checkpoint_sha256", first),
        ("openings of the test images", "test_openings", str),
        ("started", "started", str),
        ("hardware", "device", str),
        ("CPU threads", "threads", str),
        ("precision", "precision", str),
        ("vitlab", "vitlab", str),
        ("commit", "commit", str),
        ("torch", "torch", str),
        ("Python", "python", str),
    )
    rows: list[list[Any]] = []
    for words, fact, form in lines:
        cells = []
        for one in found:
            number = one.number(fact, form)
            cells.append(Number(one.shown(number.text), number.sources))
        rows.append([words, *cells])
    answers = []
    for one in found:
        known = one.facts["bit_reproducible"]
        yes = "unknown" if known is None else "yes" if known else "no"
        number = Number(yes, one.where("bit_reproducible"))
        answers.append(
            say("{yes}: {why}", yes=number, why=why_not(one))
            if known is False
            else Sentence((number,))
        )
    rows.insert(6, ["bit-reproducible", *answers])
    head = ["", *(one.name for one in found)]
    exact = all(one.facts["bit_reproducible"] for one in found)
    headline = (
        say("Equal config, seed and thread count give equal weights")
        if exact
        else say("What is needed to do it again")
    )
    return Panel("provenance", "Where it comes from", headline, [Table(head, rows)], weight=9)

"""What a report says of runs: a panel for each question, its headline computed from the numbers."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, cast

from vitlab.config import BESIDE, MODEL_NAMES, refuse_multilabel, shared_fields
from vitlab.data.known import KNOWN
from vitlab.figures import style
from vitlab.figures import training as figures
from vitlab.figures.charts import Line
from vitlab.formatting import between, count, minutes, percent, points, signed
from vitlab.recipes import ALL_RECIPES
from vitlab.report import labels, techniques
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
    whole,
)
from vitlab.report.inside import faithfulness, features_file, knowledge, looks, models
from vitlab.report.pictures import line_chart, samples
from vitlab.report.results import (
    classes,
    confidence,
    duel,
    headline_result,
    of_classes,
    of_confidence,
    results,
)
from vitlab.report.selection import selections
from vitlab.report.subject import Subject
from vitlab.run import CONFIG, FINISHED, METRICS, PROVENANCE, RESULTS
from vitlab.stats import wilson

IDEAS = 7
"""Most hypotheses of a report."""


def report(found: Sequence[Subject]) -> Report:
    """The report of one run, or of several beside each other."""
    for one in found if len(found) > 1 else ():
        refuse_multilabel(one.config.data, "a report of several runs compares accuracies", BESIDE)
    several = found[0].several
    panels = [
        in_short(found),
        *data_panels(found),
        *selections(found),
        *models(found),
        *training(found),
        *curves(found),
        *(labels.results(found[0]) if several else results(found)),
        *duel(found),
        *(() if several else (*classes(found), *confidence(found))),
        *looks(found),
        *(() if several else knowledge(found)),
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
        *others, last = (Sentence((one.name,)) for one in found)
        sets = dict.fromkeys(one.dataset.text for one in found)
        return say(
            "What do {names} and {last} reach on {data}, and at what cost?",
            names=join(others, ", "),
            last=last,
            data=listed(list(sets)),
        )
    size = first.number("parameters", millions)
    kind = MODEL_NAMES[first.config.model.kind]
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
    """What a run's recipe is in its own first sentence, or what the run changes of it."""
    name, where = one.config.recipe, (one.at(CONFIG, "(all)"),)
    if name not in ALL_RECIPES or one.options is None:
        return say("{name}: a config of its own.", name=one.name)
    if not one.options:
        idea = (ALL_RECIPES[name].__doc__ or "").split("\n")[0].replace("`", "")
        return say("{name}: {idea}", name=one.name, idea=idea)
    changes = ", ".join(f"{field} {value}" for field, value in one.options.items())
    return say(
        "{name}: the recipe {recipe} with {changes}.",
        name=one.name,
        recipe=name,
        changes=Number(one.shown(changes), where),
    )


def cover(found: Sequence[Subject]) -> Tiles:
    """The numbers that come first."""
    if len(found) > 1:
        return Tiles([accuracy_tile(one, one.text) for one in found])
    one = found[0]
    time, of = time_of(one)
    return Tiles(
        [
            accuracy_tile(one, f"{one.split} {one.config.data.score.replace('_', ' ')}"),
            Tile(
                one.number("parameters", millions),
                "parameters",
                say("{macs} multiply-adds an image", macs=one.number("macs", millions)),
            ),
            Tile(
                time,
                of.strip() or "of training",
                say("{epochs}", epochs=one.number("epochs_done", epochs)),
            ),
        ]
    )


def epochs(value: float) -> str:
    """Epochs in words."""
    return count(value, "epoch")


def time_of(one: Subject) -> tuple[Number, str]:
    """What the training took, and of what if not of the clock: a GPU's work is no processor's."""
    if one.facts["device_type"] in (None, "cpu"):
        return one.number("process_seconds", minutes), " of processor time"
    return one.number("training_seconds", minutes), ""


def accuracy_tile(one: Subject, what: str) -> Tile:
    """A run's accuracy, or its mean average precision, with its interval."""
    score = one.config.data.score
    interval = one.number(f"{score}_interval", between)
    more = say("{interval}, one model", interval=interval)
    if one.several and one.facts[f"{score}_interval"] is None:
        more = say("one model")
    return Tile(one.number(score), what, more)


def in_short(found: Sequence[Subject]) -> Panel:
    """What was found, in sentences."""
    first = found[0]
    sentences = [sentence for one in found for sentence in findings(one, brief=len(found) > 1)]
    known = [one for one in found if one.facts[one.config.data.score] is not None]
    if not known:
        headline = say("{name} has not been evaluated yet", name=first.name)
    elif first.several:
        headline = labels.headline(first)
    elif len(found) == 1:
        headline = say(
            "{name} is right on {accuracy} of the {split} images",
            name=first.name,
            accuracy=first.number("accuracy"),
            split=first.split,
        )
    else:
        headline = headline_result(known)
    return Panel("short", "In short", headline, [Bullets(sentences)], weight=9)


def findings(one: Subject, brief: bool) -> Iterator[Sentence]:
    """What a run's numbers say."""
    if one.several:
        yield from labels.findings(one)
    elif one.facts["accuracy"] is None:
        yield say("{name} has no accuracy before it is evaluated.", name=one.name)
    else:
        yield say(
            "{name}: {accuracy} of {images} {split} images, 95 % interval {interval} over images "
            "for this one trained model.",
            name=one.name,
            accuracy=one.number("accuracy"),
            images=one.number("images", whole),
            split=one.split,
            interval=one.number("accuracy_interval", between),
        )
        yield from seen_before(one)
    if (gap := one.facts["generalisation_gap"]) is not None:
        counted = "{images} " * (one.facts["train_accuracy_images"] is not None)
        than = (
            f"{{gap}} points {'less' if gap < 0 else 'more'} than" if gap else "the same share as"
        )
        yield say(
            f"Of {counted}clean training images {{name}} is right on {{train}}, {than} "
            "of the {split} images.",
            name=one.name,
            images=one.number("train_accuracy_images", whole),
            train=one.number("train_accuracy"),
            gap=one.number("generalisation_gap", lambda value: points(abs(value))),
            split=one.split,
        )
    if not brief and not one.several:
        yield from of_classes(one)
        yield from of_confidence(one)
    if one.facts["parameters"] is not None:
        time, of = time_of(one)
        taught = one.facts.finished and "teacher" in one.facts.finished["clock"]
        yield say(
            "{name} has {parameters} parameters and takes {macs} multiply-adds for an image; "
            f"its training took {{time}}{of}{', its teacher included' if taught else ''}.",
            name=one.name,
            parameters=one.number("parameters", whole),
            macs=one.number("macs", millions),
            time=time,
        )


def seen_before(one: Subject) -> Iterator[Sentence]:
    """How many of the images that a run was evaluated on its first weights were trained on."""
    if one.split == "validation" and one.facts["validation_seen"]:
        yield say(
            "{seen} of the validation images of {name} were trained on before, by the weights it "
            "started from.",
            seen=one.number("validation_seen", whole),
            name=one.name,
        )
    if one.facts["cross_validated"]:
        yield say(
            "The validation images of {name} were held out in turn, in {folds} folds: each was "
            "classified by a model that had not seen it, and {name} was then trained on all.",
            name=one.name,
            folds=one.number("cross_validated", whole),
        )


def data_panels(found: Sequence[Subject]) -> Iterator[Panel]:
    """The images of each run that has others, or splits them otherwise, than those before."""
    first = {str(one.facts.provenance and one.facts.provenance["data"]): one for one in found[::-1]}
    for one in [one for one in found if one in first.values()]:
        panel = data(one)
        if len(first) > 1:
            panel = replace(panel, key=f"data-{found.index(one) + 1}", topic=f"Data of {one.text}")
        yield panel


def data(one: Subject) -> Panel:
    """Which images, how many, and how they were split."""
    facts: Mapping[str, Any] = one.facts.provenance["data"] if one.facts.provenance else {}
    size = one.config.data.image_size or (0, 0)
    channels = {1: "grey", 3: "colour"}.get(one.config.data.channels or 0, "")
    rows = []
    uses = {
        "train": "trained on",
        "validation": "evaluated on, also during training",
        "test": "evaluated on, after training",
    }
    for split, use in uses.items():
        number = facts.get(f"{split}_images")
        where = (one.at(PROVENANCE, f"data.{split}_images"),)
        sha = facts.get("split_sha256", {}).get(split)
        whence = (one.at(PROVENANCE, f"data.split_sha256.{split}"),)
        result = one.facts.results.get(split)
        if result and result.get("cross_validated"):
            number, use = None, "held out in turn, and trained on"
        if number is None and result:
            number, where = result["images"], (one.at(RESULTS, f"{split}.images"),)
            sha, whence = result["index_sha256"], (one.at(RESULTS, f"{split}.index_sha256"),)
        if number is not None:
            rows.append(
                [split, Number(whole(number), where), use, Number(sha[:12], whence) if sha else "-"]
            )
    if skipped := facts.get("skipped_images"):
        where = (one.at(PROVENANCE, "data.skipped_images"),)
        rows.append(["left out", Number(whole(skipped), where), "could not be read", "-"])
    if seen := facts.get("validation_seen"):
        where = (one.at(PROVENANCE, "data.validation_seen"),)
        words = "validation images that the weights it started from were trained on"
        rows.append(["seen before", Number(whole(seen), where), words, "-"])
    names = facts.get("class_names", [])
    where = (
        one.at(PROVENANCE, "data.class_names"),
        one.at(CONFIG, "data.image_size"),
    )
    kinds = Number(count(len(names), "class", "classes"), where[:1])
    headline = say("{data}: {classes}", data=one.dataset, classes=kinds)
    if known := KNOWN.get(one.config.data.dataset):
        headline = say("{data}: {summary}", data=one.dataset, summary=known.summary)
    shape = say(
        "{size} pixels, {channels}, {classes}: {names}.",
        size=Number(f"{size[0]} x {size[1]}", where[1:]),
        channels=channels,
        classes=kinds,
        names=listed(names),
    )
    if not names:
        missing = Missing(
            "The run has not begun, so its data is not known.",
            f"vitlab train --resume {one.command}",
        )
        return Panel("data", "Data", say("{data}", data=one.dataset), [missing], weight=2)
    blocks: list[Block] = [Text(shape)]
    if rows:
        blocks.append(Table(("split", "images", "what for", "hash of its images"), rows))
    called = "labels" if one.several else "class"
    words = f"{{n}} {{split}} images drawn at random, with their {called}."
    if pictures := samples(one, "random", words):
        blocks.append(pictures)
    more: list[Block] = []
    if one.options is not None and not one.several:
        options = "".join(
            f" --{name} {shlex.quote(value)}"
            for name, value in one.options.items()
            if name.startswith("data.") and name != "data.dataset"
        )
        command = f"vitlab explore {shlex.quote(one.config.data.dataset)}{options}"
        words = "Colours, samples of each class, near-duplicates and maps of the data:"
        more.append(Missing(words, one.shown(command)))
    return Panel("data", "Data", headline, blocks, more, weight=8)


def training(found: Sequence[Subject]) -> Iterator[Panel]:
    """How each technique of the training works."""
    first = found[0]
    words = {one.text: list(techniques.of_training(one.config)) for one in found}
    shared = [word for word in words[first.text] if all(word in own for own in words.values())]
    where = tuple(one.at(CONFIG, part) for one in found for part in ("augment", "optim"))
    batch, images = first.config.train.batch_size, first.facts["train_images"]
    headline = say(
        "{epochs} in batches of {batch}, with {n}",
        epochs=first.number("epochs", epochs),
        batch=Number(
            str(min(batch, images or batch)),
            (*first.where("batch_size"), *first.where("train_images")),
        ),
        n=Number(count(len(shared), "technique"), where),
    )
    if first.config.optim.optimizer == "lbfgs":
        headline = say("A head was fitted to the features of a network that stayed as it was")
    if len(found) > 1:
        headline = say("{n} in all of them", n=Number(count(len(shared), "technique"), where))
    if len(found) > 1 and not shared:
        headline = say("No technique is in all of them")
    more: list[Block] = []
    for one in found:
        own = [word for word in words[one.text] if word not in shared]
        if own:
            more += [Text(say("Only in {name}:", name=one.name)), Words(own, where)]
    blocks: list[Block] = [Text(start) for one in found for start in of_start(one)]
    blocks += [Words(shared, where)] if shared else []
    yield Panel("training", "How it was trained", headline, blocks, more, weight=5)


def curves(found: Sequence[Subject]) -> Iterator[Panel]:
    """Loss and accuracy over epochs, of those that were trained in steps."""
    found = [one for one in found if one.config.optim.optimizer != "lbfgs"]
    if not found:
        return
    measured = [
        one for one in found if any(one.config.data.score in line for line in one.facts.metrics)
    ]
    topic = "Training curves"
    if not measured:
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
    blocks: list[Block] = [*filter(None, (curve(measured, name) for name in CURVES))]
    sentences = [sentence for one in measured for sentence in of_training(one)]
    ends = [of_end(one) for one in measured]
    head = ends[0] if len(ends) == 1 else join([*ends[:2]], "; ")
    if sentences:
        blocks.append(Bullets(sentences))
    yield Panel("curves", topic, head, blocks, weight=8)


CURVES = {
    "accuracy": ("Accuracy over epochs.", style.percent, None),
    "mean_average_precision": ("Mean average precision over epochs.", style.percent, None),
    "loss": ("Loss over epochs.", style.plainly, 0.0),
    "lr": ("Learning rate over epochs.", style.plainly, 0.0),
    "seconds": ("Seconds for one epoch, from the pace of its batches.", style.plainly, 0.0),
}
"""What is drawn over epochs: its caption, how a number is written, and the least of the axis."""


def curve(runs: Sequence[Subject], name: str) -> Figure | None:
    """One number of the metrics over epochs: validation solid, clean training images dashed."""
    own = name in ("lr", "seconds")
    splits = {"train": ""} if own else {"validation": "", "train_clean": "clean training images"}
    field = "images_per_second" if name == "seconds" else name
    series, where = [], []
    hues = style.colours([one.text for one in runs])
    for one in runs:
        for split, words in splits.items():
            points = figures.points(one.facts.metrics, split, field)
            if name == "seconds":
                images = one.facts["train_images"] or 0
                points = [(epoch, images / pace) for epoch, pace in points if pace and images]
            if len(points) < (2 if own else 1):  # one point is no curve
                continue
            parts = [one.text] * (len(runs) > 1) + [words or split] * (not own)
            label = ", ".join(parts) or one.text
            dash = "--" if words else "-"
            series.append(Line(label, points, hues[one.text], dash))
            where.append(one.at(METRICS, f"{split} {field}"))
    if not series:
        return None
    words, form, low = CURVES[name]
    what = name.replace("_", " ")
    return line_chart(series, what, say(words), tuple(where), form=form, low=low)


def of_end(one: Subject) -> Sentence:
    """Where the curves end."""
    score = one.config.data.score
    last = {
        line["split"]: cast("dict[str, Any]", line) for line in one.facts.metrics if score in line
    }
    on, what = ("on", "mean average precision ") if one.several else ("of", "")
    words = {"validation": "validation", "train_clean": "clean training"}
    parts = [
        say(
            f"{{value}} {on} {name} images",
            value=Number(percent(last[split][score]), (one.at(METRICS, f"{split} {score}"),)),
        )
        for split, name in words.items()
        if split in last
    ]
    return say(
        f"{{name}} after {{epochs}}: {what}{{parts}}",
        name=one.name,
        epochs=one.number("epochs_done", epochs),
        parts=join(parts, " and "),
    )


def of_training(one: Subject) -> Iterator[Sentence]:
    """When the highest threshold was reached, how the last validations differ, and an early end."""
    score = one.config.data.score
    where = (one.at(METRICS, f"validation {score}"),)
    lines = [x for x in one.facts.metrics if x["split"] == "validation" and score in x]
    reached = [row for row in one.facts["epochs_to_accuracy"] or () if row["validation"]]
    if reached:
        row = reached[-1]
        yield say(
            "{name} was first measured at {threshold} of the validation images or more after "
            "{epochs}.",
            name=one.name,
            threshold=Number(f"{100 * row['accuracy']:.0f} %", one.where("epochs_to_accuracy")),
            epochs=Number(epochs(row["validation"]), one.where("epochs_to_accuracy")),
        )
    if len(lines) > 1:
        last, before = lines[-1], lines[-2]
        yield say(
            "The last two validations of {name}, {epochs} apart, differ by {step} points.",
            name=one.name,
            epochs=Number(epochs(last["epoch"] - before["epoch"]), where),
            step=Number(signed(last[score] - before[score]), where),
        )
    if one.facts.finished and (stopped := one.facts.finished.get("stopped")):
        yield say(
            "{name} was to train for {epochs} and stopped earlier: {reason}.",
            name=one.name,
            epochs=Number(
                epochs(stopped["planned_epochs"]), (one.at(FINISHED, "stopped.planned_epochs"),)
            ),
            reason=Number(stopped["reason"], (one.at(FINISHED, "stopped.reason"),)),
        )


def of_start(one: Subject) -> Iterator[Sentence]:
    """The weights that a run started from, if it did not start from random ones."""
    record = one.facts.provenance and one.facts.provenance.get("weights")
    if not record:
        return
    where, report = (one.at(PROVENANCE, "weights.report"),), record["report"]
    yield say(
        "{name} started from the weights of {source}: {matched} taken over, {resized} adapted, "
        "{missing} left as drawn.",
        name=one.name,
        source=Name(one.shown(record["source"])),
        matched=Number(count(len(report["matched"]), "tensor"), where),
        resized=Number(str(len(report["resized"])), where),
        missing=Number(str(len(report["missing"])), where),
    )


def limits(found: Sequence[Subject]) -> Panel:
    """What these numbers cannot say."""
    where = tuple(one.at(CONFIG, "train.seed") for one in found)
    seeds = sorted({one.config.train.seed for one in found})
    configs = len({tuple(shared_fields(one.config).items()) for one in found})
    models = say("One trained model")
    if len(found) > 1:
        models = say(
            "{models} of {configs}",
            models=Number(count(len(found), "trained model"), where),
            configs=Number(
                count(configs, "config"), tuple(one.at(CONFIG, "(all)") for one in found)
            ),
        )
    sentences = [
        say(
            "{models} ({seeds}). Intervals are over images: they say how well these weights would "
            "do on more such images, and nothing of another seed.",
            models=models,
            seeds=Number(", ".join(f"seed {seed}" for seed in seeds), where),
        ),
    ]
    for one in found:
        if (images := one.facts["images"]) and one.facts["accuracy"] is not None and images <= FEW:
            sentences.append(
                say(
                    "Each of the {images} {split} images of {name} is worth {share} points.",
                    images=one.number("images", whole),
                    split=one.split,
                    name=one.name,
                    share=one.number("images", lambda value: points(1 / value)),
                )
            )
        if one.config.data.dataset == "cifar10" and one.split == "test":
            sentences.append(CIFAR10)
        sentences += seen_before(one)
        if one.facts["bit_reproducible"] is False:
            reason = why_not(one)
            sentences.append(
                say("{name} is not bit-reproducible: {reason}.", name=one.name, reason=reason)
            )
        if one.split == "validation" and one.facts[one.config.data.score] is not None:
            sentences.append(
                say(
                    "{name} was evaluated on validation images, which may have guided choices.",
                    name=one.name,
                )
            )
        if one.facts.finished is None:
            sentences.append(say("{name} is not finished.", name=one.name))
        if one.facts.result and one.facts.result["absent_classes"]:
            sentences.append(
                say(
                    "Classes without {split} images of {name} were not evaluated: {names}.",
                    split=one.split,
                    name=one.name,
                    names=listed(one.facts.result["absent_classes"]),
                )
            )
    headline = say("This speaks of a trained model, not of a recipe")
    if len(found) > 1:
        headline = say("This speaks of trained models, not of recipes")
    sentences = list(dict.fromkeys(sentences))
    return Panel("limits", "Limits", headline, [Bullets(sentences)], weight=7)


CIFAR10 = say(
    "{copies} of the CIFAR-10 test images have a near-duplicate among the training images of "
    "that set, and about {wrong} of its test labels are wrong.",
    copies=Number("2.86 %", (Source("published", "Barz & Denzler, 2020", "ciFAIR"),)),
    wrong=Number("0.5 %", (Source("published", "Northcutt et al., 2021", "label errors"),)),
)

FEW = 1_000
"""Images of which each one is worth a tenth of a point or more."""


def why_not(one: Subject) -> Number:
    """Why a run is not bit-reproducible."""
    every = one.facts.finished["alarms"] if one.facts.finished else ()
    if alarms := [alarm for alarm in every if "not bit-exact" in alarm]:
        return Number(one.shown(alarms[0]), (one.at(FINISHED, "alarms"),))
    origin = one.facts.provenance
    reason = origin["determinism"]["reason"] if origin else "it was not asked for"
    return Number(reason, (one.at(PROVENANCE, "determinism.reason"),))


def trials(found: Sequence[Subject]) -> Panel:
    """What to try next: hypotheses that the numbers suggest, and what was not made yet."""
    # What is said of a pair comes first, then the first guess of each run, the second, ...
    own = zip_longest(*(list(hypotheses(one)) for one in found))
    ideas = [*between_families(found), *(idea for row in own for idea in row if idea)][:IDEAS]
    blocks: list[Block] = [Bullets(ideas, "Hypothesis")] if ideas else []
    commands = []
    for one in found:
        known = one.facts[one.config.data.score] is not None
        if known and not one.run.predictions(one.split).is_file():
            commands.append(f"vitlab evaluate {one.command} --split {one.split}")
        if faithfulness(one) is None:
            commands.append(f"vitlab explain {one.command}")
        if features_file(one, found) is None and not one.several:
            commands.append(f"vitlab features {one.command}")
    if commands:
        blocks.append(Missing("Not made yet:", "; ".join(commands)))
    seeds = dict.fromkeys(one.study() for one in found if not one.several)
    blocks += [Missing("How far other seeds end from one another:", each) for each in seeds if each]
    rest = "What is still to do" if blocks else "Nothing is left to do"
    headline = say("What the numbers suggest" if ideas else rest)
    return Panel("next", "What to try next", headline, blocks, weight=7)


def between_families(found: Sequence[Subject]) -> Iterator[Sentence]:
    """A guess where the best ViT is behind the best CNN on the images it was trained on, too."""
    known = [one for one in found if one.facts["generalisation_gap"] is not None]
    vits, cnns = ([one for one in known if one.is_cnn is cnn] for cnn in (False, True))
    if not (vits and cnns):
        return
    vit, cnn = (max(group, key=lambda one: one.facts["accuracy"]) for group in (vits, cnns))
    same = vit.facts["split_sha256"] == cnn.facts["split_sha256"]
    behind = all(vit.facts[one] < cnn.facts[one] for one in ("accuracy", "train_accuracy"))
    if same and behind:
        yield say(
            "{vit} lags behind {cnn} on clean training images as well, {own} against {other}, so "
            "a longer training may help it more than additional images.",
            vit=vit.name,
            cnn=cnn.name,
            own=vit.number("train_accuracy"),
            other=cnn.number("train_accuracy"),
        )


def hypotheses(one: Subject) -> Iterator[Sentence]:
    """What a run's numbers suggest beyond their noise, as guesses, each with its command."""
    if one.several:  # there is no study of such runs
        return
    interval, train = one.facts["accuracy_interval"], one.facts["train_accuracy"]
    weak = one.config.augment.policy == "none" and not one.config.augment.mixes
    command = one.study("augment.policy=none,trivialaugment")
    if weak and command and interval and train is not None and train > interval[1]:
        yield say(
            "{name} is right on {train} of clean training images and on {accuracy} of the {split} "
            "images, so stronger augmentation may help: {command}",
            name=one.name,
            command=command,
            train=one.number("train_accuracy"),
            accuracy=one.number("accuracy"),
            split=one.split,
        )
    lines = [x for x in one.facts.metrics if x["split"] == "validation" and "accuracy" in x]
    now, images = one.config.train.epochs, one.facts.provenance and one.facts.provenance["data"]
    command = one.study(f"train.epochs={now},{2 * now}")
    if len(lines) < 2 or not images or not command:
        return
    before, last = (line["accuracy"] for line in lines[-2:])
    n = images["validation_images"]
    if before < wilson(round(last * n), n)[0]:
        yield say(
            "The validation accuracy of {name} still rose by {step} points at its last validation, "
            "so more epochs may help: {command}",
            name=one.name,
            command=command,
            step=Number(points(last - before), (one.at(METRICS, "validation accuracy"),)),
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
        ("checkpoint hash, which covers times too", "checkpoint_sha256", first),
        ("openings of its test images, at most, by the ledger beside it", "test_openings", str),
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
    started = any(one.facts.provenance and one.facts.provenance.get("weights") for one in found)
    start = "first weights, " if started else ""
    headline = (
        say(f"The same config, data, {start}threads, hardware and versions give the same weights")
        if exact
        else say("What is needed to do it again")
    )
    return Panel("provenance", "Where it comes from", headline, [Table(head, rows)], weight=9)

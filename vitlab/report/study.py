"""What a report says of a study, from the summary that it wrote of itself."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitlab.config import Config
from vitlab.errors import ConfigError, RunError
from vitlab.figures import charts, style
from vitlab.figures.charts import Line, Mark, Row
from vitlab.figures.study import looks
from vitlab.figures.style import GREEN, GREY, ORANGE
from vitlab.formatting import between, count, minutes, p_value, percent, points, signed
from vitlab.recipes import ALL_RECIPES, recipe
from vitlab.report import techniques
from vitlab.report.document import (
    Block,
    Bullets,
    Cell,
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
    Word,
    Words,
    say,
    whole,
)
from vitlab.report.inside import BESIDE, drawn, parts
from vitlab.report.pictures import chart, dot_chart, line_chart
from vitlab.report.subject import address, plainly, read_existing, without_folders
from vitlab.run import STUDY, SUMMARY
from vitlab.study import page

TOLD_APART = 6
"""Most arms that have a colour of their own."""


class Study:
    """A study folder with its summary."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.plan = read_existing(folder / STUDY) or {}
        self.summary: dict[str, Any] = read_existing(folder / SUMMARY) or {}
        self.text = str(self.summary.get("name") or self.plan.get("name") or folder.name)
        self.name = Name(self.text)

    @staticmethod
    def found(folder: Path) -> bool:
        """Whether a folder holds a study."""
        return (folder / STUDY).is_file() or (folder / SUMMARY).is_file()

    def at(self, field: str, file: str = SUMMARY) -> Source:
        """A place in its files."""
        return Source(self.text, file, field)

    @property
    def baseline(self) -> Mapping[str, Any] | None:
        """The arm that others are compared with."""
        return next((arm for arm in self.summary["arms"] if arm["baseline"]), None)

    @property
    def colours(self) -> dict[str, str]:
        """The colour of each arm, the same in every chart."""
        return looks({arm["name"]: arm["accuracy"]["mean"] or -1.0 for arm in self.summary["arms"]})

    @property
    def comparisons(self) -> list[Mapping[str, Any]]:
        """The declared comparisons, where there are verdicts."""
        return [] if self.summary["exploratory"] else self.summary["comparisons"]

    def config(self) -> Config | None:
        """The config of the baseline; None where this version cannot make it."""
        arms = self.plan.get("arms", ())
        planned = next((arm.get("config") for arm in arms if arm["baseline"]), None)
        if planned is None and self.summary["recipe"] not in ALL_RECIPES:
            return None
        try:
            if planned is not None:
                return Config.from_dict(planned)
            return recipe(self.summary["recipe"]).override(self.plan.get("overrides", {}))
        except ConfigError:
            return None

    def sentence(self, words: str, field: str) -> Sentence:
        """A sentence of the study's own page, without its Markdown."""
        return Sentence((Number(without_folders(plainly(words)), (self.at(field),)),))


def report(study: Study) -> Report:
    """The report of a study."""
    summary = study.summary
    if not summary:
        question = str(study.plan.get("question") or study.text)
        missing = Missing(
            "The study has not been summarised:", f"vitlab study {address(study.folder)} --yes"
        )
        panel = Panel("short", "In short", say("There is no summary yet"), [missing])
        return Report(
            study.text,
            say("{name}", name=Name(question)),
            Tiles([]),
            say("{name}", name=study.name),
            [panel],
        )
    panels = [
        findings(study),
        setting(study),
        *model(study),
        arms(study),
        *effects(study),
        accuracies(study),
        *curves(study),
        *costs(study),
        *stability(study),
        *failures(study),
        limits(study),
        trials(study),
        provenance(study),
    ]
    return Report(
        title=study.text,
        question=say("{question}", question=Name(summary["question"])),
        cover=cover(study),
        about=say(
            "Study {name}: {design}, {seeds} for each arm.",
            name=study.name,
            design=page.DESIGNS[summary["design"]],
            seeds=Number(count(len(summary["seeds"]), "seed"), (study.at("seeds"),)),
        ),
        panels=panels,
    )


def cover(study: Study) -> Tiles:
    """The numbers that come first."""
    summary = study.summary
    tiles = [
        Tile(
            Number(str(len(summary["arms"])), (study.at("arms"),)),
            "arms",
            say(
                "{seeds} each",
                seeds=Number(count(len(summary["seeds"]), "seed"), (study.at("seeds"),)),
            ),
        ),
        Tile(
            Number(
                f"{summary['trials']['finished']} of {summary['trials']['planned']}",
                (study.at("trials"),),
            ),
            "runs finished",
            say(
                "{n} pending",
                n=Number(str(summary["trials"]["pending"]), (study.at("trials.pending"),)),
            ),
        ),
    ]
    baseline = study.baseline
    if baseline and baseline["accuracy"]["mean"] is not None:
        accuracy = baseline["accuracy"]
        where = (study.at("arms.accuracy"),)
        tiles.append(
            Tile(
                Number(percent(accuracy["mean"]), where),
                "baseline, validation",
                say("{interval} over seeds", interval=Number(between(accuracy["interval"]), where)),
            )
        )
    return Tiles(tiles)


def verdict(one: Mapping[str, Any]) -> str:
    """A verdict without what stands in brackets."""
    return (one["verdict"] or "").split(" (")[0].split(";")[0]


def findings(study: Study) -> Panel:
    """What the study found."""
    summary = study.summary
    sentences = [
        study.sentence(words, "comparisons, arms.accuracy") for words in page.findings(summary)
    ]
    decided = [one for one in study.comparisons if verdict(one) in ("better", "worse")]
    headline = say("Nothing is decided")
    if summary["exploratory"]:
        headline = say("A ranking, and no verdict")
    elif decided:
        largest = max(decided, key=lambda one: abs(one["difference"]))
        headline = say(
            "{n} of {all} changes matter; {arm} most, by {points} points",
            n=Number(str(len(decided)), (study.at("comparisons.verdict"),)),
            all=Number(str(len(study.comparisons)), (study.at("comparisons"),)),
            arm=Name(largest["arm"]),
            points=Number(signed(largest["difference"]), (study.at("comparisons.difference"),)),
        )
    return Panel("short", "In short", headline, [Bullets(sentences)], weight=9)


def setting(study: Study) -> Panel:
    """What was planned before the first run."""
    summary = study.summary
    words = page.setting(summary)
    sentences = [
        study.sentence(f"{part.rstrip('.')}.", "recipe, design, seeds, family, trials")
        for part in words.split(". ")
    ]
    headline = say(
        "Planned before the first run: {n} arms, the same {seeds}",
        n=Number(str(len(summary["arms"])), (study.at("arms"),)),
        seeds=Number(count(len(summary["seeds"]), "seed"), (study.at("seeds"),)),
    )
    return Panel("setting", "The question and the data", headline, [Bullets(sentences)], weight=7)


def model(study: Study) -> Iterator[Panel]:
    """The baseline's model and how it works."""
    config = study.config()
    if config is None:
        return
    where = (study.at("recipe, overrides", STUDY),)
    words = techniques.of_model(config.model)
    headline = (
        say(
            "The baseline is {recipe}, made smaller and quicker where the plan says so",
            recipe=Name(study.summary["recipe"]),
        )
        if study.plan.get("overrides")
        else say("The baseline is {recipe}", recipe=Name(study.summary["recipe"]))
    )
    blocks: list[Block] = []
    known = config.data if config.data.resolved else _resolved(config)
    if known.resolved:
        from dataclasses import replace

        drawing, alt = drawn(replace(config, data=known), "the baseline")
        blocks.append(Figure(drawing, alt, say("The baseline, from its config."), where, tall=True))
    blocks.append(Words(words[:BESIDE], where))
    training = list(techniques.of_training(config))
    more: list[Block] = [Text(say("How it is trained:")), Words(training, where)]
    yield Panel("model", "The model", headline, blocks, more, weight=6)
    if words[BESIDE:]:
        yield parts(words[BESIDE:], Name("the baseline"), where)


def _resolved(config: Config) -> Any:
    """The data of a config, with what is known of a data set by its name."""
    from dataclasses import replace

    from vitlab.data.known import KNOWN

    known = KNOWN.get(config.data.dataset)
    if known is None:
        return config.data
    data = config.data
    return replace(
        data,
        image_size=data.image_size or known.image_size,
        channels=data.channels or known.channels,
        classes=data.classes or known.classes,
    )


def arms(study: Study) -> Panel:
    """What each arm changes, and how that works."""
    words = [
        Word("", arm["name"], arm["explanation"])
        for arm in study.summary["arms"]
        if not arm["baseline"]
    ]
    headline = say("{n} changes, one at a time", n=Number(str(len(words)), (study.at("arms"),)))
    if study.summary["design"] != "one-factor":
        headline = say(
            "{n} arms beside the baseline", n=Number(str(len(words)), (study.at("arms"),))
        )
    where = (study.at("arms.explanation"),)
    few, rest = words[:8], words[8:]
    more: list[Block] = [Words(rest, where)] if rest else []
    return Panel("arms", "What was changed", headline, [Words(few, where)], more, weight=8)


def effects(study: Study) -> Iterator[Panel]:
    """Every declared comparison with its verdict; of a search, its ranking."""
    summary = study.summary
    if summary["exploratory"]:
        rows = [
            Row(row["arm"], row["mean"], row["interval"], percent(row["mean"]))
            for row in summary["ranking"][:16]
        ]
        if rows:
            caption = say(
                "Mean validation accuracy with 95 % intervals; no p-value, as arms were "
                "found by looking."
            )
            figure = dot_chart(rows, "ranking", caption, (study.at("ranking"),))
            yield Panel(
                "effects",
                "Ranking",
                say("The highest of many is flattered by luck"),
                [figure],
                weight=9,
            )
        return
    known = [one for one in study.comparisons if one["difference"] is not None]
    if not known:
        return
    ordered = sorted(known, key=lambda one: -one["difference"])
    colour = {"better": GREEN, "worse": ORANGE}
    rows = [
        Row(
            versus(one, study),
            one["difference"],
            one["interval"],
            f"{signed(one['difference'])} {verdict(one)}".replace(
                "no evidence of a difference", "no evidence"
            ),
            colour.get(verdict(one), GREY),
        )
        for one in ordered
    ]
    caption = say(
        "Difference to the baseline in percentage points with its 95 % interval; the "
        "verdict is corrected over all {n} comparisons (Holm).",
        n=Number(str(len(study.comparisons)), (study.at("comparisons"),)),
    )
    where = (study.at("comparisons.difference, comparisons.interval, comparisons.verdict"),)
    told = [study.sentence(words, "comparisons") for words in page.findings(study.summary)][1:4]
    numbers = table(study, "comparisons", COMPARED, "In percentage points.")
    words = {name: sum(verdict(one) == name for one in known) for name in ("better", "worse")}
    headline = say(
        "{better} better, {worse} worse, no evidence of a difference in {rest}",
        better=Number(str(words["better"]), (study.at("comparisons.verdict"),)),
        worse=Number(str(words["worse"]), (study.at("comparisons.verdict"),)),
        rest=Number(str(len(known) - sum(words.values())), (study.at("comparisons.verdict"),)),
    )
    yield Panel(
        "effects",
        "Verdicts",
        headline,
        [
            dot_chart(
                rows,
                "differences in percentage points",
                caption,
                where,
                zero=0.0,
                form=style.points,
                longest=26,
            ),
            Bullets(told),
        ],
        [numbers],
        weight=9,
    )


def versus(one: Mapping[str, Any], study: Study) -> str:
    """How a comparison is called."""
    baseline = study.baseline
    alone = baseline is not None and one["against"] == baseline["name"]
    return one["arm"] if alone else f"{one['arm']} against {one['against']}"


Column = tuple[str, str, Callable[[Any], str]]
"""A column of a table: its head, a field with dots, and how a value is written."""


def table(study: Study, part: str, columns: Sequence[Column], caption: str) -> Table:
    """A row for each arm or comparison of the summary; what is unknown is a dash."""
    rows: list[list[Cell]] = []
    for one in study.summary[part]:
        name = versus(one, study) if part == "comparisons" else one["name"]
        row: list[Cell] = [Name(name)]
        for _, field, form in columns:
            value: Any = one
            for key in field.split("."):
                value = value[key]
            row.append(
                Number("-" if value is None else form(value), (study.at(f"{part}.{field}"),))
            )
        rows.append(row)
    return Table(("arm", *(head for head, _, _ in columns)), rows, caption)


COMPARED: tuple[Column, ...] = (
    ("difference", "difference", signed),
    ("95 % interval", "interval", lambda value: between(value, signed)),
    ("bootstrap", "bootstrap_interval", lambda value: between(value, signed)),
    ("p", "p", p_value),
    ("adjusted p", "adjusted_p", p_value),
    ("verdict", "verdict", str),
    ("not equal budget", "unequal", lambda value: ", ".join(value) or "-"),
)

MEASURED: tuple[Column, ...] = (
    ("n", "n", str),
    ("of", "planned", str),
    ("mean", "accuracy.mean", percent),
    ("std", "accuracy.std", points),
    ("95 % interval", "accuracy.interval", between),
    ("lowest", "accuracy.min", percent),
    ("highest", "accuracy.max", percent),
)

SPENT: tuple[Column, ...] = (
    ("parameters", "cost.parameters", whole),
    ("multiply-adds", "cost.macs", lambda value: f"{value / 1e6:.1f} M"),
    ("images per second", "cost.images_per_second", whole),
    ("wall time", "cost.wall_seconds", minutes),
)

STABLE: tuple[Column, ...] = (
    ("largest gradient norm", "stability.largest_gradient_norm", lambda value: f"{value:.2f}"),
    ("loss spikes", "stability.loss_spikes", lambda value: f"{value:g}"),
    ("runs without a result", "failures", lambda value: str(len(value))),
    ("largest rate that trains", "stability.largest_rate", lambda value: f"{value:g}"),
)


def accuracies(study: Study) -> Panel:
    """Every seed of every arm."""
    shown = [arm for arm in study.summary["arms"] if arm["accuracy"]["mean"] is not None]
    where = (study.at("arms.accuracy"),)
    colours = study.colours
    ordered = sorted(shown, key=lambda arm: -arm["accuracy"]["mean"])
    rows = [
        Row(
            arm["name"],
            arm["accuracy"]["mean"],
            arm["accuracy"]["interval"],
            percent(arm["accuracy"]["mean"]),
            colours[arm["name"]],
            points=list(arm["accuracy"]["seeds"].values()),
        )
        for arm in ordered[:16]
    ]
    numbers = table(study, "arms", MEASURED, "Validation accuracy at the last step.")
    if not rows:
        return Panel("accuracy", "Accuracy", say("No arm has a result yet"), [numbers], weight=3)
    images = study.summary["validation_images"]
    caption = say(
        "Mean validation accuracy with its 95 % interval; small dots are the seeds, {n} "
        "validation images each.",
        n=Number(whole(images) if images else "-", (study.at("validation_images"),)),
    )
    figure = dot_chart(rows, "mean accuracy of each arm", caption, where)
    best, worst = ordered[0], ordered[-1]
    headline = say(
        "From {low} to {high}, and every seed is shown",
        low=Number(percent(worst["accuracy"]["mean"]), where),
        high=Number(percent(best["accuracy"]["mean"]), where),
    )
    return Panel("accuracy", "Accuracy", headline, [figure], [numbers], weight=7)


def curves(study: Study) -> Iterator[Panel]:
    """Mean curves of the arms, from the numbers that the study drew its own from."""
    file = study.folder / "figures" / "curves.csv"
    if not file.is_file():
        yield Panel(
            "curves",
            "Training curves",
            say("Curves are drawn when the study is summarised"),
            [Missing("Training curves:", f"vitlab study {address(study.folder)} --yes")],
            weight=0,
        )
        return
    values: dict[tuple[str, str, str], dict[float, list[float]]] = {}
    try:
        with open(file, encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                key = (row["arm"], row["split"], row["number"])
                points_ = values.setdefault(key, {})
                points_.setdefault(float(row["epoch"]), []).append(float(row["value"]))
    except (KeyError, ValueError) as error:
        raise RunError(f"{file} is not what a study writes: {error}") from error
    shown = [arm for arm in study.summary["arms"] if arm["accuracy"]["mean"] is not None]
    shown = sorted(shown, key=lambda arm: -arm["accuracy"]["mean"])[:TOLD_APART]
    figures: list[Block] = []
    for split, number, words, form in (
        ("validation", "accuracy", "Validation accuracy", style.percent),
        ("train", "loss", "Loss of training batches", style.plainly),
    ):
        series = []
        for arm in shown:
            line = values.get((arm["name"], split, number), {})
            means = [(epoch, sum(all_) / len(all_)) for epoch, all_ in sorted(line.items())]
            if means:
                series.append(Line(arm["name"], means, study.colours[arm["name"]]))
        if series:
            caption = say(f"{words}, mean over seeds.")
            where = (study.at(f"{split} {number}", "figures/curves.csv"),)
            figures.append(line_chart(series, words, caption, where, form=form))
    if figures:
        yield Panel(
            "curves",
            "Training curves",
            say("Every arm saw the same images, in the same order for the same seed"),
            figures,
            weight=6,
        )


def costs(study: Study) -> Iterator[Panel]:
    """What accuracy costs."""
    shown = [
        arm
        for arm in study.summary["arms"]
        if arm["accuracy"]["mean"] is not None and arm["cost"]["training_macs"]
    ]
    if not shown:
        return
    marks = [
        Mark(
            arm["cost"]["training_macs"],
            arm["accuracy"]["mean"],
            arm["name"],
            study.colours[arm["name"]],
        )
        for arm in shown[:14]
    ]
    alt = "accuracy against multiply-adds of the whole training: " + ", ".join(
        f"{mark.name} {percent(mark.y)} at {style.prefixed(mark.x)}" for mark in marks
    )
    where = (study.at("arms.cost.training_macs, arms.accuracy.mean"),)
    caption = say("Mean accuracy against what the training of one seed computes.")

    numbers = table(study, "arms", SPENT, "Medians over seeds.")
    cheapest = min(shown, key=lambda arm: arm["cost"]["training_macs"])
    dearest = max(shown, key=lambda arm: arm["cost"]["training_macs"])
    ratio = dearest["cost"]["training_macs"] / cheapest["cost"]["training_macs"]
    headline = say(
        "The dearest arm computes {ratio} times as much as the cheapest",
        ratio=Number(f"{ratio:.1f}", (study.at("arms.cost.training_macs"),)),
    )
    figure = chart(charts.scatter, marks, across="multiply-adds of the whole training", height=3.2,
                   alt=alt, caption=caption, sources=where)  # fmt: skip
    yield Panel("cost", "Cost", headline, [figure, numbers], weight=7)


def stability(study: Study) -> Iterator[Panel]:
    """How calmly each arm trained: gradients, spikes of the loss, and rates that train."""
    known = study.summary["arms"]
    if not all(arm.get("stability") for arm in known):
        return

    rated = any(arm["stability"]["largest_rate"] is not None for arm in known)
    numbers = table(
        study,
        "arms",
        STABLE if rated else STABLE[:-1],
        "Largest gradient norm and number of spikes over all seeds; a spike is a line of training "
        "loss above 1.2 times the median of the five before it.",
    )
    spikes = sum(arm["stability"]["loss_spikes"] or 0 for arm in known)
    wild = max(known, key=lambda arm: arm["stability"]["largest_gradient_norm"] or 0)
    headline = say(
        "{spikes} of the loss; the largest gradient is that of {arm}",
        spikes=Number(
            count(spikes, "spike") if spikes else "No spike",
            (study.at("arms.stability.loss_spikes"),),
        ),
        arm=Name(wild["name"]),
    )
    yield Panel("stability", "Stability", headline, [numbers], weight=7)


def failures(study: Study) -> Iterator[Panel]:
    """Trials without a result, and arms that cannot be."""
    where = (study.at("arms.failures"),)
    rows = [
        [
            Name(arm["name"]),
            Number(str(lost["seed"]), where),
            Name(lost["status"]),
            Name(without_folders(lost["reason"] or "-")),
        ]
        for arm in study.summary["arms"]
        for lost in arm["failures"]
    ]
    rows += [
        [Name(arm["name"]), "-", "refused", Name(without_folders(arm["reason"]))]
        for arm in study.summary["refused"]
    ]
    if rows:
        headline = say("{n} have no result, and are counted", n=count(len(rows), "trial"))
        yield Panel(
            "failures",
            "Without a result",
            headline,
            [Table(("arm", "seed", "status", "reason"), rows)],
            weight=7,
        )


def limits(study: Study) -> Panel:
    """How little the budget can tell."""
    noise = study.summary["noise"]
    words = [f"{part.rstrip('.')}." for part in page.limits(study.summary).split(". ")]
    sentences = [study.sentence(part, "noise, seeds") for part in words]
    sentences.append(
        say(
            "It speaks of this recipe on these images for so many epochs: longer "
            "training may change the order."
        )
    )
    if not study.summary.get("tested"):
        sentences.append(say("The test images were not opened."))
    headline = say("What it can tell is limited by its seeds")
    if noise["detectable"] is not None and not study.summary["exploratory"]:
        headline = say(
            "Differences below {least} points go unseen",
            least=Number(points(noise["detectable"]), (study.at("noise.detectable"),)),
        )
    return Panel("limits", "Limits", headline, [Bullets(sentences)], weight=7)


def trials(study: Study) -> Panel:
    """What to try next, as hypotheses."""
    summary = study.summary
    ideas = []
    better = [one for one in study.comparisons if verdict(one) == "better"]
    where = (study.at("comparisons.verdict"),)
    if len(better) > 1:
        ideas.append(
            say(
                "The {n} changes that help do so together as well: vitlab study {study} "
                "--then best",
                n=Number(str(len(better)), where),
                study=address(study.folder),
            )
        )
    for one in better[:2]:
        ideas.append(
            say(
                "{arm} helps in a longer training too, by less than the {points} points seen here.",
                arm=Name(one["arm"]),
                points=Number(signed(one["difference"]), (study.at("comparisons.difference"),)),
            )
        )
    open_ = [one for one in study.comparisons if verdict(one).startswith("no evidence")]
    needed = summary["noise"]["seeds_for_half_a_point"]
    if open_ and needed:
        ideas.append(
            say(
                "With {n} seeds in each arm, half a point of difference would show in {arms}.",
                n=Number(str(needed), (study.at("noise.seeds_for_half_a_point"),)),
                arms=Sentence(tuple(_names(open_))),
            )
        )
    unequal = [one for one in better if one["unequal"]]
    if unequal:
        ideas.append(
            say(
                "Part of the gain of {arm} is its larger budget ({budget}): a baseline of "
                "equal cost would come nearer.",
                arm=Name(unequal[0]["arm"]),
                budget=Number(", ".join(unequal[0]["unequal"]), (study.at("comparisons.unequal"),)),
            )
        )
    if not ideas:
        ideas.append(
            say(
                "More seeds would show smaller differences: vitlab study {study} --seeds 10",
                study=address(study.folder),
            )
        )
    n = f"{len(ideas)} {'hypothesis' if len(ideas) == 1 else 'hypotheses'}"
    return Panel(
        "next",
        "What to try next",
        say(f"{n}, not findings"),
        [Bullets(ideas, "Hypothesis")],
        weight=7,
    )


def _names(found: list[Mapping[str, Any]]) -> Iterator[Any]:
    for place, one in enumerate(found[:3]):
        if place:
            yield " and "
        yield Name(one["arm"])


def provenance(study: Study) -> Panel:
    """Where the runs come from."""
    rows = [
        ["command", Number(command(study), (study.at("recipe, overrides", STUDY),))],
        ["plan hash", Number(plan_hash(study)[:16], (Source(study.text, STUDY, "(all)"),))],
    ]
    exact = ("on", "yes", True)
    for name, values in study.summary["provenance"].items():
        where = (study.at(f"provenance.{name}"),)
        if name == "bit-reproducible":
            values = ["yes" if value in exact else "no" for value in values]
        if name in ("data", "validation split"):
            values, name = [str(value)[:16] for value in values], f"{name} hash"
        shown = ", ".join("-" if value is None else str(value) for value in dict.fromkeys(values))
        rows.append([name, Number(without_folders(shown), where)])
    devices = [str(value) for value in study.summary["provenance"].get("device", ())]
    headline = say(
        "{n} runs on {device}",
        n=Number(str(study.summary["trials"]["finished"]), (study.at("trials.finished"),)),
        device=Number(", ".join(devices) or "-", (study.at("provenance.device"),)),
    )
    origin = Table(("", study.name), rows)
    return Panel("provenance", "Where it comes from", headline, [origin], weight=9)


def command(study: Study) -> str:
    """What starts the study again."""
    return f"vitlab study {address(study.folder)} --yes"


def plan_hash(study: Study) -> str:
    """Hash of the plan."""
    from vitlab.files import sha256

    file = study.folder / STUDY
    return sha256(file) if file.is_file() else "-"

"""What a report says of a study, from the summary that it wrote of itself."""

import csv
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
    join,
    say,
    whole,
)
from vitlab.report.inside import BESIDE, drawn, parts
from vitlab.report.pictures import chart, dot_chart, line_chart
from vitlab.report.subject import address, plainly, read_existing, resolved, without_folders
from vitlab.run import STUDY, SUMMARY
from vitlab.study import define, page
from vitlab.study.plan import AGAINST_BASELINE, written

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
        *trials(study),
        provenance(study),
    ]
    return Report(
        title=study.text,
        question=say("{question}", question=Name(plainly(summary["question"]))),
        cover=cover(study),
        about=say(
            "Study {name}: {design}, {seeds} for each arm.",
            name=study.name,
            design=design(study),
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
            "arm" if len(summary["arms"]) == 1 else "arms",
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
    headline = say("No comparison is decided")
    if summary["exploratory"]:
        headline = say("A ranking, and no verdict")
    elif not study.comparisons:
        headline = say("Nothing is compared")
    elif decided:
        largest = max(decided, key=lambda one: abs(one["difference"]))
        headline = say(
            "{n} of {all} decided; {arm} differs most, by {points} points",
            n=Number(str(len(decided)), (study.at("comparisons.verdict"),)),
            all=Number(count(len(study.comparisons), "comparison"), (study.at("comparisons"),)),
            arm=Name(versus(largest, study)),
            points=Number(signed(largest["difference"]), (study.at("comparisons.difference"),)),
        )
    return Panel("short", "In short", headline, [Bullets(sentences)], weight=9)


def setting(study: Study) -> Panel:
    """What was planned before the first run."""
    summary = study.summary
    words = page.setting(summary)
    sentences = [
        study.sentence(
            f"{part.rstrip('.')}.", "recipe, design, seeds, validation_images, family, trials"
        )
        for part in words.split(". ")
    ]
    searched = summary["design"] == "search"
    headline = say(
        "{n} found by a search, {seeds} for each"
        if searched
        else "Planned before the first run: {n}, {seeds} for each",
        n=Number(count(len(summary["arms"]), "arm"), (study.at("arms"),)),
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
    headline = say("The baseline is {recipe}", recipe=Name(study.summary["recipe"]))
    if overrides := study.plan.get("overrides"):
        fields = ", ".join(f"{name} {written(value)}" for name, value in overrides.items())
        changes = Number(without_folders(fields), (study.at("overrides", STUDY),))
        headline = say("{start} with {changes}", start=headline, changes=changes)
    blocks: list[Block] = []
    known = resolved(config.data)
    if known.resolved:
        drawing, alt = drawn(replace(config, data=known), "the baseline")
        blocks.append(Figure(drawing, alt, say("The baseline, from its config."), where, tall=True))
    blocks.append(Words(words[:BESIDE], where))
    training = list(techniques.of_training(config))
    more: list[Block] = [Text(say("How it is trained:")), Words(training, where)]
    yield Panel("model", "The model", headline, blocks, more, weight=6)
    if words[BESIDE:]:
        yield parts(words[BESIDE:], Name("the baseline"), where)


def arms(study: Study) -> Panel:
    """What each arm changes, and how that works."""
    words = [
        Word("", arm["name"], arm["explanation"])
        for arm in study.summary["arms"]
        if not arm["baseline"]
    ]
    headline = say("Nothing but the seed")
    if words:
        n = Number(count(len(words), "arm"), (study.at("arms"),))
        headline = say("{n} beside the baseline", n=n)
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
                "Mean validation accuracy with 95 % intervals; no p-value, as this ranks arms by "
                "looking at results."
            )
            figure = dot_chart(rows, "ranking", caption, (study.at("ranking"),))
            yield Panel(
                "effects",
                "Ranking",
                say(
                    "The highest of {n} was picked by its result, so it is likely overestimated",
                    n=Number(count(len(summary["ranking"]), "arm"), (study.at("ranking"),)),
                ),
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
    alone = summary["family"] == AGAINST_BASELINE
    to = "to the baseline" if alone else "of the first arm to the other"
    caption = say(
        "Difference {to} in percentage points with its 95 % interval; the verdict is corrected "
        "over {n} (Holm).",
        to=to,
        n=Number(count(len(study.comparisons), "comparison"), (study.at("comparisons"),)),
    )
    where = (study.at("comparisons.difference, comparisons.interval, comparisons.verdict"),)
    sentences = [study.sentence(words, "comparisons") for words in page.compared(summary)][:3]
    numbers = table(study, "comparisons", COMPARED, "In percentage points.")
    counts = Counter(verdict(one) for one in study.comparisons)
    verdicts = (study.at("comparisons.verdict"),)
    parts = [
        say("{n}: {word}", word=w, n=Number(count(n, "comparison"), verdicts))
        for w, n in counts.items()
    ]
    headline = join(parts, "; ")
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
            Bullets(sentences),
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
    high = Number(percent(best["accuracy"]["mean"]), where)
    headline = say("A mean of {high}", high=high)
    if len(ordered) > 1:
        low = Number(percent(worst["accuracy"]["mean"]), where)
        headline = say("Means from {low} to {high}", low=low, high=high)
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
    known = [arm for arm in study.summary["arms"] if arm["accuracy"]["mean"] is not None]
    shown = sorted(known, key=lambda arm: -arm["accuracy"]["mean"])[:TOLD_APART]
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
            say(
                "Curves of the {n} of highest mean" if len(shown) < len(known) else "Curves of {n}",
                n=Number(count(len(shown), "arm"), (study.at("arms.accuracy.mean"),)),
            ),
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
    macs = (study.at("arms.cost.training_macs"),)
    headline = say(
        "Training computes {least} multiply-adds in each arm"
        + (" with a result" if len(shown) < len(study.summary["arms"]) else ""),
        least=Number(style.prefixed(cheapest["cost"]["training_macs"]), macs),
    )
    if ratio >= 1.01:
        headline = say(
            "The training of {dearest} computes {ratio} times as much as that of {cheapest}",
            dearest=Name(dearest["name"]),
            ratio=Number(f"{ratio:.2f}", macs),
            cheapest=Name(cheapest["name"]),
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
    headline = say(
        "{spikes} of the loss",
        spikes=Number(
            count(spikes, "spike") if spikes else "No spike",
            (study.at("arms.stability.loss_spikes"),),
        ),
    )
    norms = {arm["name"]: arm["stability"]["largest_gradient_norm"] or 0 for arm in known}
    if len(norms) > 1 and any(norms.values()):
        largest = Name(max(norms, key=lambda name: norms[name]))
        words = "{spikes}; the largest gradient is that of {arm}"
        headline = say(words, spikes=headline, arm=largest)
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
        lost = sum(len(arm["failures"]) for arm in study.summary["arms"])
        refused = len(study.summary["refused"])
        parts = [Number(count(lost, "trial"), where)] if lost else []
        parts += [Number(count(refused, "arm"), (study.at("refused"),))] if refused else []
        headline = say(
            "{what} without a result", what=join([Sentence((x,)) for x in parts], " and ")
        )
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
    if not study.summary.get("tested"):
        sentences.append(say("The test images were not opened."))
    headline = say("What it can tell is limited by its seeds")
    if noise["detectable"] is not None and not study.summary["exploratory"]:
        headline = say(
            "Differences below {least} points are found less than four times in five",
            least=Number(points(noise["detectable"]), (study.at("noise.detectable"),)),
        )
    return Panel("limits", "Limits", headline, [Bullets(sentences)], weight=7)


def design(study: Study) -> str:
    """What a study varies, in words."""
    alone = len(study.summary["arms"]) == 1
    return "nothing changed but the seed" if alone else page.DESIGNS[study.summary["design"]]


def trials(study: Study) -> Iterator[Panel]:
    """What to try next: changes together that help one by one, and what is still to come."""
    summary = study.summary
    better = {one["arm"] for one in study.comparisons if verdict(one) == "better"}
    axes = {arm["axis"] for arm in summary["arms"] if arm["name"] in better and arm["axis"]}
    blocks: list[Block] = []
    if summary["design"] == "one-factor" and len(axes) > 1:
        idea = say(
            "Changes of {n} are better than the baseline one by one, so they may be better still "
            "together: {command}",
            n=Number(
                count(len(axes), "axis", "axes"), (study.at("comparisons.verdict, arms.axis"),)
            ),
            command=f"vitlab study {address(study.folder)} --then best",
        )
        blocks.append(Bullets([idea], "Hypothesis"))
    if pending := summary["trials"]["pending"]:
        blocks.append(Missing(f"{count(pending, 'run')} still to come:", command(study)))
    if blocks:
        yield Panel("next", "What to try next", say("What follows from it"), blocks, weight=7)


def provenance(study: Study) -> Panel:
    """Where the runs come from."""
    where = (study.at("recipe, overrides", STUDY),)
    made = made_by(study)
    rows = [["command", Number(made, (study.at("(all)", STUDY),))]] if made else []
    rows += [
        ["to go on with it and summarise it", Number(command(study), where)],
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
        "{n} on {device}",
        n=Number(
            count(study.summary["trials"]["finished"], "finished run"),
            (study.at("trials.finished"),),
        ),
        device=Number(", ".join(devices) or "-", (study.at("provenance.device"),)),
    )
    origin = Table(("", study.name), rows)
    return Panel("provenance", "Where it comes from", headline, [origin], weight=9)


def made_by(study: Study) -> str | None:
    """The command that plans the study anew; None where this version has none that does."""
    plan = study.plan
    if not plan.get("arms") or plan["design"] == "search":
        return None
    seeds, options = len(plan["seeds"]), [f"--seeds {len(plan['seeds'])}"]
    try:
        if plan["name"] in define.ready():
            found = define.read(plan["name"], recipe=plan["recipe"], seeds=seeds)
            words = [plan["name"]]
            if define.read(plan["name"]).recipe != plan["recipe"]:
                words.append(f"--recipe {plan['recipe']}")
        else:
            axes = {axis: map(written, values) for axis, values in plan["axes"].items()}
            vary = [f"{axis}={','.join(values)}" for axis, values in axes.items()]
            given = {} if plan["design"] == "one-factor" else {"design": plan["design"]}
            found = define.from_options(vary, plan["recipe"], seeds=seeds, **given)
            words = [f"--recipe {plan['recipe']}", *(f"--vary {shlex.quote(one)}" for one in vary)]
            options += [f"--design {plan['design']}"] if given else []
        changed = {
            name: written(value)
            for name, value in plan["overrides"].items()
            if name not in found.overrides or found.overrides[name] != value
        }
        found = found.with_overrides(changed)
    except ConfigError:
        return None
    options += [f"--{name} {shlex.quote(value)}" for name, value in changed.items()]
    options += [f"--threads {plan['threads']}"] if plan["threads"] != 1 else []
    same = ("name", "question", "recipe", "design", "overrides", "family", "exploratory", "rivals")
    arms = [(arm.name, arm.changes) for arm in found.arms()]
    sizes = {axis: len(values) for axis, values in plan["axes"].items()}
    if (
        {axis: len(tuple(values)) for axis, values in found.axes.items()} != sizes
        or any(plan[field] != getattr(found, field) for field in same)
        or plan["seeds"] != list(found.seeds)
        or plan.get("margin") != found.margin
        or bool(plan["probes"]) != bool(found.rates)
        or any((arm["name"], arm["changes"]) not in arms for arm in plan["arms"] if arm["changes"])
    ):
        return None
    return without_folders(" ".join(["vitlab study", *words, *options]))


def command(study: Study) -> str:
    """What starts the study again."""
    return f"vitlab study {address(study.folder)} --yes"


def plan_hash(study: Study) -> str:
    """Hash of the plan."""
    from vitlab.files import sha256

    file = study.folder / STUDY
    return sha256(file) if file.is_file() else "-"

"""A study's summary in words: Markdown tables, and sentences computed from the numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from vitlab.compare.page import (
    ACCURACY_COLUMNS,
    accuracy_cells,
    comparison_table,
    picture,
)
from vitlab.figures.study import prefixed
from vitlab.formatting import (
    between,
    bullets,
    count,
    difference,
    estimate,
    markdown_name,
    percent,
    points,
    scaled,
    signed,
    table,
    verdict_sentence,
)
from vitlab.stats import FEWEST
from vitlab.study.plan import written

Summary = Mapping[str, Any]
"""What `results.summarize` returns, or a part of it."""

DESIGNS = {
    "one-factor": "one change at a time around the baseline",
    "grid": "every combination of values",
    "search": "a guided search",
}

ACCURACY = ("mean", "std", "low", "high", "min", "max")
DIFFERENCE = ("difference", "difference_low", "difference_high", "bootstrap_low", "bootstrap_high",
              "p", "adjusted_p", "verdict")  # fmt: skip
COSTS = ("parameters", "macs", "images_seen", "training_macs", "images_per_second",
         "wall_seconds", "peak_memory_bytes")  # fmt: skip
STABILITY = ("largest_gradient_norm", "loss_spikes", "largest_rate")

ARM_COLUMNS = ("arm", "axis", "baseline", "planned", "n", "failed", *ACCURACY, *DIFFERENCE,
               "not_equal", *COSTS, *STABILITY)  # fmt: skip
"""Columns of arms.csv; differences are to the baseline."""


def arm_rows(summary: Summary) -> Iterator[list[Any]]:
    """A row for every arm, in the order of ARM_COLUMNS."""
    baseline = next((arm["name"] for arm in summary["arms"] if arm["baseline"]), None)
    against = {one["arm"]: one for one in summary["comparisons"] if one["against"] == baseline}

    def ends(found: Summary, name: str) -> tuple[Any, Any]:
        low, high = found.get(name) or (None, None)
        return low, high

    for arm in summary["arms"]:
        one = dict(against.get(arm["name"], {}))
        one["difference_low"], one["difference_high"] = ends(one, "interval")
        one["bootstrap_low"], one["bootstrap_high"] = ends(one, "bootstrap_interval")
        accuracy = dict(arm["accuracy"])
        accuracy["low"], accuracy["high"] = ends(accuracy, "interval")
        yield [
            *(arm[name] for name in ("name", "axis", "baseline", "planned", "n")),
            len(arm["failures"]),
            *map(accuracy.get, ACCURACY),
            *map(one.get, DIFFERENCE),
            "; ".join(arm["unequal"]),
            *map(arm["cost"].get, COSTS),
            *map(arm["stability"].get, STABILITY),
        ]


def markdown(summary: Summary) -> str:
    """The whole page."""
    arms = summary["arms"]
    parts = [
        f"# {summary['name']}",
        summary["question"],
        setting(summary),
        "## Findings",
        bullets(findings(summary)),
        "## What this can tell",
        limits(summary),
        "## Accuracy",
        table(("arm", *ACCURACY_COLUMNS), map(accuracy_row, arms)),
        *comparison_part(summary),
        *ranking_part(summary),
        "## Cost",
        "Medians over the seeds. Multiply-adds are of one image, forward; those of the training "
        "count the backward pass twice.",
        table(
            ("arm", "mean", "parameters", "multiply-adds", "of the training", "images per second",
             "wall time", "peak memory", "not equal to the baseline"),
            map(cost_row, arms),
        ),
        "## Stability",
        "A loss spike is a line of training loss above 1.2 times the median of the five lines "
        "before it; spikes are counted over all seeds. A learning rate trains if its run "
        "finishes above 1.3 times the accuracy of chance.",
        table(
            ("arm", "mean", "largest gradient norm", "loss spikes", "learning rates that train"),
            map(stability_row, arms),
        ),
        *scaling_part(summary),
        *failure_part(summary),
        "## Arms",
        bullets(f"**{arm['name']}**: {arm['explanation']}" for arm in arms),
        "## Pictures",
        *picture(
            ("axes", "compute", "curves", *(["scaling"] if summary["scaling"] else [])),
            "axes", "compute", "curves", "scaling",
        ),
        "## Where it comes from",
        table(
            ("", ""),
            (
                [name, ", ".join("-" if value is None else str(value) for value in values)]
                for name, values in summary["provenance"].items()
            ),
        ),
        "`points.csv` has every run with the hash of its config.",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def setting(summary: Summary) -> str:
    """What was planned, in a paragraph."""
    seeds = summary["seeds"]
    images = summary["validation_images"]
    on = f" on {images:,} images" if images else ""
    tested = summary.get("tested")  # summaries of earlier versions have none
    opened = f"opened for {count(tested, 'run')}, afterwards" if tested else "not opened"
    family = (
        "Arms are ranked by looking at results: there is no p-value."
        if summary["exploratory"]
        else f"Family of comparisons, declared beforehand: {summary['family']} "
        f"({len(summary['comparisons'])}), corrected by Holm."
    )
    design = DESIGNS[summary["design"]]
    if len(summary["arms"]) == 1:
        design, family = "nothing changed but the seed", "Nothing is compared."
    overrides = summary.get("overrides")  # summaries of earlier versions have none
    changes = ", ".join(f"{name} {written(value)}" for name, value in (overrides or {}).items())
    return (
        f"Recipe `{summary['recipe']}`{f' with {changes}' if changes else ''}, {design}, "
        f"{count(len(seeds), 'seed')} for each arm ({', '.join(map(str, seeds))}). Accuracy is "
        f"that of the validation split at the last step{on}; the test split was {opened}. "
        f"{family} {progress(summary)}"
    )


def progress(summary: Summary) -> str:
    """How many runs finished, and what became of the others."""
    trials = summary["trials"]
    words = f"{trials['finished']} of {count(trials['planned'], 'run')} finished"
    failures = [failure["status"] for arm in summary["arms"] for failure in arm["failures"]]
    for status in sorted(set(failures)):
        words += f", {failures.count(status)} {status}"
    if summary["refused"]:
        words += f", {count(len(summary['refused']), 'arm')} refused"
    if trials["pending"]:
        words += f", {trials['pending']} still to come: what follows is not final"
    return words + "."


def findings(summary: Summary) -> Iterator[str]:
    """Sentences, most definite first, and last what could not be tried."""
    yield from baseline_finding(summary)
    yield from ranking_findings(summary) if summary["exploratory"] else compared(summary)
    for arm in summary["refused"]:
        yield f"`{arm['name']}` was not trained: {arm['reason']}."


def baseline_finding(summary: Summary) -> Iterator[str]:
    """A sentence on what the baseline reaches, if there is one that finished."""
    baseline = next((arm for arm in summary["arms"] if arm["baseline"]), None)
    if baseline and baseline["n"]:
        reached = estimate(baseline["accuracy"]["mean"], baseline["accuracy"]["interval"])
        named = "" if baseline["name"] == "baseline" else f", `{baseline['name']}`,"
        mean = f"a {'mean ' * (baseline['n'] > 1)}validation accuracy of "
        yield f"The baseline{named} reaches {mean}{reached} over {count(baseline['n'], 'seed')}."


def compared(summary: Summary) -> Iterator[str]:
    """Sentences on the declared comparisons, most definite first."""
    kinds: dict[str, list[Summary]] = {}
    for one in summary["comparisons"]:
        kind = one["verdict"].split(" (")[0].split(";")[0]
        kinds.setdefault(kind, []).append(one)
    for kind in ("better", "worse"):
        for one in kinds.get(kind, ()):
            yield decided(one)
    if undecided := kinds.get("no evidence of a difference"):
        yield (
            f"No evidence of a difference in {count(len(undecided), 'comparison')}: "
            f"{', '.join(versus(one, summary) for one in undecided)}."
        )
    for one in summary["comparisons"]:
        if one["verdict"].startswith(("no verdict", "equal")):
            yield f"{versus(one, summary)}: {one['verdict']}."
    for one in summary["comparisons"]:
        if doubted(one):
            yield (
                f"{versus(one, summary)}: the bootstrap over seeds and images disagrees with the "
                f"interval of the test: {between(one['bootstrap_interval'], signed)} pp against "
                f"{between(one['interval'], signed)} pp, both uncorrected."
            )


def decided(one: Summary) -> str:
    """A sentence on a comparison that came out better or worse."""
    numbers = difference(one["difference"], one["interval"], one["adjusted_p"])
    names = f"`{one['arm']}`", f"`{one['against']}`"
    return verdict_sentence(*names, one["verdict"], numbers, one["unequal"], mark="**")


def doubted(one: Summary) -> bool:
    """Whether the bootstrap finds a difference where the interval of the test does not, or not."""
    if one["bootstrap_interval"] is None or one["p"] is None:
        return False
    apart = [low > 0 or high < 0 for low, high in (one["bootstrap_interval"], one["interval"])]
    return apart[0] != apart[1]


def ranking_findings(summary: Summary) -> Iterator[str]:
    """What a search may say: an order, and what to do next."""
    top = [f"`{row['arm']}`" for row in summary["ranking"][:3]]
    if len(summary["ranking"]) < 2:
        return
    yield f"Highest: {', '.join(top)}; the whole ranking is below."
    yield (
        f"The highest of {len(summary['ranking'])} was picked by its result, so it is likely "
        "overestimated. To check it, train the best arms and the baseline again with new seeds."
    )


def limits(summary: Summary) -> str:
    """How little the budget can tell."""
    noise = summary["noise"]
    if noise["std"] is None:
        return (
            "With a single seed for each arm nothing is known of the noise between seeds, and "
            f"so nothing of whether a difference would be there again. At least {FEWEST} seeds in "
            "each arm are needed, better 5."
        )
    words = (
        f"Runs that differ in nothing but the seed have a standard deviation of "
        f"{points(noise['std'])} pp here{', pooled over arms' if len(summary['arms']) > 1 else ''}"
    )
    if interval := noise.get("std_interval"):  # summaries of earlier versions have none
        words += f" (95 % interval {between(interval, points)} pp)"
    words += "."
    seeds, size = len(summary["seeds"]), noise["comparisons"]
    if noise["detectable"] is not None and not summary["exploratory"]:
        among = f" and {count(size, 'comparison')}" if summary["comparisons"] else ""
        equal = ", so arms without evidence of a difference need not be equal" if among else ""
        words += (
            f" With {count(seeds, 'seed')} for each arm{among}, a difference between two arms of "
            f"that standard deviation must be {points(noise['detectable'])} pp to be found four "
            f"times in five; smaller ones are found less often{equal}."
        )
    if (needed := noise["seeds_for_half_a_point"]) and needed > seeds:
        words += f" Finding a difference of 0.5 pp would take {needed:,} seeds in each arm."
    return words


def accuracy_row(arm: Summary) -> list[str]:
    """How accurate an arm is."""
    name = markdown_name(arm["name"])
    lost = ((failure["seed"], failure["status"]) for failure in arm["failures"])
    return [
        f"**{name}**" if arm["baseline"] else name,
        *accuracy_cells(arm["accuracy"], arm["n"], arm["planned"], lost),
    ]


def comparison_part(summary: Summary) -> Iterator[str]:
    """The declared comparisons."""
    if not summary["comparisons"] or summary["exploratory"]:
        return
    paired = sum(one["paired"] for one in summary["comparisons"])
    yield "## Comparisons"
    yield (
        "Differences in percentage points. The test is Welch's over seeds, unpaired"
        + (f" but for {count(paired, 'comparison')} whose seeds vary together" if paired else "")
        + "; the bootstrap draws seeds and images anew, where predictions are stored."
    )
    yield comparison_table(summary["comparisons"], "arm")


def ranking_part(summary: Summary) -> Iterator[str]:
    """The order of arms that were found by looking at results."""
    if summary["exploratory"]:
        yield "## Ranking"
        yield table(
            ("rank", "arm", "mean", "95 % interval", "over"),
            (
                [str(rank), row["arm"], percent(row["mean"]), between(row["interval"]), row["over"]]
                for rank, row in enumerate(summary["ranking"], 1)
            ),
        )


def cost_row(arm: Summary) -> list[str]:
    """What an arm costs."""
    cost = arm["cost"]
    return [
        arm["name"],
        percent(arm["accuracy"]["mean"]),
        f"{cost['parameters']:,.0f}",
        f"{cost['macs'] / 1e6:,.1f} M",
        "-" if cost["training_macs"] is None else prefixed(cost["training_macs"]),
        scaled(cost["images_per_second"], 1, "", 0),
        scaled(cost["wall_seconds"], 1, " s", 0),
        scaled(cost["peak_memory_bytes"], 1e9, " GB", 2),
        ", ".join(arm["unequal"]),
    ]


def stability_row(arm: Summary) -> list[str]:
    """How calmly an arm trains."""
    stability = arm["stability"]
    rates = [f"{rate}{'' if trains else ' (does not)'}"
             for rate, trains in stability["rates"].items()]  # fmt: skip
    return [
        arm["name"],
        percent(arm["accuracy"]["mean"]),
        scaled(stability["largest_gradient_norm"], 1, "", 2),
        str(stability["loss_spikes"]),
        ", ".join(rates) or "-",
    ]


def scaling_part(summary: Summary) -> Iterator[str]:
    """Fitted curves over the number of training images, and where they cross."""
    if summary["scaling"] is None:
        return
    series, crossings = summary["scaling"]["series"], summary["scaling"]["crossings"]
    yield "## Number of training images"
    yield "Fitted to mean errors: error = a * images^-b + c."
    yield table(
        ("model", "images", "a", "b", "c"),
        (
            [
                one["name"],
                ", ".join(f"{point['images']:,}" for point in one["points"]),
                *(f"{value:.3g}" for value in (one["curve"] or {}).values()),
                *("-" * (0 if one["curve"] else 3)),
            ]
            for one in series
        ),
    )
    yield bullets(crossed(one) for one in crossings)


def crossed(one: Summary) -> str:
    """A sentence on where two curves change places."""
    names = " and ".join(f"`{name}`" for name in one["of"])
    share = f"{100 * one['share']:.0f} % of bootstrap draws"
    if one["images"] is None:
        return f"{names} do not cross within the sizes measured; they do in {share}."
    low, high = one["interval"] or (None, None)
    within = f" (95 % interval {low:,.0f} to {high:,.0f})" if low and high else ""
    return f"{names} cross at {one['images']:,.0f} training images{within}; they do in {share}."


def failure_part(summary: Summary) -> Iterator[str]:
    """Trials without a result, and arms that cannot be."""
    failures = [
        [arm["name"], str(failure["seed"]), failure["status"], failure["reason"]]
        for arm in summary["arms"]
        for failure in arm["failures"]
    ]
    if failures:
        yield "## Without a result"
        yield table(("arm", "seed", "status", "reason"), failures)
    if summary["refused"]:
        yield "## Refused"
        yield table(("arm", "reason"), ([arm["name"], arm["reason"]] for arm in summary["refused"]))


def versus(one: Summary, summary: Summary) -> str:
    """How a comparison is called in a sentence."""
    baseline = any(arm["baseline"] and arm["name"] == one["against"] for arm in summary["arms"])
    return f"`{one['arm']}`" if baseline else f"`{one['arm']}` against `{one['against']}`"

"""Two trained models on the same images: who is right where, and what their difference is worth.

This compares two sets of weights, not the recipes that made them: each is one seed.
"""

from typing import Any

import numpy as np

from vitlab.compare.comparison import Group, changes, incomparable, unequal
from vitlab.compare.facts import Answers, RunFacts
from vitlab.metrics import SHOWN
from vitlab.stats import LEAST, LEVEL, Sample, bootstrap, holm, mcnemar

GROUPS = ("only the run", "only the other", "neither")
"""Who is right about an image on which two models disagree."""


def compare_models(entries: list[RunFacts]) -> list[dict[str, Any]]:
    """Every trained model against the first: a family of tests, corrected by Holm."""
    first, *others = entries
    found = [_compare(entry, first) for entry in others]
    tested = [one for one in found if one["reason"] is None]
    for one, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["adjusted_p"] = p
        decided = p < LEVEL and abs(one["difference"]) > LEAST - 1e-9
        word = "better" if one["difference"] > 0 else "worse"
        one["verdict"] = word if decided else "no evidence of a difference"
    return found


def _compare(one: RunFacts, other: RunFacts) -> dict[str, Any]:
    """A trained model against another; the `reason` says why there is no test."""
    reason = incomparable(one, other)
    alone = [Group(entry.name, [entry], Sample({})) for entry in (one, other)]
    found = {
        "run": one.name,
        "against": other.name,
        "split": one["split"],
        "reason": reason,
        "unequal": unequal(*alone),
        "changes": changes(one.run, other.run),
    }
    if reason is not None:
        return found
    mine, theirs = one.answers, other.answers
    assert mine and theirs and one.provenance
    right, wrong = mine.right, ~mine.right
    only, lost = int((right & ~theirs.right).sum()), int((wrong & theirs.right).sum())
    names = one.provenance["data"]["class_names"]
    return {
        **found,
        "images": len(right),
        "both_right": int((right & theirs.right).sum()),
        "only_run_right": only,
        "only_against_right": lost,
        "both_wrong": int((wrong & ~theirs.right).sum()),
        "same_prediction": int((mine.predicted == theirs.predicted).sum()),
        "accuracy": float(right.mean()),
        "against_accuracy": float(theirs.right.mean()),
        "difference": float(right.mean() - theirs.right.mean()),
        "interval": list(bootstrap(right[None], theirs.right[None])),
        "p": mcnemar(only, lost),
        "classes": _classes(mine, theirs, names),
        "disagreements": _disagreements(mine, theirs, names),
    }


def _classes(mine: Answers, theirs: Answers, names: list[str]) -> list[dict[str, Any]]:
    """The images of every class, with a test each: a family of its own, corrected by Holm."""
    rows: list[dict[str, Any]] = []
    for k, name in enumerate(names):
        here = mine.labels == k
        only = int((here & mine.right & ~theirs.right).sum())
        lost = int((here & ~mine.right & theirs.right).sum())
        images = int(here.sum())
        accuracy = [float(one.right[here].mean()) if images else None for one in (mine, theirs)]
        rows.append(
            {
                "class": name,
                "images": images,
                "accuracy": accuracy[0],
                "against_accuracy": accuracy[1],
                "difference": (only - lost) / images if images else None,
                "only_run_right": only,
                "only_against_right": lost,
                "p": mcnemar(only, lost),
            }
        )
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["adjusted_p"] = p
    return rows


def _disagreements(mine: Answers, theirs: Answers, names: list[str]) -> list[dict[str, Any]]:
    """Every image that two models call differently, in the order of the data set."""
    return [
        {
            "index": int(mine.indices[place]),
            "true": names[mine.labels[place]],
            "predicted": names[mine.predicted[place]],
            "confidence": float(mine.confidence[place]),
            "against_predicted": names[theirs.predicted[place]],
            "against_confidence": float(theirs.confidence[place]),
        }
        for place in np.flatnonzero(mine.predicted != theirs.predicted)
    ]


def kept_images(entries: list[RunFacts]) -> dict[int, np.ndarray]:
    """Images of the split that evaluate kept in any of the runs: index -> (H, W, C), uint8.

    These are some drawn at random, some mistakes, and the mistakes a model was surest of.
    """
    found: dict[int, np.ndarray] = {}
    for entry in entries:
        files = [entry.run.predictions(entry["split"] + tail) for tail in ("", "-gallery")]
        if all(file.is_file() for file in files):
            with np.load(files[0], allow_pickle=False) as arrays:
                indices = arrays["indices"]
            with np.load(files[1], allow_pickle=False) as kept:
                places = indices[kept["places"]].tolist()
                found |= dict(zip(places, kept["images"], strict=True))
    return found


def shown(disagreements: list[dict[str, Any]], kept: dict[int, np.ndarray]) -> list[dict[str, Any]]:
    """At most SHOWN of the disagreements whose images are at hand, the kinds of them in turn."""

    def right_one(one: dict[str, Any]) -> str:
        if one["predicted"] == one["true"]:
            return GROUPS[0]
        return GROUPS[1] if one["against_predicted"] == one["true"] else GROUPS[2]

    at_hand = [one for one in disagreements if one["index"] in kept]
    groups = [[one for one in at_hand if right_one(one) == group] for group in GROUPS]
    turns = [group[turn] for turn in range(SHOWN) for group in groups if turn < len(group)]
    return sorted(turns[:SHOWN], key=lambda one: (GROUPS.index(right_one(one)), one["index"]))

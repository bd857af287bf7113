"""What the tests of comparisons share: run folders as train and evaluate leave them.

There are no weights in them. Who is right about which image is written down, so that every number
that follows can be counted.
"""

import functools
import os

import numpy as np
import pytest

from vitlab.metrics import galleries, summarize
from vitlab.recipes import recipe

CLASSES = ["cat", "dog", "frog"]

IMAGES = 120


def logits_of(predicted, classes, sure=3.0):
    """Logits whose highest is the predicted class."""
    return (sure * np.eye(classes)[predicted]).astype(np.float32)


class Runs:
    """Writes runs into a folder."""

    def __init__(self, write_run, folder):
        self.write_run = write_run
        self.folder = folder

    def make(
        self, name, *, wrong=(), base="digits", changes=None, seed=0, classes=CLASSES,
        finished=True, evaluated=("validation",), fingerprint="f" * 64, split="5" * 64,
        robustness=False, **numbers,
    ):  # fmt: skip
        """A run that calls the images at the places `wrong` by the name of the next class."""
        labels = np.arange(IMAGES) % len(classes)
        predicted = labels.copy()
        predicted[list(wrong)] = (labels[list(wrong)] + 1) % len(classes)
        run = self.write_run(
            self.folder / name,
            recipe(base).override({"train.seed": seed, **(changes or {})}),
            1 - len(wrong) / IMAGES,
            until=1.0 if finished else 0.5,
            numbers=numbers,
            data={
                "fingerprint": fingerprint,
                "class_names": list(classes),
                "train_images": 1000,
                "validation_images": IMAGES,
                "split_sha256": {"validation": split},
            },
        )
        step = run.finished["step"] if run.finished else 100
        results = {}
        for part in evaluated:
            results[part] = {
                "step": step,
                "checkpoint_sha256": f"{name}-{step}",
                "data_fingerprint": fingerprint,
                "index_sha256": split,
                **({"test_openings": 1} if part == "test" else {}),
                **summarize(logits_of(predicted, len(classes)), labels, classes),
            }
            self.save_answers(run, part, labels, predicted)
        if robustness:
            conditions = [
                {"condition": one, "severity": 0, "accuracy": value}
                for one, value in (("clean", 0.9), ("fgsm", 0.3), ("pgd", 0.2))
            ]
            results["validation-robustness"] = {
                "step": step,
                "images": 50,
                "mean_corrupted_accuracy": 0.7,
                "conditions": conditions,
            }
        if results:
            run.write_results(results)
        return run

    def save_answers(self, run, part, labels, predicted):
        logits = logits_of(predicted, labels.max() + 1)
        places = np.unique(np.concatenate(list(galleries(logits, labels).values())))
        images = np.full((len(places), 6, 6, 3), 100, np.uint8)
        kept = {
            "": {"logits": logits, "labels": labels, "indices": 10 * np.arange(len(labels))},
            "-gallery": {"places": places, "images": images},
        }
        for tail, arrays in kept.items():
            file = run.predictions(part + tail)
            file.parent.mkdir(exist_ok=True)
            np.savez_compressed(file, **arrays)

    def seeds(self, name, errors, **more):
        """Runs of one recipe: as many wrong images as asked for, seed by seed."""
        drawn = np.random.default_rng(0)
        return [
            self.make(
                f"{name}-seed{seed}",
                seed=seed,
                wrong=tuple(drawn.permutation(IMAGES)[:count].tolist()),
                **more,
            )
            for seed, count in enumerate(errors)
        ]


@pytest.fixture(scope="package", autouse=True)
def unsynced():
    """Leave the disk alone: nothing here is about a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def runs_in(write_run):
    """Makes runs in a folder of one's own."""
    return functools.partial(Runs, write_run)


@pytest.fixture
def runs(tmp_path, runs_in):
    """Makes runs in a folder of runs."""
    return runs_in(tmp_path / "runs")

"""What the tests of comparisons share: run folders as train and evaluate leave them.

There are no weights in them. Who is right about which image is written down, so that every number
that follows can be counted.
"""

import os

import numpy as np
import pytest

from vitlab.metrics import galleries, summarize
from vitlab.recipes import recipe
from vitlab.run import Run

CLASSES = ["cat", "dog", "frog"]

IMAGES = 120


def logits_of(predicted, classes, sure=3.0):
    """Logits whose highest is the predicted class."""
    return (sure * np.eye(classes)[predicted]).astype(np.float32)


class Runs:
    """Writes runs into a folder."""

    def __init__(self, folder):
        self.folder = folder

    def make(
        self,
        name,
        *,
        wrong=(),
        base="digits",
        changes=None,
        seed=0,
        classes=CLASSES,
        finished=True,
        evaluated=("validation",),
        fingerprint="f" * 64,
        split="5" * 64,
        step=100,
        alarms=(),
        robustness=False,
    ):
        """A run that calls the images at the places `wrong` by the name of the next class."""
        labels = np.arange(IMAGES) % len(classes)
        predicted = labels.copy()
        predicted[list(wrong)] = (labels[list(wrong)] + 1) % len(classes)
        config = recipe(base).override({"train.seed": seed, **(changes or {})})
        path = self.folder / name
        path.mkdir(parents=True)
        run = Run.create(path, config)
        run.write_provenance(
            {
                "command": f"vitlab train {base}",
                "vitlab": "0.1.0",
                "commit": None,
                "python": "3.11",
                "torch": "2.11",
                "device": "a processor",
                "threads": 1,
                "precision": {"value": "fp32", "reason": ""},
                "determinism": {"value": "on", "reason": ""},
                "started": "2026-11-21T04:20:26Z",
                "data": {
                    "fingerprint": fingerprint,
                    "class_names": list(classes),
                    "train_images": 1000,
                    "validation_images": IMAGES,
                    "split_sha256": {"validation": split},
                },
            }
        )
        accuracy = 1 - len(wrong) / IMAGES
        for split_name, value in (("train_clean", 0.99), ("validation", accuracy)):
            for epoch in (1.0, 2.0):
                judged = {"accuracy": value * epoch / 2, "loss": 1 / epoch}
                run.append_metrics({"step": step, "epoch": epoch, "split": split_name, **judged})
        if finished:
            run.finish(
                {
                    "step": step,
                    "epochs": 2,
                    "train_clean": {"loss": 0.1, "accuracy": 0.99},
                    "validation": {"loss": 0.5, "accuracy": accuracy},
                    "parameters": 1000,
                    "macs": 5000,
                    "images_per_second": 100.0,
                    "seconds_per_epoch": 10.0,
                    "clock": {"wall_seconds": 30.0, "process_seconds": 20.0},
                    "peak_memory_bytes": 10_000_000,
                    "alarms": list(alarms),
                }
            )
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
def runs_in():
    """Makes runs in a folder of one's own."""
    return Runs


@pytest.fixture
def runs(tmp_path):
    """Makes runs in a folder of runs."""
    return Runs(tmp_path / "runs")

"""Planted label errors: how many of them `vitlab audit` finds, beside cleanlab.

pip install -r benchmarks/requirements.txt
VITLAB_DATA=FOLDER python benchmarks/label_errors.py

10,000 training images of CIFAR-10 are drawn and described by EfficientNet-Lite0, which takes some
minutes once. A share of them get another label, each of the nine others as likely, for some seeds.
Both are given the same probabilities, out of fold. CIFAR-10 has label errors of its own, about one
in 200 images (Northcutt, Athalye and Mueller, 2021), which count as false for both.
docs/results/label-errors.json is written anew.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cleanlab import __version__ as version  # type: ignore[reportMissingImports]
from cleanlab.filter import find_label_issues  # type: ignore[reportMissingImports]

from vitlab.auditing.audit import DECAY
from vitlab.auditing.confident import label_errors
from vitlab.config import DataConfig
from vitlab.data import open_dataset
from vitlab.files import write_json
from vitlab.frozen import open_backbone
from vitlab.metrics import log_softmax
from vitlab.models.backbone import EFFICIENTNET
from vitlab.selection.folds import assign_folds, linear_logits
from vitlab.training.provenance import device_name

RECORD = Path("docs/results/label-errors.json")
IMAGES = 10_000
RATES, SEEDS = (0.02, 0.08), (0, 1, 2)
CPU = torch.device("cpu")


def planted(labels: np.ndarray, classes: int, rate: float, seed: int) -> np.ndarray:
    """Labels (N,) of which a share is another class than before."""
    draw = np.random.default_rng(seed)
    places = draw.choice(len(labels), round(rate * len(labels)), replace=False)
    noisy = labels.copy()
    noisy[places] = (labels[places] + draw.integers(1, classes, len(places))) % classes
    return noisy


def scores(ranked: np.ndarray, wrong: np.ndarray, seconds: float) -> dict[str, Any]:
    """How well a ranked list of places finds the wrong labels (N,), bool."""
    hits, number = wrong[ranked], int(wrong.sum())
    return {
        "reported": len(ranked),
        "found": int(hits.sum()),
        "recall": float(hits.sum() / number),
        "precision": float(hits.mean()),
        "precision_at_planted": float(hits[:number].sum() / number),
        "seconds": seconds,
    }


def main() -> None:
    """Describe, plant, find, write the record."""
    examples = open_dataset(DataConfig(dataset="cifar10")).examples
    index = np.random.default_rng(0).permutation(len(examples.labels))[:IMAGES]
    features = open_backbone(EFFICIENTNET, 3, CPU).features(examples, index)
    labels, keys, classes = examples.labels[index], examples.keys[index], len(examples.class_names)
    rows = []
    for rate in RATES:
        for seed in SEEDS:
            noisy = planted(labels, classes, rate, seed)
            begun = time.perf_counter()
            folds = assign_folds(keys, noisy, seed)
            logits = linear_logits(features, noisy, folds, classes, DECAY)
            regression = time.perf_counter() - begun
            probabilities, wrong = np.exp(log_softmax(logits)), noisy != labels
            begun = time.perf_counter()
            ours = label_errors(probabilities, noisy).places
            half = time.perf_counter()
            theirs = find_label_issues(
                noisy, probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1
            )
            done = time.perf_counter()
            rows.append(
                {
                    "rate": rate,
                    "seed": seed,
                    "planted": int(wrong.sum()),
                    "agreement": float((logits.argmax(axis=1) == noisy).mean()),
                    "regression_seconds": regression,
                    "vitlab": scores(ours, wrong, half - begun),
                    "cleanlab": scores(np.asarray(theirs), wrong, done - half),
                }
            )
            print(rows[-1], flush=True)
    record = {
        "command": "python benchmarks/label_errors.py",
        "dataset": "cifar10",
        "images": IMAGES,
        "backbone": EFFICIENTNET,
        "weight_decay": DECAY,
        "cleanlab": version,
        "machine": {
            "device": device_name(CPU),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        },
        "rows": rows,
    }
    write_json(RECORD, record)


if __name__ == "__main__":
    main()

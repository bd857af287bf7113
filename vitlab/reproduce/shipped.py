"""Measure the models that ship again: every record and picture of theirs that the pages show.

Each model is judged, corrupted, attacked and explained by itself; once all of them were, they are
compared and their layers looked at.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vitlab import compare, pretrained
from vitlab.evaluate import evaluate, evaluate_robustness
from vitlab.explain import explain
from vitlab.features import features
from vitlab.files import write_json
from vitlab.reproduce import comparison, layers, maps

IMAGES = Path("docs/images")
PICTURES = {
    "cpu/figures/validation-robustness.png": "robustness.png",
    "cpu-plain/explain/validation-11988.png": "explain-maps.png",
    "cpu-plain/explain/validation-11988-attention.png": "explain-attention.png",
    "cpu-plain/explain/distance.png": "explain-distance.png",
    "cpu-plain/explain/faithfulness.png": "explain-faithfulness.png",
    "cpu-cnn/explain/validation-15138-features.png": "explain-features.png",
    "together/compare/figures/curves.png": "compare-curves.png",
    "together/features/layers.png": "features-layers.png",
    "together/features/tsne-pooled.png": "features-tsne.png",
    "together/features/components.png": "features-components.png",
}
"""Where a picture is drawn, and its name on the pages; of the images, those drawn first."""


def measure(folder: Path, names: Sequence[str]) -> list[Path]:
    """Measure the named models in a folder of runs; return what was written for the pages."""
    os.environ["VITLAB_RUNS"] = str(folder)
    written = []
    for name in names:
        run = pretrained.open_run(name)
        evaluate(run)
        evaluate_robustness(run)
        found = explain(run)["faithfulness"]
        written.append(maps.FOLDER / f"{name}.json")
        write_json(written[-1], found)
    shipped = ("cpu", "cpu-plain", "cpu-cnn")
    if all("validation-robustness" in pretrained.open_run(name).results for name in shipped):
        compare.write(shipped, out=folder / "together/compare")
        written.append(comparison.keep(folder / "together/compare/compare.json"))
        found = features("cpu", "cpu-cnn", out=folder / "together/features")
        written.append(layers.RECORD)
        write_json(layers.RECORD, found)
    for drawn, name in PICTURES.items():
        if (folder / drawn).exists():
            written.append(Path(shutil.copy(folder / drawn, IMAGES / name)))
    return written

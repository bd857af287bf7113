"""What goes into the page, and the page itself: a template whose only gap is filled with JSON.

The form of the JSON is `Payload` in web/src/types.ts.

T tokens = a prefix, then patches   D width   d numbers per head   K classes
"""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from vitlab import __version__
from vitlab.config import ModelConfig
from vitlab.errors import VitlabError
from vitlab.explain.attention import added_positions, attention, gradient_rollout, rollout
from vitlab.explain.attribution import grad_cam
from vitlab.explain.faithfulness import CENTRE, RANDOM
from vitlab.explain.filters import feature_maps
from vitlab.formatting import address
from vitlab.inference import TrainedModel
from vitlab.metrics.multilabel import UNTUNED
from vitlab.models import ViT, describe_parts, first_paragraph
from vitlab.models.attention import Attention
from vitlab.models.position import Rope
from vitlab.preprocessing import preprocess
from vitlab.pretrained import names, shipped
from vitlab.records import PASSED, Faithfulness

SCHEMA = 1

LARGEST = 100e6
"""Most bytes of weights in a page: base64 makes a third more of them, and the browser decodes that
before it shows anything."""

METHODS = ("attention", "rollout", "gradient-rollout", "grad-cam")
"""Maps that the page computes."""

TEMPLATE = Path(__file__).with_name("page.html")
"""The page without a model, built from web/."""

GAP = '"__PAYLOAD__"'
"""What of the template is replaced."""


STATIONS = {
    "head": "One linear layer turns the pooled vector into a number per class, the logit. Divided "
    "by a temperature, which makes the model as sure as it is right on validation images, logits "
    "become probabilities (Guo et al., 2017).",
    "classifier": "The last maps become one vector, by their means or as they are, which linear "
    "layers turn into a number per class, the logit. Means leave a single layer to learn, and it "
    "does not matter to them where something was found (Lin et al., 2014).",
    "logit-lens": "The last norm, the pool and the head read the tokens of every block as if it "
    "were the last. Where the answer turns up early, later blocks only make it surer "
    "(nostalgebraist, 2020; of Vision Transformers Vilas et al., 2023).",
    "principal-components": "The three directions in which the patch tokens differ most, as red, "
    "green and blue. Patches of one colour are alike to the model, which often parts an object "
    "from its background (Oquab et al., 2024).",
}
"""What has no class or function of its own to say how it works."""

DESCRIBED = {
    "attention": Attention,
    "attention-map": attention,
    "feature-maps": feature_maps,
    "grad-cam": grad_cam,
    "gradient-rollout": gradient_rollout,
    "pixels": preprocess,
    "rollout": rollout,
}
"""What says in its docstring how it works."""


class Picture(NamedTuple):
    """An image that the page begins with."""

    name: str
    """Of its file, or its place in the data set."""
    title: str
    """What it is, in words."""
    truth: str | None
    """Its class or labels, where they are known."""
    pixels: np.ndarray
    """uint8 (H, W, C), as the model takes it."""


def payload(
    model: TrainedModel, pictures: Iterable[Picture] = (), tested: Faithfulness | None = None
) -> dict[str, Any]:
    """A model, the images to begin with and what is known of its maps, as JSON values.

    Args:
        tested: what `vitlab explain` found of its maps, where it was measured.
    """
    run, form = model.run, model.preprocessing
    height, width = form.image_size
    index, weights = pack(tensors(model.module))
    return {
        "schema": SCHEMA,
        "name": model.name,
        "summary": model.introduction,
        "version": __version__,
        "model": run.config.to_dict()["model"],
        "task": run.config.data.task,
        "classes": list(model.class_names),
        "image": {"height": height, "width": width, "channels": form.channels},
        "mean": list(form.mean),
        "std": list(form.std),
        "temperature": model.temperature,
        "calibrated": model.calibrated,
        "thresholds": thresholds(model),
        "pictures": [
            {**picture._asdict(), "pixels": in_base64(picture.pixels.tobytes())}
            for picture in pictures
        ],
        "verdicts": verdicts(tested),
        "baselines": baselines(tested),
        "tested": tested and f"{tested['images']} {tested['split']} images",
        "explain": f"vitlab explain {argument_of(model)}",
        "parts": parts(run.config.model),
        "tensors": index,
        "weights": in_base64(weights),
    }


def argument_of(model: TrainedModel) -> str:
    """How the run of a model is named in a command, without the folders of an absolute path."""
    name, run = model.name, model.run
    ships = name in names() and shipped(name).checkpoint().sha256 == model.checkpoint.sha256
    return name if ships else address(run.path)


def parts(cfg: ModelConfig) -> dict[str, str]:
    """How each part of a model and each view of it works, by name, in two or three sentences."""
    described = {name: first_paragraph(thing) for name, thing in DESCRIBED.items()}
    found = describe_parts(cfg) | described | STATIONS
    return {name: words.replace("`", "") for name, words in found.items()}


def thresholds(model: TrainedModel) -> list[float] | None:
    """Of a model of several labels, the probability from which on each is given."""
    if model.task.score == "accuracy":
        return None
    return model.card["thresholds"] or [UNTUNED] * len(model.class_names)


def verdicts(tested: Faithfulness | None) -> dict[str, dict[str, Any]]:
    """By method, what the test of its maps came to."""
    return {
        one["method"]: {
            "verdict": one["verdict"],
            "passed": one["verdict"] == PASSED,
            "gain": one["gain"],
        }
        for one in (tested["methods"] if tested else ())
        if one["method"] in METHODS and "verdict" in one
    }


def baselines(tested: Faithfulness | None) -> dict[str, float] | None:
    """The mean gain of a random map and of one that says "the middle"; None if never measured."""
    gains = {one["method"]: one["gain"]["mean"] for one in (tested["methods"] if tested else ())}
    if RANDOM not in gains or CENTRE not in gains:
        return None
    return {"random": gains[RANDOM], "centre": gains[CENTRE]}


def tensors(module: nn.Module) -> dict[str, np.ndarray]:
    """What a forward pass needs, float32 by name: the weights, and what is computed of positions.

    `position.added` (T, D) is what is added to the tokens, unless that is nothing;
    `position.rotation` (2, T, d / 2) are the cosines and sines that rotate queries and keys.
    """
    found = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    if isinstance(module, ViT):
        added = added_positions(module)
        if added.any():
            found["position.added"] = added
        if isinstance(module.pos_embed, Rope):
            found["position.rotation"] = module.pos_embed.table
    return {name: tensor.float().cpu().numpy() for name, tensor in found.items()}


def require_room(model: TrainedModel) -> None:
    """VitlabError if the weights of a model are more than a page holds."""
    _, weights = pack(tensors(model.module))
    if len(weights) > LARGEST:
        raise VitlabError(
            f"the weights of {model.name} take {len(weights) / 1e6:,.1f} MB, and a page holds "
            f"{LARGEST / 1e6:,.0f} MB at most: `vitlab explain` and `vitlab serve` take any model"
        )


def pack(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    """Put arrays one after another, little-endian, each at a multiple of 4 bytes.

    float16 is used where it holds every number of an array exactly.

    Returns:
        Shape, type and first byte of each by name, and the bytes.
    """
    index: dict[str, Any] = {}
    data = bytearray()
    for name, array in arrays.items():
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and differs
            half = array.astype("<f2")
        exact = np.array_equal(half.astype(array.dtype), array)
        stored = half if exact else array.astype("<f4")
        kind = "float16" if exact else "float32"
        index[name] = {"shape": list(array.shape), "dtype": kind, "offset": len(data)}
        data += stored.tobytes()
        data += bytes(-len(data) % 4)
    return index, bytes(data)


def in_base64(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def render(values: Mapping[str, Any]) -> str:
    """The page of a payload; VitlabError if the template is not as it was built."""
    template = TEMPLATE.read_text(encoding="utf-8") if TEMPLATE.is_file() else ""
    if template.count(GAP) != 1:
        raise VitlabError(f"{TEMPLATE} has no single place for {GAP}: build it with `make page`")
    # `<` could end the script, or begin a comment in it.
    text = json.dumps(values, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return template.replace(GAP, text)

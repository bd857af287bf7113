"""Images of the data and pictures that other verbs drew, as addresses that hold them."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from vitlab.metrics import galleries, log_softmax
from vitlab.report.document import (
    Picture,
    Pictures,
    say,
)
from vitlab.report.subject import Subject

LARGEST = 1400
"""Most pixels that a picture is wide or high in a page."""


def samples(one: Subject, kind: str, words: str) -> Pictures | None:
    """Images that evaluate kept, with the model's answers; None where it kept none."""
    file = one.run.predictions(one.split)
    kept = one.run.predictions(f"{one.split}-gallery")
    if not (file.is_file() and kept.is_file()):
        return None
    with np.load(file, allow_pickle=False) as arrays:
        logits, labels, indices = arrays["logits"], arrays["labels"], arrays["indices"]
    with np.load(kept, allow_pickle=False) as arrays:
        places, images = arrays["places"], arrays["images"]
    names = one.run.provenance["data"]["class_names"]
    sure, answers = np.exp(log_softmax(logits).max(axis=1)), logits.argmax(axis=1)
    pictures = []
    for place in galleries(logits, labels)[kind]:
        found = np.flatnonzero(places == place)
        if not len(found):
            continue
        true, answer = names[labels[place]], names[answers[place]]
        right = bool(labels[place] == answers[place])
        said = f"{true}" if kind == "random" else f"{true} → {answer}, {100 * sure[place]:.0f} %"
        pictures.append(
            small(
                images[found[0]],
                f"{one.split} image {indices[place]}: {true}",
                said,
                None if kind == "random" else right,
            )
        )
    if not pictures:
        return None
    where = (
        one.at(kept, "images"),
        one.at(file, "logits, labels"),
    )
    return Pictures(pictures, say(words.format(split=one.split).capitalize() + "."), where)


def small(image: np.ndarray, alt: str, caption: str, good: bool | None) -> Picture:
    """An image of the data, uint8 (H, W, C), as it is."""
    from PIL import Image

    pixels = image[..., 0] if image.shape[-1] == 1 else image
    picture = Image.fromarray(pixels)
    picture.thumbnail((128, 128))
    return Picture(address(picture), alt, caption, good, *picture.size)


def address(picture: Any) -> Markup:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Markup(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def large(path: Path, alt: str) -> Picture | None:
    """A picture that another verb drew; None where it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError):
        return None
    picture.thumbnail((LARGEST, LARGEST))
    return Picture(
        address(picture.quantize(128, Image.Quantize.FASTOCTREE)), alt, "", None, *picture.size
    )

"""Charts as blocks of a report, images of the data, and figures that other verbs drew."""

import base64
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from vitlab.data.labels import in_words
from vitlab.figures import charts, style
from vitlab.figures.charts import Line, Row
from vitlab.metrics import log_softmax
from vitlab.metrics.tasks import TASKS
from vitlab.report.document import Figure, Number, Picture, Pictures, Sentence, Sources, say
from vitlab.report.subject import Subject

LARGEST = 1400
"""Most pixels that a raster picture is wide or high in a page."""

SMALL = (128, 128)
"""Most pixels in width and height of an image of the data."""

HEAVY = 4_000_000
"""Most bytes of an SVG file that a page takes over; of a heavier one it takes the PNG."""


def chart(
    draw: Callable[..., None],
    *numbers: Any,
    height: float,
    alt: str,
    caption: Sentence,
    sources: Sources,
    **options: Any,
) -> Figure:
    """A chart of `vitlab.figures`, as wide as a phone.

    Args:
        draw: a function of axes, `numbers` and `options`.
        height: inches, where the width is `style.NARROW`.
        alt: what it shows, in words.
    """
    with style.drawing(height, alt) as (axes, made):
        draw(axes, *numbers, **options)
    return Figure(Markup(made[0]), alt, caption, sources)


def dot_chart(
    rows: Sequence[Row], what: str, caption: Sentence, sources: Sources, **options: Any
) -> Figure:
    """A dot chart of `charts.dots`; `what` names its numbers."""
    alt = f"{what}: {', '.join(f'{row.name} {row.words}' for row in rows)}"
    height = charts.dots_height(len(rows))
    return chart(
        charts.dots, rows, height=height, alt=alt, caption=caption, sources=sources, **options
    )


def line_chart(
    series: Sequence[Line], what: str, caption: Sentence, sources: Sources, **options: Any
) -> Figure:
    """A chart of `charts.lines` over epochs, higher where its legend has more lines."""
    alt = f"{what} over epochs: {', '.join(line.name for line in series)}"
    height = 2.7 + (0.19 * len(series) if len(series) > 1 else 0)
    return chart(
        charts.lines, series, across="epoch", height=height, alt=alt, caption=caption,
        sources=sources, **options,
    )  # fmt: skip


def samples(one: Subject, kind: str, words: str) -> Pictures | None:
    """Images that evaluate kept, with the model's answers; None where it kept none.

    The caption is `words` with the number of images and the split in the places {n} and {split}.
    """
    found = kept_images(one)
    if found is None:
        return None
    places, images, logits, labels, indices = found
    names = one.run.provenance["data"]["class_names"]
    sure, answers = np.exp(log_softmax(logits).max(axis=1)), logits.argmax(axis=1)
    pictures = []
    for place in TASKS[one.config.data.task].galleries(logits, labels)[kind]:
        where = np.flatnonzero(places == place)
        if not len(where):
            continue
        true, answer = in_words(labels[place], names), names[answers[place]]
        said = f"{true}" if kind == "random" else f"{true} → {answer}, {100 * sure[place]:.0f} %"
        right = None if kind == "random" else bool(labels[place] == answers[place])
        alt = f"{one.split} image {indices[place]}: {true}"
        pictures.append(small(images[where[0]], alt, said, right))
    if not pictures:
        return None
    sources = _of_images(one)
    n = Number(str(len(pictures)), sources[:1])
    return Pictures(pictures, say(words, n=n, split=one.split), sources)


def shared_mistakes(pair: Sequence[Subject], most: int = 18) -> Pictures | None:
    """Kept images on which the first of two runs is right and the other wrong, or the reverse.

    None where the runs do not share images that evaluate kept.
    """
    stored = [kept_images(one) for one in pair]
    if None in stored:
        return None
    (places, images, logits, labels, indices), (_, _, others, *_) = stored  # type: ignore[misc]
    if logits.shape != others.shape:
        return None
    names = pair[0].run.provenance["data"]["class_names"]
    first, second = logits.argmax(axis=1), others.argmax(axis=1)
    pictures = []
    for place, image in zip(places.tolist(), images, strict=True):
        if (first[place] == labels[place]) == (second[place] == labels[place]):
            continue
        said = f"{names[labels[place]]}: {names[first[place]]} / {names[second[place]]}"
        alt = f"{pair[0].split} image {indices[place]}: {names[labels[place]]}"
        pictures.append(small(image, alt, said, bool(first[place] == labels[place])))
    if not pictures:
        return None
    words = "Images that only one of them recognises: the class, then what {a} / {b} say."
    caption = say(words, a=pair[0].name, b=pair[1].name)
    sources = (*_of_images(pair[0]), *_of_images(pair[1])[1:])
    return Pictures(pictures[:most], caption, sources)


def kept_images(one: Subject) -> tuple[np.ndarray, ...] | None:
    """Places and images that evaluate kept; logits, labels and indices of the split."""
    file, kept = one.run.predictions(one.split), one.run.predictions(f"{one.split}-gallery")
    if not (file.is_file() and kept.is_file()):
        return None
    with np.load(file, allow_pickle=False) as all_, np.load(kept, allow_pickle=False) as some:
        return (
            some["places"], some["images"], all_["logits"], all_["labels"], all_["indices"]
        )  # fmt: skip


def _of_images(one: Subject) -> Sources:
    kept = one.run.predictions(f"{one.split}-gallery")
    return one.at(kept, "images"), one.at(one.run.predictions(one.split), "logits, labels")


def small(
    image: np.ndarray, alt: str, caption: str, good: bool | None, largest: tuple[int, int] = SMALL
) -> Picture:
    """An image of the data, uint8 (H, W, C), as it is, or with (width, height) of `largest`."""
    from PIL import Image

    pixels = image[..., 0] if image.shape[-1] == 1 else image
    picture = Image.fromarray(pixels)
    picture.thumbnail(largest)
    return Picture(_address(picture), alt, caption, good, *picture.size)


def _address(picture: Any) -> Markup:
    """A raster picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Markup(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def large(path: Path, alt: str) -> Picture | None:
    """A figure that another verb drew, as its SVG, which a browser shows as an image only.

    An image runs no script and asks for nothing, whatever the file holds, and follows the reader's
    light or dark by the style sheet inside. None where neither PATH.svg nor PATH.png can be read.
    """
    vector = path.with_name(f"{path.name}.svg")
    if vector.is_file() and vector.stat().st_size <= HEAVY:
        body = vector.read_bytes()
        sides = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', body[:2000])
        if sides:
            data = Markup(f"data:image/svg+xml;base64,{base64.b64encode(body).decode()}")
            width, height = (round(4 * float(side) / 3) for side in sides.groups())
            return Picture(data, alt, "", None, width, height)
    return _raster(path.with_name(f"{path.name}.png"), alt)


def _raster(path: Path, alt: str) -> Picture | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError):
        return None
    picture.thumbnail((LARGEST, LARGEST))
    colours = picture.quantize(128, Image.Quantize.FASTOCTREE)
    return Picture(_address(colours), alt, "", None, *picture.size)

"""Arrays given as images and labels: whether they are, and if not, the code that makes them so.

A refusal ends in a line of numpy that makes the array what is wanted, where its shape and values
leave no doubt, because what has to be guessed is guessed wrong: `reshape` puts the channels of a
(N, 3, H, W) where they should be and scrambles every picture.

N images   H, W height and width   C channels, 1 or 3   K classes
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitlab.errors import DataError

NUMBER_CLASSES = "class_names, labels = np.unique({}, return_inverse=True)"
"""What numbers the classes of any labels from 0, without gaps."""


def check_images(given: Any, name: str = "images") -> np.ndarray:
    """Images (N, H, W) or (N, H, W, C), uint8, as (N, H, W, C).

    Args:
        given: an array, or what numpy makes one of.
        name: what messages call it.

    Raises:
        DataError: another shape or another type.
    """
    array = channels_last(given, name)
    if array.dtype != np.uint8:
        refuse_types(array, given, name)
        whole = array.dtype.kind in "iu"
        low, high, x = array.min(), array.max(), written(given, name)
        if low >= 0 and high <= (255 if whole else 1):
            way = f"{x}.astype(np.uint8)" if whole else f"({x} * 255).round().astype(np.uint8)"
        elif low >= 0 and high <= 255:
            way = f"{x}.round().astype(np.uint8)"
        else:
            way = (
                f"(({x} - LOW) / (HIGH - LOW) * 255).round().astype(np.uint8), with the least and "
                f"the largest value that a pixel can have; here they reach from {low:g} to {high:g}"
            )
        raise DataError(
            f"{name} are {array.dtype} {np.shape(given)}: give uint8 of 0 to 255, as in {way}"
        )
    return array


def channels_last(given: Any, name: str) -> np.ndarray:
    """Images of any type as (N, H, W, C), C 1 or 3; DataError for another shape, or no images."""
    try:
        array = np.asarray(given)
    except ValueError:
        raise DataError(f"{name} are of several shapes: {ONE_SHAPE}") from None
    shape = array.shape
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise DataError(
            f"{name} of the shape {shape}: give (N, H, W), or (N, H, W, C) with 1 or 3 channels. "
            + way_to_images(array, written(given, name))
        )
    if 0 in shape:
        raise DataError(f"{name} of the shape {shape}: there are no images in it")
    return array


ONE_SHAPE = "bring them to one height, width and number of channels first, as PIL's resize does"


def way_to_images(array: np.ndarray, x: str) -> str:
    """What brings an array, written as x, to (N, H, W, C): a sentence, or nothing if unknown."""
    shape = array.shape
    if array.ndim == 1 and array.dtype == object:
        one = len({np.shape(each) for each in array}) == 1
        return f"It holds arrays: np.stack({x})" if one else f"It holds several: {ONE_SHAPE}"
    if array.ndim == 2:
        grey, colour = math.isqrt(shape[1]), math.isqrt(shape[1] // 3)
        if shape[1] and grey**2 == shape[1]:
            return f"If a row is an image: {x}.reshape(-1, {grey}, {grey})"
        if shape[1] and 3 * colour**2 == shape[1]:
            return (
                "If a row is an image, one plane of colour after another as CIFAR's are: "
                f"{x}.reshape(-1, 3, {colour}, {colour}).transpose(0, 2, 3, 1). If the three "
                f"colours of a pixel lie side by side: {x}.reshape(-1, {colour}, {colour}, 3)"
            )
        return f"If a row is an image: {x}.reshape(-1, H, W), with its height and width"
    if array.ndim != 4:
        return ""
    last = f"{x}.transpose(0, 2, 3, 1)"
    ways = [
        (shape[1] in (1, 3), f"Channels come last: {last}"),
        (shape[2] in (1, 3), f"Images come first: {x}.transpose(3, 0, 1, 2)"),
        (shape[3] in (2, 4), f"If the last channel is transparency: {x}[..., :{shape[3] - 1}]"),
        (shape[1] in (2, 4), f"Channels last, without transparency: {last}[..., :{shape[1] - 1}]"),
    ]
    return next((way for fits, way in ways if fits), "")


def refuse_types(array: np.ndarray, given: Any, name: str) -> None:
    """DataError for images (N, H, W, C) that are no numbers, or NaN or infinity among them."""
    x = written(given, name)
    if array.dtype.kind not in "iuf":
        code = {"b": f", as in {x}.astype(np.uint8) * 255", "O": f", as in {x}.astype(float)"}
        raise DataError(
            f"{name} are of {array.dtype}: give whole numbers from 0 to 255"
            + code.get(array.dtype.kind, "")
        )
    sound = np.asarray(np.isfinite(array).all(axis=(1, 2, 3)))
    if not sound.all():
        axes = tuple(range(1, np.ndim(given)))
        raise DataError(
            f"{(~sound).sum()} of {len(sound)} {name} hold NaN or infinity, the first at "
            f"{np.flatnonzero(~sound)[:5].tolist()}, and a pixel has neither. Leave them out: "
            f"keep = np.isfinite({x}).all(axis={axes}), and [keep] of images and labels"
        )


def check_labels(
    given: Any, images: int, class_names: Sequence[str] | None, name: str = "labels"
) -> np.ndarray:
    """Labels as int64 (N,), one of each image.

    Args:
        given: an array, or what numpy makes one of.
        images: N.
        class_names: names of the classes, or None where the labels say how many there are: then
            every class from 0 to the largest needs an image.
        name: what messages call it.

    Raises:
        DataError: no integers, not as many as images, or classes that are not numbered from 0.
    """
    labels, x = np.asarray(given), written(given, name)
    if labels.shape != (images,) or labels.dtype.kind not in "iu":
        way = way_to_labels(labels, images, x)
        raise DataError(
            f"{name} are {labels.dtype} {labels.shape}: give each of {images} images an integer"
            + (f". {way}" if way else "")
        )
    refuse_numbering(np.unique(labels), labels, x, class_names)
    return labels.astype(np.int64)


def check_multi_hot(
    given: Any, images: int, class_names: Sequence[str] | None, name: str = "labels"
) -> np.ndarray:
    """Labels as multi-hot uint8 (N, K): 1 where an image has a label; else DataError.

    The arguments are those of `check_labels`.
    """
    labels = np.asarray(given)
    classes = labels.shape[-1] if class_names is None else len(class_names)
    if labels.shape != (images, classes) or labels.dtype.kind not in "biuf":
        raise DataError(
            f"{name} are {labels.dtype} {labels.shape}: data.task=multilabel needs a row of 0 and "
            f"1 for each of {images} images, a column for each label"
            + (f" of {classes} class_names" if class_names is not None else "")
        )
    wrong = np.argwhere((labels != 0) & (labels != 1))
    if len(wrong):
        raise DataError(
            f"{name} hold {labels[tuple(wrong[0])]} at {wrong[0].tolist()}: each of "
            "data.task=multilabel is 0 or 1"
        )
    if len(empty := np.flatnonzero(~labels.any(axis=0))):
        raise DataError(f"no image has the labels of columns {empty[:5].tolist()}: leave them out")
    return labels.astype(np.uint8)


def way_to_labels(labels: np.ndarray, images: int, x: str) -> str:
    """What brings labels, written as x, to integers (N,): a sentence, or nothing if unknown."""
    if labels.ndim > 1 and labels.size == images:
        return f"One row of them: {x}.ravel()"
    if labels.ndim == 2 and len(labels) == images and labels.dtype.kind in "biuf":
        binary = ((labels == 0) | (labels == 1)).all()
        hot = binary and (labels.sum(axis=1) == 1).all()
        if binary and not hot:
            return "If an image may have several labels: data.task=multilabel"
        which = "These are one-hot rows" if hot else "An image has one class, that of its largest"
        return f"{which}: {x}.argmax(axis=1)"
    if labels.shape != (images,):
        return ""
    kind = labels.dtype.kind
    if kind == "f" and not np.isfinite(labels).all():
        count = int((~np.isfinite(labels)).sum())
        return (
            f"{count} of them are NaN or infinite; leave their images out: "
            f"keep = np.isfinite({x}), and [keep] of images and labels"
        )
    if kind == "b" or (kind == "f" and (labels == labels.round()).all()):
        return f"As in {x}.astype(int)"
    return (
        f"If each value is a class: {NUMBER_CLASSES.format(x)}, and its name stays with "
        "vitlab.data.from_arrays(images, labels, class_names)"
    )


def refuse_numbering(
    present: np.ndarray, labels: np.ndarray, x: str, class_names: Sequence[str] | None
) -> None:
    """DataError for integer labels (N,) that do not number their classes from 0.

    Args:
        present: the labels that occur, each once, sorted.
        labels: all of them.
        x: how they are written.
        class_names: as in `check_labels`.
    """
    if not len(present):
        return
    first, last = int(present[0]), int(present[-1])
    if class_names is not None:
        if first == 1 and last == len(class_names):
            raise DataError(
                f"labels start at 1, but there are {last} classes, 0 to {last - 1}: subtract 1, "
                f"as in {x} - 1"
            )
        return
    if len(present) == 1:
        raise DataError(f"all labels are {first}, so there is one class: a classifier needs two")
    if first < 0:
        places = np.flatnonzero(labels < 0)
        raise DataError(
            f"{len(places)} of {len(labels)} labels are below 0: {labels[places[:5]].tolist()} at "
            f"{places[:5].tolist()}. If they mean that the class is unknown, leave their images "
            f"out: keep = {x} >= 0, and [keep] of images and labels. If they are classes: "
            + NUMBER_CLASSES.format(x)
        )
    if len(present) <= last:
        if first == 1 and len(present) == last:
            raise DataError(
                f"labels start at 1, so that class 0 has no image: subtract 1, as in {x} - 1"
            )
        # Among so many numbers there are five that do not occur, or all that do not.
        near = np.arange(min(last, len(present) + 5))
        empty = np.setdiff1d(near, present)[:5].tolist()
        more = last + 1 - len(present) - len(empty)
        raise DataError(
            f"labels reach {last}, but no image is of class {', '.join(map(str, empty))}"
            f"{f' and {more:,} more' if more else ''}. Number those that occur: "
            + NUMBER_CLASSES.format(x)
        )


def written(given: Any, name: str) -> str:
    """How code writes something so that it is an array: tables, lists and tensors are not yet."""
    return name if isinstance(given, np.ndarray) else f"np.asarray({name})"

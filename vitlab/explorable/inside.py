"""A page of a run from beginning to end: open, choose images, look up what is known, write."""

import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from vitlab.data import KNOWN, Data, Root, locate
from vitlab.data.labels import in_words, places_by_class
from vitlab.errors import ConfigError, DataError, RunError, VitlabError
from vitlab.explain import Sample, check_maps, open_sample, read_pictures
from vitlab.explain.faithfulness import SEED
from vitlab.explain.methods import OF_ATTENTION
from vitlab.explorable import page
from vitlab.files import write_text
from vitlab.formatting import address
from vitlab.inference import TrainedModel, load
from vitlab.models import ViT
from vitlab.pretrained import open_run
from vitlab.run import Run


def inside(
    run: Run | str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    count: int = 10,
    data: Data = None,
    device: str = "auto",
    data_root: Root = None,
    quiet: bool = False,
) -> Path:
    """Write a page in which a run's own model computes, to be walked through and taken apart.

    It is one HTML file that asks nobody for anything. The verdicts on its maps are those of
    `vitlab explain`; where there are none yet, they are measured if the run's images are at hand.

    Args:
        run: a Run, its path, or the name of a shipped model, of which a copy is taken.
        images: picture files of any size to begin with. Without any, `count` validation images,
            drawn with a fixed seed, one of each class before a second of any; of a run that was
            trained on all its images, some of these. A page without images begins with an empty
            canvas to draw on.
        out: file to write; default inside.html in the run.
        data: the run's images and labels in memory instead of `config.data.dataset`.
        device: auto, cpu, cuda, ...
        data_root: folder of data sets; default $VITLAB_DATA, else the cache. Nothing is fetched.
        quiet: show no progress.

    Raises:
        ConfigError: fewer than no images, an `out` that is a folder.
        DataError: a file that is no picture, or images that are not those of the run.
        RunError: no sound checkpoint, one in the middle of training on small images, a file or
            folder that cannot be written.
        VitlabError: a pretrained backbone, or a model too large for a page.
    """
    if count < 0:
        raise ConfigError([f"count={count} images cannot be drawn: give 0 or more"])
    if out is not None and Path(out).is_dir():
        raise ConfigError([f"--out {out} is a folder: name a file in it, such as inside.html"])
    run = open_run(run)
    if run.config.model.kind == "backbone":
        raise VitlabError(
            f"{run.name} stands on a pretrained network, which the page does not compute: take a "
            f"run of our own models; `vitlab explain {address(run.path)}` draws maps of this one"
        )
    model = load(run, device=device)
    require_full_size(model)
    files = list(read_pictures(model, images))
    tested = run.faithfulness("validation", model.checkpoint.sha256)
    lacking = {"images to begin with": not files and count > 0, "verdicts on its maps": not tested}
    sample = None
    if any(lacking.values()):
        words = " and no ".join(thing for thing, lacks in lacking.items() if lacks)
        sample = sample_at_hand(run, data, data_root, words)
    if sample and not tested:
        check_maps(model, methods_of(model), sample, quiet=quiet)
        tested = run.faithfulness("validation", model.checkpoint.sha256)
    pictures = [page.Picture(one.name, one.title, None, one.pixels) for one in files]
    if sample and not pictures:
        pictures = list(drawn(sample, count))
    path = Path(out) if out is not None else run.inside
    text = page.render(page.payload(model, pictures, tested))
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; give another --out") from error
    return path


def require_full_size(model: TrainedModel) -> None:
    """Refuse a checkpoint of the epochs on small images: pictures would have to be resized."""
    form = model.preprocessing
    if form.input_size == form.image_size:
        return
    small, full = (" x ".join(map(str, size)) for size in (form.input_size, form.image_size))
    raise RunError(
        f"{model.run.path} was left while it trained on small images, of {small} pixels instead of "
        f"{full}: finish it with `vitlab train --resume {model.run.path}`"
    )


def methods_of(model: TrainedModel) -> list[str]:
    """The maps that the page computes of a model."""
    has_attention = isinstance(model.module, ViT)
    return [name for name in page.METHODS if has_attention or name not in OF_ATTENTION]


def sample_at_hand(run: Run, data: Data, data_root: Root, lacking: str) -> Sample | None:
    """The validation images of a run; None, with a warning, where they are not on this machine.

    Args:
        lacking: what the page does not have without them.

    DataError or RunError for images that were given, or whose place was, and cannot be used.
    """
    name = run.config.data.dataset
    fetched = name in KNOWN and bool(KNOWN[name].mirrors)
    if data is None and fetched and locate(name, data_root) is None:
        why = f"{name} is not on this machine: name picture files, or give --data-root FOLDER"
        warnings.warn(f"{why}. The page has no {lacking}", stacklevel=3)
        return None
    try:
        return open_sample(run, "validation", data, data_root)
    except (DataError, RunError) as error:
        if data is not None or data_root is not None:
            raise
        warnings.warn(f"{error}. The page has no {lacking}", stacklevel=3)
    return None


def drawn(sample: Sample, count: int) -> Iterator[page.Picture]:
    """Images of a sample, one of each class before a second of any."""
    examples, places = sample.examples, sample.places.tolist()
    by_class = places_by_class(examples.labels[sample.places])
    turns = zip_longest(*(part.tolist() for part in by_class))
    order = dict.fromkeys(places[k] for turn in turns for k in turn if k is not None)
    for place in list(order)[:count]:
        title = f"{sample.split} image {place}, drawn at random (seed {SEED})"
        truth = in_words(examples.labels[place], examples.class_names)
        yield page.Picture(f"{sample.split}-{place:05d}", title, truth, examples.images[place])

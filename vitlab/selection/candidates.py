"""What may become a model of some pictures: a way to train each, and what it answers.

    Candidate   by itself the most frequent class, or a vote of neighbours: it makes no run
    Linear      a linear classifier on the features of a frozen network
    Trained     a recipe, from scratch or from weights, one fold after another

N pictures   K classes   D numbers that describe a picture
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitlab.config import Config
from vitlab.data import ARRAYS, Dataset, LabelledImages, Root, open_dataset
from vitlab.data.images import Fit, convert
from vitlab.frozen import Frozen
from vitlab.inference import compute_logits, load
from vitlab.models.cost import cost
from vitlab.preprocessing import to_tensor
from vitlab.pretrained.backbones import resolve
from vitlab.run import Run
from vitlab.selection.folds import FOLDS, assign_folds, held_out, linear_logits
from vitlab.training import scale_to_images, train
from vitlab.training.autotune import estimate_seconds
from vitlab.training.setup import TrainingSetup

BATCH, TIMED = 32, 5
"""Pictures of a batch that is timed, and single ones whose median time is taken."""


class Pool:
    """The pictures to learn from, at any size, and the folds they are held out in.

    Args:
        examples: all but the test images.
        config: any config of theirs: what of them is held out for validation is not in the pool.
        seed: of the folds.
    """

    def __init__(self, examples: LabelledImages, config: Config, seed: int):
        self.fit: Fit = config.data.fit
        self.class_names = examples.class_names
        self.index, _ = examples.split(config.data)
        """Places of the pictures among all, sorted."""
        self.keys, self.labels = examples.keys[self.index], examples.labels[self.index]
        self.folds = assign_folds(self.keys, self.labels, seed)
        self._all = examples
        self._sizes: dict[tuple[int, int], LabelledImages] = {}

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self._all.images.shape[-1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures as they are."""
        height, width = self._all.images.shape[1:3]
        return height, width

    def all_at(self, size: tuple[int, int]) -> LabelledImages:
        """All but the test images, brought to (height, width)."""
        if size == self._all.images.shape[1:3]:
            return self._all
        if size not in self._sizes:
            form = size, self.channels, self.fit
            images = np.stack([convert(one, *form) for one in self._all.images])
            self._sizes[size] = replace(self._all, images=images, known_keys=self._all.keys)
        return self._sizes[size]

    def part(self, size: tuple[int, int], places: np.ndarray) -> LabelledImages:
        """Some pictures of the pool at a size."""
        whole, index = self.all_at(size), self.index[places]
        return LabelledImages(
            whole.images[index], whole.labels[index], self.class_names, known_keys=whole.keys[index]
        )


class Candidate:
    """A way to a model, what it has answered so far, and what that took.

    Args:
        name: what it is, for people.
        pool: the pictures.
        config: what trains it on the pictures; None for what makes no run.
        license: of the weights that it starts from; "" for none.
    """

    def __init__(self, name: str, pool: Pool, config: Config | None = None, license: str = ""):
        self.name = name
        self.pool = pool
        self.config = config
        self.license = license
        self.logits = np.full((len(pool), len(pool.class_names)), np.nan)
        """Of every picture by a model that was not trained on it, (N, K); NaN until then."""
        self.seconds = 0.0
        """Time it took to answer."""
        self.milliseconds: float | None = None
        """From the pixels of one picture to its logits; None where there is no network."""
        self.note = ""
        """Why it was not tried, or not on all pictures."""

    @property
    def answered(self) -> np.ndarray:
        """Which pictures it has classified, (N,)."""
        return ~np.isnan(self.logits[:, 0])

    @property
    def right(self) -> np.ndarray:
        """Which pictures it has classified correctly, (N,); False where it has not yet."""
        answers = np.nan_to_num(self.logits, nan=-np.inf).argmax(axis=1)
        return self.answered & (answers == self.pool.labels)

    @property
    def megabytes(self) -> float | None:
        """Of its weights in fp32; None where it makes no run."""
        return None


class Network(Candidate):
    """A candidate that is trained by a config.

    Args:
        config: its `data` is that of the pictures, at the size that the network sees.
        device: where it is computed.
    """

    config: Config

    def __init__(self, name: str, pool: Pool, config: Config, license: str, device: torch.device):
        super().__init__(name, pool, config, license)
        self.device = device

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that pictures are brought to."""
        return self.config.data.image_size or self.pool.size

    @property
    def megabytes(self) -> float | None:
        """Of its weights in fp32."""
        config, _ = self.of(np.arange(len(self.pool)))
        return 4 * cost(config).parameters / 1e6

    def of(self, places: np.ndarray) -> tuple[Config, Dataset]:
        """The config and the data of a training on some pictures of the pool alone."""
        alone = {"dataset": ARRAYS, "validation_fraction": 0.0, "train_fraction": 1.0}
        data = replace(self.config.data, image_size=self.size, **alone)
        dataset = open_dataset(data, self.pool.part(self.size, places))
        return resolve(replace(self.config, data=dataset.config)), dataset

    def run(
        self,
        config: Config,
        folder: Path,
        name: str,
        data: LabelledImages | None = None,
        root: Root = None,
    ) -> Run:
        """Train a run of the config, its own or that of a part of the pictures.

        Args:
            data: the pictures, where the config does not name a set on the disk.
        """
        where: dict[str, Any] = {"out": folder, "name": name, "device": str(self.device)}
        return train(config, data=data, data_root=root, quiet=True, **where)

    def set_up(self, places: np.ndarray) -> TrainingSetup:
        """A training on some pictures of the pool alone, before its first step."""
        config, dataset = self.of(places)
        return TrainingSetup.build(config, dataset, self.device)


class Linear(Network):
    """A linear classifier on the features of a frozen network: `optim.optimizer=lbfgs`."""

    @cached_property
    def frozen(self) -> Frozen:
        """The network, as a training on all of the pool opens it."""
        setup = self.set_up(np.arange(len(self.pool)))
        return Frozen(setup.state.model, setup.mean, setup.std, setup.state.image_size)

    def seconds_per_image(self) -> float:
        """Find out how long one picture takes, and a picture of a batch, which is returned."""
        some = self.pool.part(self.size, np.arange(BATCH) % len(self.pool))
        images, frozen = to_tensor(some.images).to(self.device), self.frozen
        form: dict[str, Any] = {"mean": frozen.mean, "std": frozen.std, "size": frozen.size}
        self.milliseconds = 1000 * median_seconds(
            lambda: compute_logits(frozen.model, images[:1], **form).cpu()
        )
        return timed(lambda: compute_logits(frozen.model, images, **form).cpu()) / BATCH

    def keep(self, share: float) -> None:
        """Leave out all but a share of the pictures, the same of every class."""
        data = self.config.data
        data = replace(data, train_fraction=share * data.train_fraction)
        self.config = replace(self.config, data=data)

    @property
    def places(self) -> np.ndarray:
        """Which pictures of the pool it is trained on."""
        index, _ = self.pool.all_at(self.size).split(self.config.data)
        return np.searchsorted(self.pool.index, index)

    def answer(self, quiet: bool) -> tuple[np.ndarray, np.ndarray]:
        """Answer for its pictures; return their places and their features (M, D)."""
        begun, places = time.perf_counter(), self.places
        some = self.pool.part(self.size, places)
        every = np.arange(len(places))
        features = self.frozen.features(some, every, quiet=quiet)
        folds, classes = self.pool.folds[places], len(self.pool.class_names)
        decay = self.config.optim.weight_decay
        self.logits[places] = linear_logits(features, some.labels, folds, classes, decay)
        self.seconds += time.perf_counter() - begun
        return places, features


class Trained(Network):
    """A recipe that is trained on all folds but one, and answers for the pictures of that one."""

    def __init__(self, name: str, pool: Pool, config: Config, license: str, device: torch.device):
        super().__init__(name, pool, scale_to_images(config, len(pool)), license, device)
        self._left = list(held_out(pool.folds))

    @cached_property
    def seconds_per_epoch(self) -> float:
        """What one pass over the pictures takes, from two trial steps."""
        setup = self.set_up(np.arange(len(self.pool)))
        config = setup.config.override({"train.epochs": 1})
        precision, steps = setup.settings.precision.value, setup.batches.steps_per_epoch
        return estimate_seconds(config, setup.state.model, self.device, precision, steps)

    @property
    def seconds_of_all(self) -> float:
        """What a training on all of the pictures is expected to take."""
        return self.seconds_per_epoch * self.config.train.epochs

    @property
    def seconds_per_fold(self) -> float:
        """What a training on all folds but one is expected to take."""
        return self.seconds_of_all * (FOLDS - 1) / FOLDS

    def shorten(self, seconds: float, least: int) -> bool:
        """Take fewer epochs where there is no time for a fold and for the run, should it be chosen.

        False if they would be too few. What an epoch has learned is looked at after the last one.
        """
        whole = self.config.train.epochs
        epochs = min(whole, int(seconds / self.seconds_per_epoch / (2 - 1 / FOLDS)))
        if epochs < min(least, whole):
            return False
        self.config = self.config.override(
            {"train.epochs": epochs, "train.evaluate_epochs": float(epochs)}
        )
        return True

    @property
    def done(self) -> bool:
        """Whether it has answered for every fold."""
        return not self._left

    def answer(self, folder: Path) -> None:
        """Answer for the next fold, by a training in a folder."""
        begun = time.perf_counter()
        others, own = self._left.pop(0)
        config, _ = self.of(others)
        name = f"{self.name} {len(self._left)}".replace(" ", "-").replace("/", "-")
        run = self.run(config, folder, name, self.pool.part(self.size, others))
        model = load(run, device=str(self.device))
        self.logits[own] = model.logits(self.pool.part(self.size, own).images)
        one = self.pool.part(self.size, own[:1]).images
        self.milliseconds = 1000 * median_seconds(lambda: model.logits(one))
        self.seconds += time.perf_counter() - begun


class FineTuned(Trained):
    """A backbone that is trained on, from where a linear classifier on its features ends.

    Only then is it told to change its features: an untrained head would spoil them first (Kumar et
    al., 2022).
    """

    def __init__(self, name: str, pool: Pool, config: Config, linear: Linear):
        super().__init__(name, pool, config, linear.license, linear.device)
        self.linear = linear

    def run(
        self,
        config: Config,
        folder: Path,
        name: str,
        data: LabelledImages | None = None,
        root: Root = None,
    ) -> Run:
        """Train a run of the config, beside one of the linear classifier."""
        optim, learning = self.linear.config.optim, self.linear.config.train
        first = replace(
            config, augment=self.linear.config.augment, optim=optim,
            train=replace(learning, seed=config.train.seed),
        )  # fmt: skip
        start = super().run(first, folder, f"{name}-linear", data, root)
        weights = replace(config.train, weights=str(start.path))
        return super().run(replace(config, train=weights), folder, name, data, root)


def timed(act: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def median_seconds(act: Callable[[], object]) -> float:
    """Median of the seconds that some calls take, after one that warms up."""
    act()
    return float(np.median([timed(act) for _ in range(TIMED)]))

"""A config and its images made ready to train: on the device, split, measured, model built.

Everything random is a function of (seed, step, purpose), so what is set up anew and given the step
goes on exactly where another training stopped.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vitlab.config import BackboneConfig, Config
from vitlab.data import Dataset, Subset, statistics
from vitlab.data.augment import normalize
from vitlab.data.batches import Batches, DeviceImages, resize
from vitlab.data.sampling import class_weights
from vitlab.device import LAYOUTS, Choice, choose_compile
from vitlab.models import build_model
from vitlab.models.attention import set_attention_backend
from vitlab.training.autotune import Combination, Settings, choose, rules
from vitlab.training.cuda_graph import build_step
from vitlab.training.distributed import SINGLE, ProcessGroup
from vitlab.training.initial_weights import InitialWeights
from vitlab.training.state import TrainState
from vitlab.training.step import TrainingStep

CLEAN_IMAGES = 5_000
"""Training images, fixed and unaugmented, on which training accuracy is measured."""

CALIBRATION_IMAGES = 5_000
"""Training images that a model's calibrate() sees."""

CALIBRATION_PIXELS = CALIBRATION_IMAGES * 32 * 32
"""Pixels that it sees at once: all of those images, where they are as small as CIFAR's."""

WEIGHTS, DROPOUT = 101, 102
"""Numbers of the weights and of dropout among what draws from a seed, after batches.ORDER."""


@dataclass
class TrainingSetup:
    """What a training works with, ready for its next step."""

    config: Config
    dataset: Dataset
    device: torch.device
    group: ProcessGroup
    images: DeviceImages
    validation: DeviceImages
    clean: np.ndarray
    """Places of the training images on which training accuracy is measured."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batches: Batches
    state: TrainState
    settings: Settings
    trial: dict[Combination, float]
    """Images per second of what was tried before the settings were chosen."""
    compilation: Choice
    weights: InitialWeights | None = None
    """The weights that the model starts from, if they are not random."""

    @classmethod
    def build(
        cls,
        config: Config,
        dataset: Dataset,
        device: torch.device,
        group: ProcessGroup = SINGLE,
        *,
        settings: Settings | None = None,
        initial: bool = True,
    ) -> "TrainingSetup":
        """Move the images to the device; build the model at the size of step 0.

        Args:
            config: a resolved config in which preflight finds no problem.
            dataset: its training and validation images.
            device: where this process computes.
            group: the processes that train together.
            settings: how steps are computed, if that was decided before.
            initial: start from `train.weights`; False where a checkpoint follows.
        """
        weights = InitialWeights.read(config, dataset) if initial else None
        examples, (train_index, validation_index) = dataset.examples, dataset.split
        if isinstance(config.model, BackboneConfig):
            mean, std = config.model.statistics(examples.images.shape[-1])
        else:
            mean, std = statistics(Subset(examples.images, train_index))
        images = DeviceImages(examples, train_index, device)
        batches = Batches(images, config, mean, std)
        trial = {}
        if settings is None and group.world_size > 1:
            settings = rules(config, device)
        if settings is None:
            settings, trial = choose(config, device, len(images))
        precision = settings.precision
        compilation = choose_compile(config, device, batches.steps, precision)
        if group.world_size > 1 and compilation.value == "graph":
            compilation = Choice("off", "the steps of several processes are not replayed")
        torch.manual_seed(derive_seed(config.train.seed, 0, WEIGHTS))
        size = batches.size(0)
        model = build_model(replace(config, data=replace(config.data, image_size=size)))
        set_attention_backend(model, settings.attention.value)
        layout = LAYOUTS[settings.layout.value]
        model.to(device).to(memory_format=layout).train()  # type: ignore[call-overload]
        calibrate = getattr(model, "calibrate", None)
        if calibrate is not None:
            calibrate(calibration_images(batches))
        if weights is not None:  # only now: they bring their own whitening
            weights.fill(model, examples.class_names)
        clean = np.random.default_rng(config.data.split_seed).permutation(len(images))
        return cls(
            config=config,
            dataset=dataset,
            device=device,
            group=group,
            images=images,
            validation=DeviceImages(examples, validation_index, device),
            clean=np.sort(clean[:CLEAN_IMAGES]),
            mean=mean,
            std=std,
            batches=batches,
            state=TrainState.build(model, config.optim, size, precision.value),
            settings=settings,
            trial=trial,
            compilation=compilation,
            weights=weights,
        )

    def build_step(self, teacher: Callable[[Tensor], Tensor] | None = None) -> TrainingStep:
        """The step that moves the state; a teacher maps images (B, C, H, W) to classes (B,)."""
        classes = self.config.data.classes
        assert classes is not None
        weights = class_weights(self.images.host_labels, classes, self.config.train.class_weights)
        return build_step(
            self.state,
            self.config,
            self.settings.precision.value,
            self.compilation.value,
            group=self.group,
            class_weights=torch.from_numpy(weights).to(self.device),
            teacher=teacher,
        )

    def dropout_seed(self, step: int) -> int:
        """Seed of this process's dropout masks at a step."""
        return derive_seed(self.config.train.seed, step, DROPOUT, self.group.rank)


def calibration_images(batches: Batches) -> Iterator[Tensor]:
    """Yield training images (B, C, H, W) as they are at step 0, without augmentation."""
    images, config = batches.images, batches.config
    assert config.data.image_size is not None
    draws = np.random.default_rng(config.train.seed)
    some = draws.permutation(len(images))[:CALIBRATION_IMAGES]
    count = max(2, CALIBRATION_PIXELS // math.prod(config.data.image_size))
    for first in range(0, len(some), count):
        part = images[some[first : first + count]]
        yield resize(normalize(part, batches.mean, batches.std), batches.size(0))


def derive_seed(*key: int) -> int:
    """A seed for torch from the numbers that say what is drawn."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])

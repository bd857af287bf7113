"""A teacher: the finished run whose answers the second classifier of a student learns.

Distillation through a token, as in DeiT (Touvron et al., 2021).
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from vitlab.config import Config
from vitlab.data.batches import resize
from vitlab.device import LAYOUTS, autocast
from vitlab.inference import open_model
from vitlab.recipes import recipe
from vitlab.run import Run
from vitlab.training.setup import TrainingSetup


def teacher_config(config: Config) -> Config:
    """The config of a teacher: its recipe, on the images and with the numbers of its student."""
    assert config.train.teacher is not None
    teacher = recipe(config.train.teacher)
    epochs = config.train.teacher_epochs or teacher.train.epochs
    # A shorter training keeps its share of small images.
    small = teacher.train.small_epochs * epochs // teacher.train.epochs
    train = replace(
        teacher.train,
        epochs=epochs,
        small_epochs=small,
        small_size=teacher.train.small_size if small else None,
        drop_last=False,  # its batches may be larger than all the images of its student
        seed=config.train.seed,
        precision=config.train.precision,
        compile=config.train.compile,
        deterministic=config.train.deterministic,
    )
    return replace(teacher, data=config.data, train=train)


def teacher_answers(teacher: Run, setup: TrainingSetup) -> Callable[[Tensor], Tensor]:
    """What a finished run answers to the images of a student's batch.

    Returns:
        A function of normalised images (B, C, H, W) to classes (B,).
    """
    model = open_model(teacher, teacher.checkpoint(), setup.device)
    model.to(memory_format=LAYOUTS[setup.settings.layout.value])  # type: ignore[call-overload]
    size = setup.config.data.image_size
    assert size is not None

    @torch.no_grad()
    def answer(images: Tensor) -> Tensor:
        with autocast(images.device, setup.settings.precision.value):
            return model(resize(images, size)).argmax(dim=1)

    return answer

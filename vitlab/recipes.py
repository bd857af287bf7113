"""Named starting points: each recipe is a function that returns a whole config.

A docstring says what the recipe is, what it costs and which result to expect; "published"
figures are those of the system it reproduces, and "our reading" marks what that system leaves
open. A recipe that is a variation of another is written as its difference. All of them leave
image size, channels and classes to the data set, so each runs on any data. What has neither a
measured nor a published figure yet is in `vitlab.experiments`.
"""

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vitlab.config import (
    AugmentConfig,
    CNN6Config,
    Config,
    DataConfig,
    OptimConfig,
    ResNet18Config,
    TrainConfig,
    ViTConfig,
    fields_of,
)
from vitlab.errors import ConfigError
from vitlab.experiments import EXPERIMENTS
from vitlab.fields import text, unknown


def digits() -> Config:
    """A first run: a tiny ViT on the 8x8 handwritten digits that come with scikit-learn.

    Sixteen tokens of 2x2 pixels, four blocks of width 64. Positions start as N(0, 0.5), and MixUp
    with CutMix stands in for crops: each seems worth a point (docs/log.md). No flip, as a mirrored
    2 is no 2.
    Cost: 60 epochs, 51 seconds of process time on an Intel Xeon with AVX-512. Expected: 98 to
    99 % of its test images (docs/results.md).
    """
    return Config(
        data=DataConfig(dataset="digits"),
        model=ViTConfig(
            patch_size=2,
            width=64,
            depth=4,
            heads=4,
            init_std=0.5,
            cls_token=False,
            pool="mean",
        ),
        augment=AugmentConfig(mixup=0.4, cutmix=1.0),
        optim=OptimConfig(lr=2e-3, warmup_epochs=5, clip_norm=1.0),
        train=TrainConfig(epochs=60, batch_size=64),
    )


def cpu() -> Config:
    """The accurate run for people without a GPU: a small ViT behind a convolutional stem.

    A frozen whitening and two convolutions make the tokens, three blocks of width 128 follow,
    and a learned average reads them out. A depth-wise convolution in each feed-forward network
    lets tokens see their neighbours and tells them where they are. The first 31 epochs see images
    of 24x24 pixels, which halves their cost.
    Cost: 54 epochs, 162 minutes of process time on one thread of an AMD EPYC with AVX2.
    Expected: 91 % on CIFAR-10's test images (docs/results.md).
    """
    return Config(
        model=ViTConfig(
            patch="whitened",
            width=128,
            depth=3,
            heads=4,
            position="none",
            ffn="dwconv",
            ffn_ratio=2,
            qkv_bias=False,
            cls_token=False,
            pool="seqpool",
        ),
        augment=AugmentConfig(
            crop_padding=4,
            crop_fill="reflect",
            flip="alternating",
            cutout=12,
            label_smoothing=0.1,
        ),
        optim=OptimConfig(
            optimizer="muon",
            lr=3e-3,
            muon_lr=0.02,
            momentum=0.95,
            betas=(0.9, 0.98),
            schedule="linear",
            warmup_epochs=2,
            average_decay=0.998,
        ),
        train=TrainConfig(
            epochs=54, batch_size=256, small_size=(24, 24), small_epochs=31, evaluate_epochs=6
        ),
    )


def cpu_plain() -> Config:
    """`cpu` without its stem: a plain ViT with linear patches, a CLS token and six blocks.

    The model for pictures of attention. It fits its training images less well than `cpu`, so it
    gets a smaller cutout and a longer average.
    Cost: 24 epochs, 104 minutes of process time on one thread of an AMD EPYC with AVX2.
    Expected: 83 % on CIFAR-10's test images (docs/results.md).
    """
    stem = cpu()
    return replace(
        stem,
        model=ViTConfig(width=128, depth=6, heads=4, ffn_ratio=1.5, position_on_cls=True),
        augment=replace(stem.augment, cutout=8),
        optim=replace(stem.optim, average_decay=0.999),
        train=replace(stem.train, epochs=24, small_epochs=14, evaluate_epochs=4),
    )


def cpu_long() -> Config:
    """`cpu` with more time: the same model and images, half as many epochs again.

    Cost: 84 epochs, 133 minutes of process time on one thread of an Intel Xeon with AVX-512.
    Expected: 91 % on CIFAR-10's test images (docs/results.md).
    """
    short = cpu()
    return replace(short, train=replace(short.train, epochs=84, small_epochs=48))


def cpu_cnn() -> Config:
    """The control beside `cpu`: a ResNet-18 a quarter as wide, trained in the same way.

    Images, augmentation, optimiser and epochs are those of `cpu`; the model has 0.70 M parameters.
    Cost: 54 epochs, 148 minutes of process time on one thread of an AMD EPYC with AVX2.
    Expected: 91 % on CIFAR-10's test images (docs/results.md).
    """
    return replace(cpu(), model=ResNet18Config(width=16))


def vit_tiny() -> Config:
    """DeiT-Tiny's shape at patch 4, with strong augmentation.

    Queries, keys and values carry no bias, and a norm follows the patch embedding: our reading
    of the published count of 5,356,234 parameters. DeiT's start of weights is our reading too;
    erasing fills with zero, as torchvision does. Published: 86.70 %, 44 min on a T4.
    Cost: 100 epochs, about 25 hours on two AVX2 cores; a GPU is advised.
    """
    return Config(
        model=ViTConfig(
            init="trunc_normal",
            embed_norm=True,
            width=192,
            depth=12,
            heads=3,
            position_on_cls=True,
            qkv_bias=False,
            dropout=0.1,
        ),
        augment=AugmentConfig(
            policy="trivialaugment",
            erasing=0.25,
            erasing_fill="zero",
            mixup=0.2,
            cutmix=1.0,
            label_smoothing=0.1,
        ),
        optim=OptimConfig(lr=1e-3, warmup_epochs=10, final_lr=1e-5, clip_norm=1.0),
        train=TrainConfig(epochs=100),
    )


def vit_d6_w128() -> Config:
    """A post-norm ViT with neither augmentation nor schedule.

    Blocks are PyTorch's encoder layers: its start of weights, the same in every block, and dropout
    on attention weights. CLS and learned positions start as N(0, 1) and there is no final norm,
    which is probably why sinusoidal positions beat learned ones here. The published program lets
    tokens attend across the batch, a slip that is not built. Published: 65 %, and 70.50 % with
    `--model.position sin1d`. Cost: 50 epochs (our reading), about 3.5 hours on two AVX2 cores.
    """
    return Config(
        model=ViTConfig(
            width=128,
            depth=6,
            heads=8,
            position_on_cls=True,
            init_std=1.0,
            init="torch_encoder",
            norm_eps=1e-5,
            norm_place="post",
            dropout=0.1,
            attention_dropout=0.1,
        ),
        optim=OptimConfig(optimizer="adam", lr=1e-3, weight_decay=0, schedule="constant"),
        train=TrainConfig(epochs=50, batch_size=64),
    )


def vit_d9_w192() -> Config:
    """A mid-sized ViT with dropout everywhere and RandAugment, in fp16.

    Weight decay falls on every parameter, as the published program does (its text says Adam
    without decay); fp16 is in its text only. Our warm-up is a step ahead of the source's, which
    begins at 0. Published: 86.39 %, mean AUC 0.990, mean F1 0.87, 54 s an epoch on a T4.
    Cost: 100 epochs, about 22 hours on two AVX2 cores; a GPU is advised.
    """
    return Config(
        model=ViTConfig(
            width=192,
            depth=9,
            heads=8,
            position_on_cls=True,
            init="trunc_normal",
            norm_eps=1e-5,
            dropout=0.1,
            attention_dropout=0.1,
            embed_dropout=0.1,
        ),
        augment=AugmentConfig(crop_padding=4, flip="random", policy="randaugment"),
        optim=OptimConfig(lr=1e-3, decay="all", warmup_epochs=5),
        train=TrainConfig(epochs=100, precision="fp16"),
    )


def vit_d6_w256() -> Config:
    """A wider ViT trained for long with light augmentation: it learns its training set by heart.

    PyTorch's layers, start of weights included; CLS and positions start as N(0, 1), dropout falls
    on attention weights and both layers of the MLP, but not on attention's projection. Optimiser,
    steps and augmentation are those of the course notes that it follows, with AdamW's customary
    decay of 0.01 on every parameter. The source keeps its best validation epoch, we the last.
    Published: 77 % at a loss of 1.28, and 100 % on the training images.
    Cost: 180 epochs, about 26 hours on two AVX2 cores; a GPU is advised.
    """
    return Config(
        model=ViTConfig(
            width=256,
            depth=6,
            heads=8,
            position_on_cls=True,
            init_std=1.0,
            init="torch",
            norm_eps=1e-5,
            ffn_ratio=2,
            dropout=0.2,
            attention_dropout=0.2,
            proj_dropout=0.0,
            embed_dropout=0.2,
        ),
        augment=AugmentConfig(resized_crop=0.8, flip="random"),
        optim=OptimConfig(
            lr=3e-4,
            weight_decay=0.01,
            decay="all",
            schedule="steps",
            step_epochs=(100, 150),
            step_factors=(0.1, 0.01),
        ),
        train=TrainConfig(epochs=180, drop_last=True),
    )


def cnn6() -> Config:
    """The six-layer CNN beside `vit-d6-w256`: same split, augmentation, steps and epochs.

    Weights start as PyTorch makes them. Epochs, steps and Adam without decay are our reading.
    Published: 89 % at a loss of 0.86. Cost: 180 epochs, about 14 hours on two AVX2 cores.
    """
    sibling = vit_d6_w256()
    return replace(
        sibling,
        model=CNN6Config(init="torch"),
        optim=replace(sibling.optim, optimizer="adam", weight_decay=0),
    )


def resnet18_sgd() -> Config:
    """ResNet-18 for 32x32 images; the rate drops when the validation loss stops falling.

    The source also shows steps. Without a validation split take those:
    `--data.validation_fraction 0 --optim.schedule steps --optim.step_epochs 25,40
    --optim.step_factors 0.5,0.1`. Factor 0.1 and patience 10 of the plateau are our reading.
    Weights start as PyTorch makes them. Published: 93.64 %, mean AUC 0.999, 41 s an epoch on a T4.
    Cost: 50 epochs, about 22 hours on two AVX2 cores; a GPU is advised.
    """
    return Config(
        model=ResNet18Config(init="torch"),
        augment=AugmentConfig(crop_padding=4, flip="random"),
        optim=OptimConfig(
            optimizer="sgd",
            lr=0.1,
            momentum=0.9,
            weight_decay=5e-4,
            decay="all",
            schedule="plateau",
        ),
        train=TrainConfig(epochs=50),
    )


def resnet18() -> Config:
    """ResNet-18 with Nesterov momentum, a cosine and twice the epochs.

    The source publishes no training: all of it is our reading. Published: 93.43 %, 35 min on a
    T4. Cost: 100 epochs, about 43 hours on two AVX2 cores; a GPU is advised.
    """
    sibling = resnet18_sgd()
    return replace(
        sibling,
        optim=replace(sibling.optim, nesterov=True, schedule="cosine"),
        train=TrainConfig(epochs=100),
    )


RECIPES: dict[str, Callable[[], Config]] = {
    "digits": digits,
    "cpu": cpu,
    "cpu-long": cpu_long,
    "cpu-plain": cpu_plain,
    "cpu-cnn": cpu_cnn,
    "vit-tiny": vit_tiny,
    "vit-d6-w128": vit_d6_w128,
    "vit-d9-w192": vit_d9_w192,
    "vit-d6-w256": vit_d6_w256,
    "cnn6": cnn6,
    "resnet18-sgd": resnet18_sgd,
    "resnet18": resnet18,
}
"""What a user is offered: measured here, or published with figures."""

ALL_RECIPES = {**RECIPES, **EXPERIMENTS}
"""Everything that `recipe` knows by name."""


def recipe(name: str) -> Config:
    """The config of a named recipe; ConfigError suggests the nearest name to an unknown one."""
    if name not in ALL_RECIPES:
        raise ConfigError([f"recipe: {unknown(name, ALL_RECIPES)}"])
    return replace(ALL_RECIPES[name](), recipe=name)


def command(config: Config) -> str | None:
    """The command line that makes this config, or None if it does not start from a recipe."""
    if config.recipe not in ALL_RECIPES:
        return None
    whole = recipe(config.recipe)
    # Fields that follow the number of epochs need no option of their own.
    start = fields_of(whole.override({"train.epochs": config.train.epochs}))
    start["train.epochs"] = whole.train.epochs
    # On other images than the recipe's, `vitlab train` scales these unless they are given.
    counts = ("dataset", "train_fraction", "validation_fraction", "test_fraction")
    other = any(getattr(config.data, name) != getattr(whole.data, name) for name in counts)
    given = ("train.epochs", "train.batch_size") if other else ()
    options = [
        f"--{name} {shlex.quote(text(value))}"
        for name, value in fields_of(config).items()
        if name not in start or start[name] != value or name in given
    ]
    return " ".join(["vitlab train", config.recipe, *options])


def shortened(config: Config) -> dict[str, tuple[Any, Any]]:
    """The fields that follow a number of epochs smaller than that of the recipe.

    Returns:
        Dotted name -> (value in the recipe, value in the config).
    """
    if config.recipe not in ALL_RECIPES:
        return {}
    whole, now = recipe(config.recipe), fields_of(config)
    short = fields_of(whole.override({"train.epochs": config.train.epochs}))
    return {
        name: (value, short[name])
        for name, value in fields_of(whole).items()
        if name != "train.epochs" and now.get(name) == short[name] != value
    }

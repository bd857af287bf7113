"""Recipes to be measured: most wait for a GPU, and none has a figure yet.

They are used by name as those of `vitlab.recipes` are, and move there with their first figure.
"""

from collections.abc import Callable
from dataclasses import replace

from vitlab.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    HybridConfig,
    OptimConfig,
    ResNet18Config,
    TrainConfig,
    ViTConfig,
)


def fast() -> Config:
    """A plain ViT for a GPU in a hurry: few epochs, half of them at 24x24 pixels, under Muon.

    Width 256, six blocks, 64 tokens, read out by their mean; RMSNorm and QK-norm keep a high
    learning rate stable. The step is replayed as a CUDA graph.
    Cost: 18 epochs.
    """
    return Config(
        model=ViTConfig(
            width=256,
            depth=6,
            heads=4,
            norm="rms",
            qk_norm=True,
            qkv_bias=False,
            cls_token=False,
            pool="mean",
        ),
        augment=AugmentConfig(
            crop_padding=2,
            crop_fill="reflect",
            flip="alternating",
            cutout=8,
            label_smoothing=0.2,
        ),
        optim=OptimConfig(
            optimizer="muon",
            lr=3e-3,
            muon_lr=0.02,
            momentum=0.95,
            betas=(0.9, 0.95),
            schedule="linear",
            warmup_epochs=3,
            average_decay=0.99,
        ),
        train=TrainConfig(
            epochs=18,
            batch_size=512,
            small_size=(24, 24),
            small_epochs=9,
            drop_last=True,
            compile="graph",
            evaluate_epochs=18,
            checkpoint_epochs=18,
        ),
    )


def fast_adamw() -> Config:
    """`fast` under AdamW: the twin that says what Muon is worth.

    Cost: 18 epochs. Its rate is not yet tuned.
    """
    muon = fast()
    return replace(muon, optim=replace(muon.optim, optimizer="adamw", lr=2e-3))


def fast_conv() -> Config:
    """`fast` behind a convolutional stem, which should reach 90 % in as many epochs.

    Cost: 18 epochs.
    """
    plain = fast()
    return replace(plain, model=replace(plain.model, patch="whitened", pool="seqpool"))


def fast_deep() -> Config:
    """`fast` with two blocks more and twice the epochs: a plain ViT that should reach 90 %.

    Cost: 40 epochs, 20 of them at 24x24 pixels.
    """
    plain = fast()
    return replace(
        plain,
        model=replace(plain.model, depth=8),
        train=replace(
            plain.train, epochs=40, small_epochs=20, evaluate_epochs=20, checkpoint_epochs=20
        ),
    )


def small() -> Config:
    """A plain ViT of 2.7 M parameters, the size on which much of the literature measures.

    Width 192, nine blocks, feed-forward networks of twice the width; trained like `strong-plain`,
    half the time at 24x24 pixels.
    Cost: 160 epochs.
    """
    strong = strong_plain()
    return replace(
        strong,
        model=replace(strong.model, width=192, depth=9, heads=3, ffn_ratio=2),
        train=replace(
            strong.train,
            epochs=160,
            batch_size=512,
            small_size=(24, 24),
            small_epochs=80,
            evaluate_epochs=20,
        ),
    )


def small_long() -> Config:
    """`small` for as many images as its strongest public relative saw, and all of them at 32x32.

    Cost: 300 epochs.
    """
    short = small()
    return replace(
        short,
        train=replace(short.train, epochs=300, small_size=None, small_epochs=0, evaluate_epochs=30),
    )


def strong_conv() -> Config:
    """A conv-stem ViT, meant to take less than ten minutes on a large GPU.

    Three convolutions make 64 tokens of width 384, ten blocks follow, and the whole recipe of
    small-data training keeps 250 epochs from learning the images by heart.
    Cost: 250 epochs.
    """
    return Config(
        model=ViTConfig(
            patch="conv",
            width=384,
            depth=10,
            heads=6,
            position="rope",
            norm="rms",
            qk_norm=True,
            qkv_bias=False,
            cls_token=False,
            pool="seqpool",
            drop_path=0.1,
        ),
        augment=AugmentConfig(
            crop_padding=4,
            crop_fill="reflect",
            flip="alternating",
            policy="trivialaugment",
            erasing=0.25,
            mixup=0.8,
            cutmix=1.0,
            label_smoothing=0.1,
        ),
        optim=OptimConfig(
            optimizer="muon",
            lr=2e-3,
            muon_lr=0.02,
            momentum=0.95,
            betas=(0.9, 0.95),
            warmup_epochs=8,
            average_decay=0.999,
        ),
        train=TrainConfig(
            epochs=250, batch_size=1024, drop_last=True, evaluate_epochs=25, checkpoint_epochs=10
        ),
    )


def strong_cnn() -> Config:
    """The control beside `strong-conv`: a ResNet-18 under the same recipe, for about its time.

    A step of it costs less than half, so by arithmetic it has twice the epochs.
    Cost: 500 epochs.
    """
    stem = strong_conv()
    return replace(
        stem,
        model=ResNet18Config(),
        train=replace(stem.train, epochs=500, evaluate_epochs=50, checkpoint_epochs=20),
    )


def strong_plain() -> Config:
    """`strong-conv` without its stem: a plain ViT-S at patch 4, twelve blocks deep.

    Cost: 230 epochs.
    """
    stem = strong_conv()
    return replace(
        stem,
        model=replace(stem.model, patch="linear", depth=12),
        train=replace(stem.train, epochs=230),
    )


def strong_plain_distilled() -> Config:
    """`strong-plain` that also learns from a CNN trained first, in the same run and time.

    A line of its own in every table: what it reaches is not the ViT's alone.
    Cost: 24 epochs of the teacher `cnn-teacher`, then 200.
    """
    plain = strong_plain()
    return replace(
        plain,
        model=replace(plain.model, distill_token=True),
        train=replace(plain.train, epochs=200, teacher="cnn-teacher"),
    )


def cnn_teacher() -> Config:
    """A ResNet-18 that is trained briefly, to teach.

    Cost: 24 epochs.
    """
    hurry = fast()
    return replace(
        hurry,
        model=ResNet18Config(),
        augment=replace(hurry.augment, crop_padding=4, cutout=12),
        # The last batch is kept, for a teacher is also asked for where images are few.
        train=replace(
            hurry.train,
            epochs=24,
            small_epochs=12,
            drop_last=False,
            evaluate_epochs=24,
            checkpoint_epochs=24,
        ),
    )


def most_accurate() -> Config:
    """A hybrid, meant for half an hour on a large GPU: convolutions at 16x16, then a wide ViT.

    Four convolutional blocks of width 192 see the image at half its size; ten Transformer blocks
    of width 512 with a convolution in their feed-forward network see the 64 tokens it becomes.
    Cost: 430 epochs.
    """
    stem = strong_conv()
    return replace(
        stem,
        model=HybridConfig(
            stage_width=192,
            stage_depth=4,
            patch="conv",
            patch_convs=1,
            width=512,
            depth=10,
            heads=8,
            position="rope",
            norm="rms",
            qk_norm=True,
            qkv_bias=False,
            ffn="dwconv",
            cls_token=False,
            pool="seqpool",
            drop_path=0.2,
        ),
        optim=replace(stem.optim, average_decay=0.9998),
        train=replace(stem.train, epochs=430, checkpoint_epochs=5),
    )


def linear() -> Config:
    """A linear classifier on the features of a pretrained network: for tens of pictures a class.

    Logistic regression on what EfficientNet-Lite0, trained on ImageNet, makes of an image.
    `--model.name` takes another backbone.
    Cost: a look at every image.
    """
    return Config(
        data=DataConfig(validation_fraction=0.1),
        model=BackboneConfig(),
        optim=OptimConfig(optimizer="lbfgs", weight_decay=0.3),
        train=TrainConfig(epochs=1, batch_size=32),
    )


def finetune() -> Config:
    """A pretrained network that is trained on: its first layers little, its head most.

    The learning rate falls by a quarter from block to block towards the pixels (Bao et al., 2022).
    Cost: 10 epochs of a network for images of 224x224 pixels.
    """
    return Config(
        model=BackboneConfig(),
        augment=AugmentConfig(flip="random", label_smoothing=0.1),
        optim=OptimConfig(lr=3e-4, layer_decay=0.75, warmup_epochs=1, clip_norm=1.0),
        train=TrainConfig(epochs=10, batch_size=32),
    )


EXPERIMENTS: dict[str, Callable[[], Config]] = {
    "linear": linear,
    "finetune": finetune,
    "fast": fast,
    "fast-adamw": fast_adamw,
    "fast-conv": fast_conv,
    "fast-deep": fast_deep,
    "small": small,
    "small-long": small_long,
    "strong-conv": strong_conv,
    "strong-cnn": strong_cnn,
    "strong-plain": strong_plain,
    "strong-plain-distilled": strong_plain_distilled,
    "cnn-teacher": cnn_teacher,
    "max": most_accurate,
}

"""What an experiment is: five frozen dataclasses, validated when they are made.

A field is a fact about the experiment. Where it runs (device, folders) and how much it
prints are arguments of a verb, not fields. Off is None or 0. Values that follow from
other values are properties, so an override can never leave them behind. The string
under a field is its `--help` text.

Only the standard library is imported here: `vitlab --help` must not wait for torch.
"""

import ast
import contextlib
import dataclasses
import difflib
import functools
import hashlib
import inspect
import json
import math
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

from vitlab.errors import ConfigError

SCHEMA = 6
"""Number of the config.json layout; a run of a later number is refused, not guessed at."""

ADDED = {
    2: (
        "data.fit",
        "model.pad_to_patch",
        "model.lsa",
        "model.distill_token",
        "optim.hold_epochs",
        "optim.layer_decay",
        "optim.freeze",
        "optim.sam",
        "train.weights",
        "train.teacher",
        "train.teacher_epochs",
        "train.teacher_share",
        "train.accumulate",
        "train.class_weights",
        "train.sampler",
        "train.stop_accuracy",
        "train.stop_patience",
    ),
    3: ("data.unreadable",),
    4: ("train.attention", "train.layout"),
    5: ("data.max_pixels", "data.grey_range", "train.overlap"),
    6: ("model.init", "model.norm_eps", "model.proj_dropout", "augment.erasing_fill"),
}
"""Fields by the schema that brought them. Each defaults to what earlier versions did, so that is
what a run of an earlier schema has."""


PIXELS, WIDTH, DEPTH, CLASSES, EPOCHS = 4_096, 65_536, 256, 100_000, 1_000_000
"""Limits that no experiment of ours comes near: a config beyond them is damaged or a slip, and
would keep a machine busy or take all its memory before anything is trained or read."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A group of fields that checks its types, its vocabularies and then its own rules."""

    def __post_init__(self):
        problems = [
            f"{name}={value!r} is not {describe(hint)}"
            for name, hint in hints(type(self)).items()
            if not fits(value := getattr(self, name), hint)
        ]
        problems += self._problems() if not problems else []
        if problems:
            raise ConfigError(problems)
        for name, hint in hints(type(self)).items():
            # 2 where 2.0 is meant would give an equal config another hash.
            object.__setattr__(self, name, parse(getattr(self, name), hint))

    def _problems(self) -> Iterator[str]:
        """Yield one sentence per rule that the fields break together."""
        yield from ()


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Which images, in which form, and how they are split."""

    dataset: str = "cifar10"
    """A known name (`vitlab datasets`), a folder of class folders or Parquet, or a CSV file."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels that every image is brought to; None takes the data set's own."""
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    """How an image of another shape comes to `image_size`: distorted, bordered or trimmed."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """Images that cannot be read: named and the set refused, or named, left out and counted."""
    max_pixels: int = 200_000_000
    """Largest image that is read, height times width; a larger one is unreadable."""
    grey_range: tuple[int, int] | None = None
    """Values of 16-bit images that become 0 and 255; None takes the training images' extremes."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; None takes the data set's own."""
    classes: int | None = None
    """Number of classes; None takes the data set's own."""
    validation_fraction: float = 0.1
    """Share of the training images set aside for validation, the same share of every class."""
    test_fraction: float = 0.2
    """Share of all images kept as the test split where the data set comes without one."""
    train_fraction: float = 1.0
    """Share of the training images (validation taken off) that is trained on."""
    split_seed: int = 0
    """Seed of the splits; separate from the training seed, so that all seeds share one split."""

    def _problems(self) -> Iterator[str]:
        if not self.dataset:
            yield "dataset='' names nothing: give a known name or a folder"
        yield from pixels(self, "image_size")
        if self.grey_range is not None and not 0 <= self.grey_range[0] < self.grey_range[1]:
            yield f"grey_range={self.grey_range} needs a low and a higher value, 0 or more"
        yield from within(self, "max_pixels", 1)
        if self.classes is not None and not 2 <= self.classes <= CLASSES:
            yield f"classes={self.classes}: a classifier needs at least two, at most {CLASSES}"
        yield from within(self, "validation_fraction", 0, 1, open_end=True)
        yield from within(self, "test_fraction", 0, 1, open_start=True, open_end=True)
        yield from within(self, "train_fraction", 0, 1, open_start=True)
        yield from within(self, "split_seed", 0)

    @property
    def resolved(self) -> bool:
        """True once image size, channels and classes are known."""
        return None not in (self.image_size, self.channels, self.classes)


Patch = Literal["linear", "conv", "cct", "overlap", "spt", "whitened"]
Position = Literal["none", "learned", "sin1d", "sin2d", "rope"]
Norm = Literal["layer", "rms"]
Ffn = Literal["gelu", "swiglu", "dwconv"]
Pool = Literal["cls", "mean", "cls+mean", "seqpool"]
Init = Literal["xavier", "trunc_normal", "torch", "torch_encoder"]


@dataclass(frozen=True, kw_only=True)
class ViTConfig(Section):
    """A Vision Transformer: one field per architectural axis."""

    kind: Literal["vit"] = "vit"
    """The family of the model."""
    patch: Patch = "linear"
    """How an image becomes patch tokens."""
    patch_size: int = 4
    """Pixels a token spans on each side: the total stride of the patch embedding."""
    patch_convs: int | None = None
    """3x3 convolutions of patch='conv', 1 to 3; None takes 3."""
    pad_to_patch: bool = False
    """Border images with the mean colour up to a multiple of `patch_size`."""
    embed_norm: bool = False
    """A norm on the patch tokens before the position is added."""
    width: int = 192
    """Numbers per token in the residual stream."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 3
    """Attention heads; width must be a multiple."""
    position: Position = "learned"
    """How tokens know where they are."""
    position_on_cls: bool = False
    """Give the CLS token a position as well."""
    init_std: float = 0.02
    """Standard deviation of CLS, registers and learned positions at the start."""
    init: Init = "xavier"
    """How weights are drawn; torch as PyTorch makes layers, torch_encoder all blocks alike."""
    norm: Norm = "layer"
    """The normalisation used everywhere."""
    norm_eps: float = 1e-6
    """What norms add to the variance, or to the mean square, before its root."""
    norm_place: Literal["pre", "post"] = "pre"
    """Before each branch (and once at the end), or after each residual sum."""
    ffn: Ffn = "gelu"
    """The feed-forward network of a block."""
    ffn_ratio: float = 4.0
    """Hidden width of the feed-forward network over `width`; swiglu shrinks to match parameters."""
    qkv_bias: bool = True
    """A bias on queries, keys and values."""
    qk_norm: bool = False
    """Normalise queries and keys per head before their product."""
    lsa: bool = False
    """Locality self-attention: a learned temperature, and no token attends to itself."""
    cls_token: bool = True
    """A learned token that gathers the image."""
    distill_token: bool = False
    """A learned token with a head of its own, which learns from a teacher."""
    registers: int = 0
    """Learned tokens that hold scratch values and are never read out."""
    pool: Pool = "cls"
    """How tokens become the one vector the head sees."""
    dropout: float = 0.0
    """Dropout after attention projections and after both layers of feed-forward networks."""
    proj_dropout: float | None = None
    """Dropout after attention projections; None takes `dropout`."""
    attention_dropout: float = 0.0
    """Dropout on attention weights."""
    embed_dropout: float = 0.0
    """Dropout on tokens after the position is added."""
    drop_path: float = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0 at the first."""
    layer_scale: float = 0.0
    """Start value of a learned scale on each branch; 0 is off."""

    def _problems(self) -> Iterator[str]:
        yield from within(self, "patch_size", 1, PIXELS)
        yield from within(self, "width", 1, WIDTH)
        yield from within(self, "depth", 1, DEPTH)
        yield from within(self, "heads", 1, WIDTH)
        for name in ("dropout", "attention_dropout", "embed_dropout", "drop_path"):
            yield from within(self, name, 0, 1, open_end=True)
        if self.proj_dropout is not None:
            yield from within(self, "proj_dropout", 0, 1, open_end=True)
        yield from within(self, "norm_eps", 0, 1, open_start=True)
        yield from within(self, "registers", 0, 1_000)
        yield from within(self, "layer_scale", 0)
        yield from within(self, "init_std", 0)
        yield from within(self, "ffn_ratio", 0, 10**12, open_start=True)
        if self.heads > 0 and self.width % self.heads:
            yield f"width={self.width} is not a multiple of heads={self.heads}"
        elif self.position == "rope" and self.head_width % 4:
            yield (
                f"position='rope' rotates pairs along two axes: width/heads={self.head_width} "
                "must be a multiple of 4"
            )
        if self.position == "sin2d" and self.width % 4:
            yield f"position='sin2d' needs a width that is a multiple of 4, not {self.width}"
        if self.position == "sin1d" and self.width % 2:
            yield f"position='sin1d' needs an even width, not {self.width}"
        if self.position_on_cls and self.position in ("none", "rope"):
            yield f"position_on_cls=True has no meaning with position={self.position!r}"
        if self.position_on_cls and not self.cls_token:
            yield "position_on_cls=True needs cls_token=True"
        if "cls" in self.pool and not self.cls_token:
            yield f"pool={self.pool!r} needs cls_token=True"
        if self.patch_size >= 1:
            yield from self._patch_problems()

    def _patch_problems(self) -> Iterator[str]:
        step, size = self.patch_step, self.patch_size
        power_of_two, pixels = step & (step - 1) == 0, size // step
        if self.patch == "conv":
            if not 1 <= self.convs <= 3:
                yield f"patch_convs={self.patch_convs}: patch='conv' has 1 to 3 convolutions"
            elif self.width < 2 ** (self.convs - 1):
                yield f"width={self.width} cannot be halved for each of {self.convs} convolutions"
            elif not power_of_two or step > 2**self.convs:
                yield (
                    f"patch_size={size} cannot be reached by {self.convs} convolutions "
                    f"of stride 1 or 2: use a power of two up to {2**self.convs * pixels}"
                )
        elif self.patch_convs is not None:
            yield f"patch_convs={self.patch_convs} has no meaning with patch={self.patch!r}"
        sizes = f"{2 * pixels}, {4 * pixels} or {8 * pixels}"
        if self.patch == "cct" and (not power_of_two or not 2 <= step <= 8):
            yield f"patch='cct' halves the image: patch_size is {sizes}, not {size}"
        if self.patch == "whitened" and (not power_of_two or not 2 <= step <= 8):
            yield f"patch='whitened' halves images: patch_size is {sizes}, not {size}"
        if self.patch == "spt" and step % 2:
            yield f"patch='spt' shifts by half a patch: {2 * pixels} must divide patch_size={size}"

    @property
    def patch_step(self) -> int:
        """Pixels from patch to patch; behind a convolutional stage, positions of its maps."""
        return self.patch_size

    @property
    def convs(self) -> int:
        """Number of convolutions of patch='conv'."""
        return 3 if self.patch_convs is None else self.patch_convs

    @property
    def head_width(self) -> int:
        """Numbers per head."""
        return self.width // self.heads

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches: CLS, the distillation token, then registers."""
        return int(self.cls_token) + int(self.distill_token) + self.registers

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patch tokens for an image of (height, width) pixels."""
        height, width = (math.ceil(side / self.patch_size) for side in image_size)
        return height, width


@dataclass(frozen=True, kw_only=True)
class HybridConfig(ViTConfig):
    """A Vision Transformer behind a stage of convolutional blocks that work on half the pixels."""

    kind: Literal["hybrid"] = "hybrid"  # type: ignore[assignment]
    """The family of the model."""
    stage_width: int = 64
    """Channels of the convolutional stage."""
    stage_depth: int = 2
    """Number of convolutional blocks in the stage."""
    stage_size: int = 2
    """Pixels a position of the stage spans on each side; `patch_size` is a multiple of it."""

    def _problems(self) -> Iterator[str]:
        yield from within(self, "stage_width", 1, WIDTH)
        yield from within(self, "stage_depth", 1, DEPTH)
        if self.stage_size < 1 or self.stage_size & (self.stage_size - 1):
            yield f"stage_size={self.stage_size}: the stage halves the image, so 1, 2, 4, 8, ..."
        elif self.patch_size % self.stage_size:
            yield f"patch_size={self.patch_size} is not a multiple of stage_size={self.stage_size}"
        else:
            yield from super()._problems()
        if self.patch == "whitened":
            yield "patch='whitened' whitens pixels, and behind a convolutional stage there are none"

    @property
    def patch_step(self) -> int:
        """Positions of the stage from patch to patch."""
        return self.patch_size // self.stage_size


@dataclass(frozen=True, kw_only=True)
class ResNet18Config(Section):
    """ResNet-18 for small images (He et al., 2016): 3x3 stem, no max-pooling."""

    kind: Literal["resnet18"] = "resnet18"
    """The family of the model."""
    width: int = 64
    """Channels of the first stage; each later stage doubles them."""
    init: Literal["kaiming", "torch"] = "kaiming"
    """How weights are drawn: Kaiming normal, the head N(0, 0.01), or as PyTorch makes layers."""

    def _problems(self) -> Iterator[str]:
        yield from within(self, "width", 1, WIDTH)


@dataclass(frozen=True, kw_only=True)
class CNN6Config(Section):
    """Six 3x3 convolutions in three pairs, then three fully connected layers."""

    kind: Literal["cnn6"] = "cnn6"
    """The family of the model."""
    width: int = 32
    """Channels of the first convolution; all other layers keep their published ratios to it."""
    init: Literal["kaiming", "torch"] = "kaiming"
    """How weights are drawn: Kaiming normal, the head N(0, 0.01), or as PyTorch makes layers."""

    def _problems(self) -> Iterator[str]:
        yield from within(self, "width", 1, WIDTH)


ModelConfig = ViTConfig | HybridConfig | ResNet18Config | CNN6Config
MODELS: dict[str, type[ModelConfig]] = {
    "vit": ViTConfig,
    "hybrid": HybridConfig,
    "resnet18": ResNet18Config,
    "cnn6": CNN6Config,
}


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """What happens to training images and their labels, in this order."""

    crop_padding: int = 0
    """Pixels of padding on each side before a random crop back to size; 0 is off."""
    crop_fill: Literal["zero", "reflect"] = "zero"
    """What the padding holds."""
    resized_crop: float = 0.0
    """Smallest area share of a random crop scaled back to size (ratio 0.9 to 1.1); 0 is off."""
    flip: Literal["none", "random", "alternating"] = "none"
    """Left-right flip: by a coin per image, or by a coin once and then every second epoch."""
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Colour and shape operations: RandAugment or TrivialAugmentWide, drawn per image."""
    policy_operations: int = 2
    """Operations RandAugment applies to an image, one after another."""
    policy_magnitude: int = 9
    """Strength of RandAugment's operations, from 0 to 30."""
    erasing: float = 0.0
    """Probability of overwriting a random rectangle (2 to 33 % of the area)."""
    erasing_fill: Literal["noise", "zero"] = "noise"
    """What it is overwritten with: N(0, 1) per number, or the mean colour."""
    cutout: int = 0
    """Side in pixels of a grey square put at a random place; 0 is off."""
    mixup: float = 0.0
    """Beta parameter of MixUp; 0 is off. With CutMix on as well, a coin per batch decides."""
    cutmix: float = 0.0
    """Beta parameter of CutMix; 0 is off."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes."""

    def _problems(self) -> Iterator[str]:
        for name in ("crop_padding", "cutout"):
            yield from within(self, name, 0, PIXELS)
        yield from within(self, "policy_operations", 0, 100)
        for name in ("mixup", "cutmix"):
            yield from within(self, name, 0)
        yield from within(self, "policy_magnitude", 0, 30)
        yield from within(self, "erasing", 0, 1)
        yield from within(self, "resized_crop", 0, 1)
        yield from within(self, "label_smoothing", 0, 1, open_end=True)
        if self.resized_crop and self.crop_padding:
            yield "resized_crop and crop_padding are two crops: set one of them to 0"

    @property
    def mixes(self) -> bool:
        """True when images of a batch are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """How weights move: the optimiser, its schedule and the weight average."""

    optimizer: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    """`muon` moves the hidden matrices; AdamW with `lr` moves the rest."""
    lr: float = 1e-3
    """Peak learning rate."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon's matrices; other optimisers do not read it."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's and Adam's two moments."""
    momentum: float = 0.9
    """Momentum of SGD and Muon."""
    nesterov: bool = False
    """Look ahead along SGD's momentum; Muon always does."""
    weight_decay: float = 0.05
    """Decoupled for AdamW and Muon, part of the gradient for Adam and SGD."""
    decay: Literal["matrices", "all"] = "matrices"
    """Decay matrices and convolutions only, or every parameter."""
    schedule: Literal["constant", "cosine", "linear", "steps", "plateau"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_epochs: float = 0.0
    """Epochs of linear growth from 0."""
    hold_epochs: float = 0.0
    """Epochs at the peak after the warm-up, before cosine or linear begin to fall."""
    final_lr: float = 0.0
    """Where cosine and linear end."""
    step_epochs: tuple[float, ...] = ()
    """Epochs at which schedule='steps' changes the rate."""
    step_factors: tuple[float, ...] = ()
    """Multiples of `lr` from each of `step_epochs` on."""
    plateau_factor: float = 0.1
    """What schedule='plateau' multiplies the rate with."""
    plateau_patience: int = 10
    """Epochs without a lower validation loss that schedule='plateau' endures."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0 is off."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each block to the one before it; 1 is off."""
    freeze: tuple[str, ...] = ()
    """Parameters that never move, by the start of their names: patch_embed,blocks.0,..."""
    sam: float = 0.0
    """Radius of sharpness-aware minimisation, which doubles the cost of a step; 0 is off."""
    average_decay: float = 0.0
    """Decay per step of the exponential weight average, which is then the model; 0 is off."""

    def _problems(self) -> Iterator[str]:
        for name in ("lr", "muon_lr"):
            yield from within(self, name, 0, open_start=True)
        for name in ("momentum", "plateau_factor", "average_decay"):
            yield from within(self, name, 0, 1, open_end=True)
        for name in ("weight_decay", "warmup_epochs", "final_lr", "plateau_patience", "clip_norm"):
            yield from within(self, name, 0)
        for name in ("hold_epochs", "sam"):
            yield from within(self, name, 0)
        yield from within(self, "layer_decay", 0, 1, open_start=True)
        if self.hold_epochs and self.schedule not in ("cosine", "linear"):
            yield f"hold_epochs={self.hold_epochs:g} has no meaning with schedule={self.schedule!r}"
        if not all(0 <= beta < 1 for beta in self.betas):
            yield f"betas={self.betas} must be at least 0 and below 1"
        if len(self.step_epochs) != len(self.step_factors):
            yield (
                f"step_epochs={self.step_epochs} and step_factors={self.step_factors} "
                "need equally many numbers"
            )
        if list(self.step_epochs) != sorted(self.step_epochs):
            yield f"step_epochs={self.step_epochs} must grow"
        if self.schedule == "steps" and not self.step_epochs:
            yield "schedule='steps' needs step_epochs and step_factors"
        if self.nesterov and not self.momentum:
            yield "nesterov=True needs momentum above 0"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """How long, in which batches and with which numbers."""

    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    accumulate: int = 1
    """Parts a batch is computed in, one after another, to need less memory."""
    drop_last: bool = False
    """Leave out the last batch of an epoch when it is not full."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """An epoch shows every image once, or as many of every class, drawn with repetition."""
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """Weight of a class in the loss: all 1, by its inverse frequency, or one number per class."""
    weights: str | None = None
    """Weights to start from (`--from`): a run, a shipped model, a safetensors file, or hf:NAME."""
    overlap: Literal["refuse", "allow"] = "refuse"
    """Validation images that `weights` were trained on: refused, or allowed and told everywhere."""
    teacher: str | None = None
    """Recipe of a teacher, trained first and in the same run, for `model.distill_token`."""
    teacher_epochs: int | None = None
    """Epochs of the teacher; None takes those of its recipe."""
    teacher_share: float = 0.5
    """Share of the loss that comes from the teacher's answers."""
    seed: int = 0
    """Seed of the weights, the order, the augmentation and the dropout."""
    small_size: tuple[int, int] | None = None
    """Height and width in pixels of the first `small_epochs`; None is off."""
    small_epochs: int = 0
    """Epochs at `small_size` before the full size."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers of the forward pass; weights stay fp32. auto: bf16 where a GPU has it, else fp32."""
    attention: Literal["auto", "fused", "explicit"] = "auto"
    """One kernel, or two products and a softmax. auto: on a CPU, what a trial finds faster."""
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Order of numbers in images and convolutions. auto: on a CPU, what a trial finds faster."""
    compile: Literal["auto", "on", "graph", "off"] = "auto"
    """on: torch.compile; graph: steps replayed as a CUDA graph; auto: what repays itself."""
    deterministic: bool = False
    """Refuse kernels whose result depends on timing. A CPU is deterministic without it."""
    stop_accuracy: float = 0.0
    """Stop once a validation reaches this accuracy, 0 to 1; 0 is off."""
    stop_patience: float = 0.0
    """Stop after so many epochs without a better validation accuracy; 0 is off."""
    log_steps: int = 50
    """Steps between two lines of training loss in the metrics."""
    evaluate_epochs: float = 1.0
    """Epochs between two validations."""
    checkpoint_epochs: float = 1.0
    """Epochs between two checkpoints: what a crash can cost at most."""

    def _problems(self) -> Iterator[str]:
        yield from within(self, "epochs", 1, EPOCHS)
        yield from within(self, "batch_size", 1, 1_000_000)
        yield from within(self, "log_steps", 1)
        yield from pixels(self, "small_size")
        for name in ("evaluate_epochs", "checkpoint_epochs"):
            yield from within(self, name, 0, open_start=True)
        yield from within(self, "seed", 0)
        yield from within(self, "small_epochs", 0)
        yield from within(self, "accumulate", 1)
        yield from within(self, "stop_accuracy", 0, 1)
        yield from within(self, "stop_patience", 0)
        yield from within(self, "teacher_share", 0, 1, open_start=True)
        if self.accumulate > self.batch_size >= 1:
            yield f"accumulate={self.accumulate} parts are more than batch_size={self.batch_size}"
        if self.teacher_epochs is not None:
            yield from within(self, "teacher_epochs", 1, EPOCHS)
            if self.teacher is None:
                yield f"teacher_epochs={self.teacher_epochs} needs a teacher"
        if isinstance(self.class_weights, tuple) and not all(w > 0 for w in self.class_weights):
            yield f"class_weights={self.class_weights} must be positive"
        if (self.small_size is None) != (self.small_epochs == 0):
            yield (
                f"small_size={self.small_size} and small_epochs={self.small_epochs} "
                "go together: set both, or small_epochs=0 and small_size=none"
            )
        if self.small_epochs and self.small_epochs >= self.epochs:
            fewer = f"fewer than {self.epochs}, or " if self.epochs > 1 else ""
            yield (
                f"small_epochs={self.small_epochs} leaves none of epochs={self.epochs} at full "
                f"size: set {fewer}small_epochs=0 and small_size=none"
            )


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """A whole experiment. Two equal configs on equal data give equal weights."""

    recipe: str = "custom"
    """Name of the recipe this config started from."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ViTConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    SECTIONS: ClassVar[tuple[str, ...]] = ("data", "model", "augment", "optim", "train")

    def _problems(self) -> Iterator[str]:
        sizes = {"data.image_size": self.data.image_size, "train.small_size": self.train.small_size}
        for name, size in sizes.items():
            if size is not None and isinstance(self.model, ViTConfig):
                patch = self.model.patch_size
                if not self.model.pad_to_patch and (size[0] % patch or size[1] % patch):
                    yield (
                        f"{name}={size} is not a multiple of model.patch_size={patch}: "
                        "choose another size or set model.pad_to_patch=on"
                    )
            if size is not None and isinstance(self.model, CNN6Config):
                if size[0] % 8 or size[1] % 8:
                    yield f"{name}={size}: cnn6 halves the image three times, so 8 must divide it"
                if name == "train.small_size":
                    yield (
                        f"{name}={size}: the linear layers of cnn6 are made for one image size: "
                        "set train.small_size=none and train.small_epochs=0"
                    )
        given = self.train.class_weights
        if isinstance(given, tuple) and self.data.classes not in (None, len(given)):
            yield f"train.class_weights={given} needs {self.data.classes} numbers, one per class"
        distills = isinstance(self.model, ViTConfig) and self.model.distill_token
        if self.train.teacher is not None and not isinstance(self.model, ViTConfig):
            yield (
                f"train.teacher={self.train.teacher!r} teaches the distillation token of a ViT: "
                f"set train.teacher=none for model.kind={self.model.kind!r}"
            )
        elif distills != (self.train.teacher is not None):
            yield (
                "train.teacher and model.distill_token go together: "
                f"teacher={self.train.teacher!r}, distill_token={distills}; name a recipe as "
                "teacher and set the token on, or teacher=none and the token off"
            )
        if not self.data.validation_fraction and (
            self.train.stop_accuracy or self.train.stop_patience
        ):
            yield (
                "stopping early watches the validation accuracy: set data.validation_fraction "
                "above 0, or train.stop_accuracy=0 and train.stop_patience=0"
            )
        if self.optim.schedule == "plateau" and not self.data.validation_fraction:
            yield (
                "optim.schedule='plateau' watches the validation loss: it needs "
                "data.validation_fraction above 0, or use schedule='cosine'"
            )

    def override(self, values: dict[str, Any]) -> Self:
        """Return a copy with dotted fields set: `{"model.norm": "rms", "train.epochs": 5}`.

        Values may be text, as typed at a command line. Every unknown name and every bad
        value is reported in one ConfigError. Durations that do not fit into fewer `train.epochs`
        follow in proportion, if no value is given for them.
        """
        tree = self.to_dict()
        problems = []
        kind = values.get("model.kind", self.model.kind)
        if kind not in tuple(MODELS):  # it may be anything, even what has no hash
            problems.append(f"model.kind={kind!r} is not one of {', '.join(MODELS)}")
        elif kind != self.model.kind:
            tree["model"] = {"kind": kind}
        known = [
            f"{section}.{name}"
            for section in self.SECTIONS
            for name in hints(_section_type(type(self), section, tree[section]))
        ]
        for path, value in values.items():
            section, _, name = path.partition(".")
            if path not in known:
                problems.append(unknown(path, known))
            elif path != "model.kind":
                tree[section][name] = value
        self._follow(tree, values)
        return self._parse(tree, problems)

    def _follow(self, tree: dict[str, Any], values: dict[str, Any]) -> None:
        """Let fields that are not among the overridden ones go along with those that are."""
        before, now = self.train.epochs, parse(values.get("train.epochs"), int)
        small = parse(values.get("train.small_epochs"), int)
        if fits(now, int) and 1 <= now < before:
            warmup = self.optim.warmup_epochs
            if "optim.warmup_epochs" not in values and now <= warmup < before:
                tree["optim"]["warmup_epochs"] = warmup * now / before
            if small is None and self.train.small_epochs >= now:
                small = tree["train"]["small_epochs"] = self.train.small_epochs * now // before
        if small == 0 and "train.small_size" not in values:
            tree["train"]["small_size"] = None
        if (
            "train.small_epochs" not in values
            and parse(values.get("train.small_size", ""), hints(TrainConfig)["small_size"]) is None
        ):
            tree["train"]["small_epochs"] = 0

    def to_dict(self) -> dict[str, Any]:
        """The config as nested dictionaries of JSON values, complete, with its schema number."""
        return {"schema": SCHEMA, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote. Strict: missing or unknown names are errors, all listed.

        Fields that a later schema brought are not missing from an earlier one.
        """
        if not isinstance(tree, dict):
            raise ConfigError([f"a config has sections, {', '.join(cls.SECTIONS)}: {tree!r:.40}"])
        schema = tree.get("schema")
        if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
            raise ConfigError([f"schema {schema!r} is not one this version reads (1 to {SCHEMA})"])
        sections = {section: tree.get(section, {}) for section in cls.SECTIONS}
        if wrong := [name for name, value in sections.items() if not isinstance(value, dict)]:
            raise ConfigError(
                [f"{name}={tree[name]!r:.40} is no section of fields" for name in wrong]
            )
        later = {name for number, names in ADDED.items() if number > schema for name in names}
        problems = [
            f"{section}.{name} is missing"
            for section in cls.SECTIONS
            for name in hints(_section_type(cls, section, tree.get(section, {})))
            if name not in tree.get(section, {}) and f"{section}.{name}" not in later
        ]
        return cls._parse(tree, problems)

    @classmethod
    def _parse(cls, tree: dict[str, Any], problems: list[str]) -> Self:
        parts: dict[str, Any] = {}
        for section in cls.SECTIONS:
            kind = _section_type(cls, section, tree.get(section, {}))
            values = {}
            for name, value in tree.get(section, {}).items():
                if name not in hints(kind):
                    problems.append(
                        unknown(f"{section}.{name}", [f"{section}.{n}" for n in hints(kind)])
                    )
                    continue
                values[name] = parsed = parse(value, hints(kind)[name])
                if not fits(parsed, hints(kind)[name]):
                    problems.append(
                        f"{section}.{name}={value!r} is not {describe(hints(kind)[name])}"
                    )
                    del values[name]
            try:
                parts[section] = kind(**values)
            except ConfigError as error:
                problems += [f"{section}.{problem}" for problem in error.problems]
        problems += [
            unknown(name, cls.SECTIONS)
            for name in tree
            if name not in (*cls.SECTIONS, "schema", "recipe")
        ]
        try:
            # A section that failed stands in with its defaults, so that rules between the
            # others are still checked and everything wrong is told at once.
            config = cls(recipe=tree.get("recipe", "custom"), **parts)
        except ConfigError as error:
            raise ConfigError(problems + error.problems) from None
        if problems:
            raise ConfigError(problems)
        return config

    @property
    def sha256(self) -> str:
        """Hash of the complete config, the name under which results are compared.

        A field that a later schema brought counts only where it is used, so that the hash of an
        experiment survives the schemas that come after it.
        """
        tree = self.to_dict()
        tree["schema"] = 1
        for schema, names in ADDED.items():
            for section, name in (path.split(".") for path in names):
                fields = type(getattr(self, section)).__dataclass_fields__
                if name in tree[section]:
                    if getattr(getattr(self, section), name) == fields[name].default:
                        del tree[section][name]
                    else:
                        tree["schema"] = schema
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _section_type(cls: type[Config], section: str, values: dict[str, Any]) -> type[Section]:
    if section == "model":
        kind = values.get("kind", "vit")
        if not isinstance(kind, str) or kind not in MODELS:
            raise ConfigError([f"model.kind={kind!r} is not one of {', '.join(MODELS)}"])
        return MODELS[kind]
    return typing.get_type_hints(cls)[section]


def fields_of(config: Config) -> dict[str, Any]:
    """Every dotted field name of a config, with its value."""
    return {
        f"{section}.{name}": getattr(getattr(config, section), name)
        for section in config.SECTIONS
        for name in hints(type(getattr(config, section)))
    }


WITHOUT_EFFECT = (
    "train.seed",
    "train.log_steps",
    "train.evaluate_epochs",
    "train.checkpoint_epochs",
)
"""Fields in which two runs of one recipe may differ."""


def shared_fields(config: Config) -> dict[str, str]:
    """Every dotted field name that runs of one recipe have in common, with its value as text."""
    fields = fields_of(config)
    return {name: text(fields[name]) for name in fields if name not in WITHOUT_EFFECT}


def unknown(name: str, known: typing.Iterable[str]) -> str:
    """Say that a name is unknown, and which known one was probably meant."""
    known = list(known)
    # Whoever types `lr` means optim.lr, so last parts are compared as well.
    parts = {part: full for full in known for part in (full.rpartition(".")[2], full)}
    close = difflib.get_close_matches(name, parts, n=1, cutoff=0.5)
    choices = f": choose from {', '.join(sorted(known))}"
    tail = f": did you mean {parts[close[0]]}?" if close else choices
    return f"unknown name {name}{tail}"


def within(
    section: Section,
    name: str,
    low: float,
    high: float = math.inf,
    *,
    open_start: bool = False,
    open_end: bool = False,
) -> Iterator[str]:
    """Yield a problem unless the field is finite and between two bounds."""
    value = getattr(section, name)
    above = value > low if open_start else value >= low
    below = value < high if open_end else value <= high
    # Whole numbers are finite, and may be too large to be asked.
    if not (above and below and (isinstance(value, int) or math.isfinite(value))):
        least = f"{'above' if open_start else 'at least'} {low}"
        most = f" and {'below' if open_end else 'at most'} {high}" if high < math.inf else ""
        finite = "" if isinstance(value, int) or math.isfinite(value) else "finite and "
        yield f"{name}={value} must be {finite}{least}{most}"


def pixels(section: Section, name: str) -> Iterator[str]:
    """Yield a problem unless the field is None or a height and width that an image can have."""
    size = getattr(section, name)
    if size is not None and not all(1 <= side <= PIXELS for side in size):
        yield f"{name}={size} needs a height and a width of 1 to {PIXELS} pixels"


# Types of fields: a small closed set, so that reading JSON, reading the command line and
# checking a Python call share one definition.


@functools.cache
def hints(section: type[Section]) -> dict[str, Any]:
    """Field names and types of a section, in order."""
    resolved = typing.get_type_hints(section)
    return {f.name: resolved[f.name] for f in dataclasses.fields(section)}


def fits(value: Any, hint: Any) -> bool:
    """True if a value is of the field's type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == word and type(value) is type(word) for word in args)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if args[-1] is Ellipsis:
            return all(fits(item, args[0]) for item in value)
        return len(value) == len(args) and all(map(fits, value, args))
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def parse(value: Any, hint: Any) -> Any:
    """Turn JSON values and command-line text into the field's type; leave what does not fit."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if isinstance(value, str) and value.lower() == "none" and type(None) in args:
            return None
        tries = (parse(value, arg) for arg in args if arg is not type(None))
        return next(
            (done for done, arg in zip(tries, args, strict=False) if fits(done, arg)), value
        )
    if origin is tuple and isinstance(value, list | tuple | str):
        items = [part for part in value.split(",") if part] if isinstance(value, str) else value
        return tuple(parse(item, args[0]) for item in items)
    if origin is Literal and isinstance(value, str):
        return next((word for word in args if str(word) == value), value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
        return math.inf if value > 0 else -math.inf
    if not isinstance(value, str):
        return value
    if hint is bool:
        return {"true": True, "on": True, "yes": True, "1": True}.get(
            value.lower(),
            {"false": False, "off": False, "no": False, "0": False}.get(value.lower(), value),
        )
    if hint in (int, float):
        try:
            return hint(value)
        except ValueError:
            return value
    return value


def text(value: Any) -> str:
    """A field's value as one would type it at a command line; `parse` reads it back."""
    if isinstance(value, tuple):
        return ",".join(map(text, value))
    return value if isinstance(value, str) else str(value).lower()


def describe(hint: Any) -> str:
    """A field's type in words: 'a number', 'one of layer, rms'."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(str(word) for word in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if arg is type(None) else describe(arg) for arg in args)
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        return f"{count}numbers with commas between"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


@functools.cache
def field_help(section: type[Section]) -> dict[str, str]:
    """The string under each field of a section, those of the sections it extends included."""
    inherited = {} if section.__base__ in (None, Section) else field_help(section.__base__)
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(body, ast.ClassDef)
    pairs = zip(body.body, body.body[1:], strict=False)
    return inherited | {
        first.target.id: inspect.cleandoc(second.value.value)
        for first, second in pairs
        if isinstance(first, ast.AnnAssign)
        and isinstance(first.target, ast.Name)
        and isinstance(second, ast.Expr)
        and isinstance(second.value, ast.Constant)
        and isinstance(second.value.value, str)
    }

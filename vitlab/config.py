# pyright: strict
"""What an experiment is: five frozen dataclasses, validated when they are made.

A field is a fact about the experiment. Where it runs (device, folders) and how much it
prints are arguments of a verb, not fields. Off is None or 0. Values that follow from
other values are properties, so an override can never leave them behind. The string
under a field is its `--help` text.

Only the standard library is imported here: `vitlab --help` must not wait for torch.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from vitlab.errors import ConfigError
from vitlab.fields import (
    Bounds,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
    Share,
    hints,
    parse,
    text,
    unknown,
)

SCHEMA = 7
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
    7: ("data.task", "data.label_separator"),
}
"""Fields by the schema that brought them. Each defaults to what earlier versions did, so that is
what a run of an earlier schema has."""


# Limits that no experiment of ours comes near: a config beyond them is damaged or a slip, and would
# keep a machine busy or take all its memory before anything is trained or read.
Pixels = Annotated[int, Bounds(ge=1, le=4_096)]
Width = Annotated[int, Bounds(ge=1, le=65_536)]
Depth = Annotated[int, Bounds(ge=1, le=256)]
Epochs = Annotated[int, Bounds(ge=1, le=1_000_000)]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Which images, in which form, and how they are split."""

    dataset: str = "cifar10"
    """A known name (`vitlab datasets`), a folder of class folders or Parquet, or a CSV file."""
    task: Literal["multiclass", "multilabel"] = "multiclass"
    """One class of each image, or every label that fits it, none or several of them."""
    label_separator: str = "|"
    """What stands between the labels of an image in a CSV file, for task=multilabel."""
    image_size: tuple[Pixels, Pixels] | None = None
    """Height and width in pixels that every image is brought to; None takes the data set's own."""
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    """How an image of another shape comes to `image_size`: distorted, bordered or trimmed."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """Images that cannot be read: named and the set refused, or named, left out and counted."""
    max_pixels: PositiveInt = 200_000_000
    """Largest image that is read, height times width; a larger one is unreadable."""
    grey_range: tuple[NonNegativeInt, NonNegativeInt] | None = None
    """Values of 16-bit images that become 0 and 255; None takes the training images' extremes."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; None takes the data set's own."""
    classes: Annotated[int, Bounds(ge=2, le=100_000)] | None = None
    """Number of classes; None takes the data set's own."""
    validation_fraction: Fraction = 0.1
    """Share of the training images set aside for validation, the same share of every class."""
    test_fraction: Annotated[float, Bounds(gt=0, lt=1)] = 0.2
    """Share of all images kept as the test split where the data set comes without one."""
    train_fraction: Share = 1.0
    """Share of the training images (validation taken off) that is trained on."""
    split_seed: NonNegativeInt = 0
    """Seed of the splits; separate from the training seed, so that all seeds share one split."""

    def _problems(self) -> Iterator[str]:
        if not self.dataset:
            yield "dataset='' names nothing: give a known name or a folder"
        if self.grey_range is not None and self.grey_range[0] >= self.grey_range[1]:
            yield f"grey_range={self.grey_range} needs a low and a higher value"
        if not self.label_separator.strip():
            yield f"label_separator={self.label_separator!r} separates nothing: give a sign"
        if self.label_separator != "|" and self.task != "multilabel":
            yield (
                f"label_separator={self.label_separator!r} has no meaning with "
                f"task={self.task!r}: set task=multilabel"
            )

    @property
    def score(self) -> Literal["accuracy", "mean_average_precision"]:
        """The number of an evaluation by which checkpoints are judged, as records name it."""
        return "accuracy" if self.task == "multiclass" else "mean_average_precision"

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
    patch_size: Pixels = 4
    """Pixels a token spans on each side: the total stride of the patch embedding."""
    patch_convs: Annotated[int, Bounds(ge=1, le=3)] | None = None
    """3x3 convolutions of patch='conv', 1 to 3; None takes 3."""
    pad_to_patch: bool = False
    """Border images with the mean colour up to a multiple of `patch_size`."""
    embed_norm: bool = False
    """A norm on the patch tokens before the position is added."""
    width: Width = 192
    """Numbers per token in the residual stream."""
    depth: Depth = 12
    """Number of blocks."""
    heads: Width = 3
    """Attention heads; width must be a multiple."""
    position: Position = "learned"
    """How tokens know where they are."""
    position_on_cls: bool = False
    """Give the CLS token a position as well."""
    init_std: NonNegativeFloat = 0.02
    """Standard deviation of CLS, registers and learned positions at the start."""
    init: Init = "xavier"
    """How weights are drawn; torch as PyTorch makes layers, torch_encoder all blocks alike."""
    norm: Norm = "layer"
    """The normalisation used everywhere."""
    norm_eps: Annotated[float, Bounds(gt=0, le=1)] = 1e-6
    """What norms add to the variance, or to the mean square, before its root."""
    norm_place: Literal["pre", "post"] = "pre"
    """Before each branch (and once at the end), or after each residual sum."""
    ffn: Ffn = "gelu"
    """The feed-forward network of a block."""
    ffn_ratio: Annotated[float, Bounds(gt=0, le=10**12)] = 4.0
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
    registers: Annotated[int, Bounds(ge=0, le=1_000)] = 0
    """Learned tokens that hold scratch values and are never read out."""
    pool: Pool = "cls"
    """How tokens become the one vector the head sees."""
    dropout: Fraction = 0.0
    """Dropout after attention projections and after both layers of feed-forward networks."""
    proj_dropout: Fraction | None = None
    """Dropout after attention projections; None takes `dropout`."""
    attention_dropout: Fraction = 0.0
    """Dropout on attention weights."""
    embed_dropout: Fraction = 0.0
    """Dropout on tokens after the position is added."""
    drop_path: Fraction = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0 at the first."""
    layer_scale: NonNegativeFloat = 0.0
    """Start value of a learned scale on each branch; 0 is off."""

    def _problems(self) -> Iterator[str]:
        if self.width % self.heads:
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
        yield from self._patch_problems()

    def _patch_problems(self) -> Iterator[str]:
        step, size = self.patch_step, self.patch_size
        power_of_two, pixels = step & (step - 1) == 0, size // step
        if self.patch == "conv":
            if self.width < 2 ** (self.convs - 1):
                yield f"width={self.width} cannot be halved for each of {self.convs} convolutions"
            elif not power_of_two or step > 2**self.convs:
                yield (
                    f"patch_size={size} cannot be reached by {self.convs} convolutions "
                    f"of stride 1 or 2: use a power of two up to {2**self.convs * pixels}"
                )
        elif self.patch_convs is not None:
            yield f"patch_convs={self.patch_convs} has no meaning with patch={self.patch!r}"
        sizes = f"{2 * pixels}, {4 * pixels} or {8 * pixels}"
        if self.patch in ("cct", "whitened") and (not power_of_two or not 2 <= step <= 8):
            yield f"patch={self.patch!r} halves the image: patch_size is {sizes}, not {size}"
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

    kind: Literal["hybrid"] = "hybrid"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The family of the model."""
    stage_width: Width = 64
    """Channels of the convolutional stage."""
    stage_depth: Depth = 2
    """Number of convolutional blocks in the stage."""
    stage_size: PositiveInt = 2
    """Pixels a position of the stage spans on each side; `patch_size` is a multiple of it."""

    def _problems(self) -> Iterator[str]:
        if self.stage_size & (self.stage_size - 1):
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
    width: Width = 64
    """Channels of the first stage; each later stage doubles them."""
    init: Literal["kaiming", "torch"] = "kaiming"
    """How weights are drawn: Kaiming normal, the head N(0, 0.01), or as PyTorch makes layers."""


@dataclass(frozen=True, kw_only=True)
class CNN6Config(Section):
    """Six 3x3 convolutions in three pairs, then three fully connected layers."""

    kind: Literal["cnn6"] = "cnn6"
    """The family of the model."""
    width: Width = 32
    """Channels of the first convolution; all other layers keep their published ratios to it."""
    init: Literal["kaiming", "torch"] = "kaiming"
    """How weights are drawn: Kaiming normal, the head N(0, 0.01), or as PyTorch makes layers."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(Section):
    """A network that others trained on many images, with a head of its own for these classes.

    What is None is the backbone's own, and is filled in before a training.
    """

    kind: Literal["backbone"] = "backbone"
    """The family of the model."""
    name: str = "efficientnet-lite0"
    """efficientnet-lite0, timm:NAME, or a model of the Hugging Face Hub: its name or a folder."""
    input_size: tuple[Pixels, Pixels] | None = None
    """Height and width in pixels that images are brought to inside; None takes the backbone's."""
    mean: tuple[float, float, float] | None = None
    """What is taken from red, green and blue, in 0..1; None takes the backbone's."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """What they are then divided by, in 0..1; None takes the backbone's."""
    architecture: str | None = None
    """Shape of a model of the Hub, as JSON; None reads it with the name."""
    dropout: Fraction = 0.0
    """Dropout before the head."""

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation per channel, in 0..1, that a resolved backbone was trained with."""
        assert self.mean is not None and self.std is not None, "the config is resolved"
        if channels == 1:  # grey is shown to it as three equal colours
            return (sum(self.mean) / 3,), (sum(self.std) / 3,)
        return self.mean, self.std


ModelConfig = ViTConfig | HybridConfig | ResNet18Config | CNN6Config | BackboneConfig
MODELS: dict[str, type[ModelConfig]] = {
    "vit": ViTConfig,
    "hybrid": HybridConfig,
    "resnet18": ResNet18Config,
    "cnn6": CNN6Config,
    "backbone": BackboneConfig,
}

MODEL_NAMES = {
    "vit": "Vision Transformer",
    "hybrid": "hybrid of CNN and Vision Transformer",
    "resnet18": "ResNet-18",
    "cnn6": "six-layer CNN",
    "backbone": "pretrained backbone",
}
"""What a kind of model is called in a sentence."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """What happens to training images and their labels, in this order."""

    crop_padding: Annotated[int, Bounds(ge=0, le=4_096)] = 0
    """Pixels of padding on each side before a random crop back to size; 0 is off."""
    crop_fill: Literal["zero", "reflect"] = "zero"
    """What the padding is filled with."""
    resized_crop: Probability = 0.0
    """Smallest area share of a random crop scaled back to size (ratio 0.9 to 1.1); 0 is off."""
    flip: Literal["none", "random", "alternating"] = "none"
    """Left-right flip: by a coin per image, or by a coin once and then every second epoch."""
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Colour and shape operations: RandAugment or TrivialAugmentWide, drawn per image."""
    policy_operations: Annotated[int, Bounds(ge=0, le=100)] = 2
    """Operations RandAugment applies to an image, one after another."""
    policy_magnitude: Annotated[int, Bounds(ge=0, le=30)] = 9
    """Strength of RandAugment's operations, from 0 to 30."""
    erasing: Probability = 0.0
    """Probability of overwriting a random rectangle (2 to 33 % of the area)."""
    erasing_fill: Literal["noise", "zero"] = "noise"
    """What it is overwritten with: N(0, 1) per number, or the mean colour."""
    cutout: Annotated[int, Bounds(ge=0, le=4_096)] = 0
    """Side in pixels of a grey square put at a random place; 0 is off."""
    mixup: NonNegativeFloat = 0.0
    """Beta parameter of MixUp; 0 is off. With CutMix on as well, a coin per batch decides."""
    cutmix: NonNegativeFloat = 0.0
    """Beta parameter of CutMix; 0 is off."""
    label_smoothing: Fraction = 0.0
    """Share of the target spread evenly over all classes."""

    def _problems(self) -> Iterator[str]:
        if self.resized_crop and self.crop_padding:
            yield "resized_crop and crop_padding are two crops: set one of them to 0"

    @property
    def mixes(self) -> bool:
        """True when images of a batch are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """How weights move: the optimiser, its schedule and the weight average."""

    optimizer: Literal["adamw", "adam", "sgd", "muon", "lbfgs"] = "adamw"
    """`muon` moves the hidden matrices, AdamW the rest; `lbfgs` fits the head alone, at once."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate."""
    muon_lr: PositiveFloat = 0.02
    """Peak learning rate of Muon's matrices; other optimisers do not read it."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of AdamW's and Adam's two moments."""
    momentum: Fraction = 0.9
    """Momentum of SGD and Muon."""
    nesterov: bool = False
    """Look ahead along SGD's momentum; Muon always does."""
    weight_decay: NonNegativeFloat = 0.05
    """Decoupled for AdamW and Muon, part of the gradient for Adam and SGD."""
    decay: Literal["matrices", "all"] = "matrices"
    """Decay matrices and convolutions only, or every parameter."""
    schedule: Literal["constant", "cosine", "linear", "steps", "plateau"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs of linear growth from 0."""
    hold_epochs: NonNegativeFloat = 0.0
    """Epochs at the peak after the warm-up, before cosine or linear begin to fall."""
    final_lr: NonNegativeFloat = 0.0
    """Where cosine and linear end."""
    step_epochs: tuple[NonNegativeFloat, ...] = ()
    """Epochs at which schedule='steps' changes the rate."""
    step_factors: tuple[NonNegativeFloat, ...] = ()
    """Multiples of `lr` from each of `step_epochs` on."""
    plateau_factor: Fraction = 0.1
    """What schedule='plateau' multiplies the rate with."""
    plateau_patience: NonNegativeInt = 10
    """Epochs without a lower validation loss that schedule='plateau' waits for."""
    clip_norm: NonNegativeFloat = 0.0
    """Largest gradient norm; 0 is off."""
    layer_decay: Share = 1.0
    """Factor of the learning rate from each block to the one before it; 1 is off."""
    freeze: tuple[str, ...] = ()
    """Parameters that never move, by the start of their names: patch_embed,blocks.0,..."""
    sam: NonNegativeFloat = 0.0
    """Radius of sharpness-aware minimisation, which doubles the cost of a step; 0 is off."""
    average_decay: Fraction = 0.0
    """Decay per step of the exponential weight average, which is then the model; 0 is off."""

    def _problems(self) -> Iterator[str]:
        if self.hold_epochs and self.schedule not in ("cosine", "linear"):
            yield f"hold_epochs={self.hold_epochs:g} has no meaning with schedule={self.schedule!r}"
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

    epochs: Epochs = 100
    """Passes over the training images."""
    batch_size: Annotated[int, Bounds(ge=1, le=1_000_000)] = 128
    """Images per step."""
    accumulate: PositiveInt = 1
    """Parts a batch is computed in, one after another, to need less memory."""
    drop_last: bool = False
    """Leave out the last batch of an epoch when it is not full."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """An epoch shows every image once, or as many of every class, drawn with repetition."""
    class_weights: Literal["none", "balanced"] | tuple[PositiveFloat, ...] = "none"
    """Weight of a class in the loss: all 1, by its inverse frequency, or one number per class."""
    weights: str | None = None
    """Weights to start from (`--from`): a run, a shipped model, a safetensors file, or hf:NAME."""
    overlap: Literal["refuse", "allow"] = "refuse"
    """Validation images that `weights` were trained on: refused, or allowed and reported."""
    teacher: str | None = None
    """Recipe of a teacher, trained first and in the same run, for `model.distill_token`."""
    teacher_epochs: Epochs | None = None
    """Epochs of the teacher; None takes those of its recipe."""
    teacher_share: Share = 0.5
    """Share of the loss that comes from the teacher's answers."""
    seed: NonNegativeInt = 0
    """Seed of the weights, the order, the augmentation and the dropout."""
    small_size: tuple[Pixels, Pixels] | None = None
    """Height and width in pixels of the first `small_epochs`; None is off."""
    small_epochs: NonNegativeInt = 0
    """Epochs at `small_size` before the full size."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers of the forward pass; weights stay fp32. auto: bf16 where a GPU has it, else fp32."""
    attention: Literal["auto", "fused", "explicit"] = "auto"
    """One kernel, or two products and a softmax. auto: on a CPU, what a trial finds faster."""
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Order of numbers in images and convolutions. auto: on a CPU, what a trial finds faster."""
    compile: Literal["auto", "on", "graph", "off"] = "auto"
    """on: torch.compile; graph: steps replayed as a CUDA graph; auto: what saves time."""
    deterministic: bool = False
    """Refuse kernels whose result depends on timing. A CPU is deterministic without it."""
    stop_accuracy: Probability = 0.0
    """Stop once a validation reaches this accuracy, 0 to 1; 0 is off."""
    stop_patience: NonNegativeFloat = 0.0
    """Stop after so many epochs without a better validation accuracy, or mAP; 0 is off."""
    log_steps: PositiveInt = 50
    """Steps between two lines of training loss in the metrics."""
    evaluate_epochs: PositiveFloat = 1.0
    """Epochs between two validations."""
    checkpoint_epochs: PositiveFloat = 1.0
    """Epochs between two checkpoints: what a crash can cost at most."""

    def _problems(self) -> Iterator[str]:
        if self.accumulate > self.batch_size:
            yield f"accumulate={self.accumulate} parts are more than batch_size={self.batch_size}"
        if self.teacher_epochs is not None and self.teacher is None:
            yield f"teacher_epochs={self.teacher_epochs} needs a teacher"
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


SECTIONS = ("data", "model", "augment", "optim", "train")


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
        if self.optim.optimizer == "lbfgs":
            if self.train.epochs != 1:
                yield (
                    f"optim.optimizer='lbfgs' looks at every image once: set train.epochs=1, not "
                    f"{self.train.epochs}"
                )
            if not self.optim.weight_decay:
                yield "optim.optimizer='lbfgs' needs optim.weight_decay above 0, as in 0.1"
            if getattr(self.model, "distill_token", False):
                yield "optim.optimizer='lbfgs' fits one head: set model.distill_token=off"
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
        if self.data.task == "multilabel":
            yield from self._multilabel_problems()
        if self.optim.schedule == "plateau" and not self.data.validation_fraction:
            yield (
                "optim.schedule='plateau' watches the validation loss: it needs "
                "data.validation_fraction above 0, or use schedule='cosine'"
            )

    def _multilabel_problems(self) -> Iterator[str]:
        """What supposes that an image is of one class."""
        train = self.train
        wrong = {
            "sampler": train.sampler == "balanced",
            "class_weights": train.class_weights == "balanced",
            "stop_accuracy": train.stop_accuracy > 0,
            "teacher": train.teacher is not None,
        }
        for name in (name for name, set_so in wrong.items() if set_so):
            value, default = (text(getattr(one, name)) for one in (train, TrainConfig))
            yield (
                f"train.{name}={value} supposes that an image is of one class: set "
                f"train.{name}={default} for data.task=multilabel"
            )

    def override(self, values: dict[str, Any]) -> Self:
        """Return a copy with dotted fields set: `{"model.norm": "rms", "train.epochs": 5}`.

        Values may be text, as typed at a command line. Every unknown name and every bad
        value is reported in one ConfigError. Durations that do not fit into fewer `train.epochs`
        follow in proportion, if no value is given for them.
        """
        kept = fields_of(self)
        if values.get("model.kind", self.model.kind) != self.model.kind:
            kept = {name: kept[name] for name in kept if not name.startswith("model.")}
        return self._build(self.recipe, kept | self._follow(values) | values, [])

    def _follow(self, values: dict[str, Any]) -> dict[str, Any]:
        """Fields that go along with overridden ones where no value is given for them."""

        def overridden(name: str) -> Any:
            before = getattr(self.train, name)
            try:
                return parse(values.get(f"train.{name}", before), hints(TrainConfig)[name])
            except (TypeError, ValueError):  # reported once all fields are checked
                return before

        epochs, small_epochs = overridden("epochs"), overridden("small_epochs")
        before, warmup = self.train.epochs, self.optim.warmup_epochs
        follow: dict[str, Any] = {}
        if epochs <= warmup < before:
            follow["optim.warmup_epochs"] = warmup * epochs / before
        if epochs <= small_epochs < before and "train.small_epochs" not in values:
            small_epochs = follow["train.small_epochs"] = small_epochs * epochs // before
        if small_epochs == 0:
            follow["train.small_size"] = None
        if overridden("small_size") is None:
            follow["train.small_epochs"] = 0
        return follow

    def to_dict(self) -> dict[str, Any]:
        """The config as nested dictionaries of JSON values, complete, with its schema number."""
        return {"schema": SCHEMA, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote. Strict: missing or unknown names are errors, all listed.

        Fields that a later schema brought are not missing from an earlier one.
        """
        if not isinstance(tree, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - JSON
            raise ConfigError([f"a config has sections, {', '.join(SECTIONS)}: {tree!r:.40}"])
        if wrong := [name for name in SECTIONS if not isinstance(tree.get(name, {}), dict)]:
            raise ConfigError([f"{name}={tree[name]!r:.40} is no section" for name in wrong])
        schema = tree.get("schema")
        if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
            raise ConfigError([f"schema {schema!r} is not one this version reads (1 to {SCHEMA})"])
        values = {
            f"{section}.{name}": value
            for section in SECTIONS
            for name, value in tree.get(section, {}).items()
        }
        later = {name for number, names in ADDED.items() if number > schema for name in names}
        problems = [
            f"{name} is missing"
            for name in field_names(values.get("model.kind"))
            if name not in values and name not in later
        ]
        known = (*SECTIONS, "schema", "recipe")
        problems += [unknown(name, known) for name in tree if name not in known]
        return cls._build(tree.get("recipe", "custom"), values, problems)

    @classmethod
    def _build(cls, recipe: Any, values: dict[str, Any], problems: list[str]) -> Self:
        """Make a config of dotted values; all that is wrong is reported, after `problems`."""
        kind = values.get("model.kind", "vit")
        if kind not in tuple(MODELS):  # a tuple, as it may be anything, even what has no hash
            problems.append(f"model.kind={kind!r} is not one of {', '.join(MODELS)}")
            values = {**values, "model.kind": "vit"}
        known = field_names(kind)
        given: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        for path, value in values.items():
            section, _, name = path.partition(".")
            if path in known:
                given[section][name] = value
            else:
                problems.append(unknown(path, known))
        sections: dict[str, Any] = {}
        for section, section_type in section_types(kind).items():
            try:
                sections[section] = section_type(**given[section])
            except ConfigError as error:
                problems += [f"{section}.{problem}" for problem in error.problems]
        try:
            # A section that failed stands in with its defaults, so that rules between the
            # others are still checked and everything wrong is reported at once.
            config = cls(recipe=recipe, **sections)
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
                if name not in tree[section]:
                    continue
                fields: Section = getattr(self, section)
                if getattr(fields, name) == getattr(type(fields), name):  # the default
                    del tree[section][name]
                else:
                    tree["schema"] = schema
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def section_types(kind: Any) -> dict[str, type[Section]]:
    """The class of each section; that of a ViT for a `kind` of model that there is not."""
    model = MODELS[kind] if kind in tuple(MODELS) else ViTConfig
    classes = (DataConfig, model, AugmentConfig, OptimConfig, TrainConfig)
    return dict(zip(SECTIONS, classes, strict=True))


def field_names(kind: Any) -> list[str]:
    """Every dotted field name of a config with this kind of model."""
    types = section_types(kind)
    return [f"{section}.{name}" for section in types for name in hints(types[section])]


@cache
def field_types() -> dict[str, Any]:
    """Every dotted field name of any config, with its type.

    A name that kinds of model share has the choices of all of them.
    """
    types: dict[str, Any] = {}
    for kind in MODELS:
        for section, section_type in section_types(kind).items():
            for name, hint in hints(section_type).items():
                path = f"{section}.{name}"
                choices = get_args(types.get(path)) + get_args(hint)
                types[path] = Literal[choices] if get_origin(hint) is Literal else hint
    return types


def fields_of(config: Config) -> dict[str, Any]:
    """Every dotted field name of a config, with its value."""
    return {path: attrgetter(path)(config) for path in field_names(config.model.kind)}


def refuse_multilabel(data: DataConfig, what: str, instead: str) -> None:
    """ConfigError where images have several labels: `what` supposes one class, and the way out."""
    if data.task == "multilabel":
        raise ConfigError(
            [f"{what}, and with data.task=multilabel an image may have several labels: {instead}"]
        )


BESIDE = "`vitlab leaderboard --sort mean_average_precision` lists such runs beside each other"
"""What to do instead of comparing accuracies."""


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

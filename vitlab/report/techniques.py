"""How the techniques of a config work, in a sentence or two each.

What the choices of a model mean stands in the docstrings of their classes (`describe_parts`), from
where `vitlab show` prints it too. What training does stands in `TRAINING`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from vitlab.config import Config, ModelConfig, ViTConfig
from vitlab.fields import text
from vitlab.formatting import count
from vitlab.models import describe_parts, first_paragraph
from vitlab.models.attention import Attention
from vitlab.report.document import Word

ATTENTION = Word("attention", "softmax", first_paragraph(Attention))


def of_model(cfg: ModelConfig) -> list[Word]:
    """The techniques of a model."""
    words = [
        Word(axis.replace("_", " "), text(getattr(cfg, axis)), how.replace("`", ""))
        for axis, how in describe_parts(cfg).items()
    ]
    return [*words[:2], ATTENTION, *words[2:]] if isinstance(cfg, ViTConfig) else words


class Technique(NamedTuple):
    """Something that training may do: whether a config does, how much of it, and how it works."""

    name: str
    amount: Callable[[Config], str]
    """The setting in words; nothing where it is off."""
    how: str


def _on(value: object, words: str) -> str:
    return words if value else ""


def _epochs(number: float) -> str:
    return count(float(f"{number:.3g}"), "epoch")


TRAINING = (
    Technique(
        "random crop",
        lambda c: _on(c.augment.crop_padding, f"{c.augment.crop_padding} pixels"),
        "Pads the image and cuts it back to size at a random place. The same object is then seen "
        "a little further left or right each time, so the answer depends less on its place.",
    ),
    Technique(
        "resized crop",
        lambda c: _on(c.augment.resized_crop, f"from {c.augment.resized_crop:g} of the area"),
        "Cuts a random part of the image and scales it back to size. Objects come in many sizes, "
        "so the model cannot count on one.",
    ),
    Technique(
        "flip",
        lambda c: _on(c.augment.flip != "none", c.augment.flip),
        "Mirrors images left to right, which doubles what can be seen of each.",
    ),
    Technique(
        "policy",
        lambda c: _on(c.augment.policy != "none", c.augment.policy),
        "Draws colour and shape operations for every image, such as a rotation, a shear or a "
        "change of contrast. The label stays as it is, so the model learns to give one "
        "answer whatever they change (Cubuk et al., 2020; Müller & Hutter, 2021).",
    ),
    Technique(
        "cutout",
        lambda c: _on(c.augment.cutout, f"{c.augment.cutout} pixels"),
        "Covers a square at a random place. The model has to recognise an object by more than "
        "its most telling part (DeVries & Taylor, 2017).",
    ),
    Technique(
        "random erasing",
        lambda c: _on(c.augment.erasing, f"of {100 * c.augment.erasing:g} % of the images"),
        "Overwrites a random rectangle of some images with noise. The model has to recognise an "
        "object by more than its most telling part (Zhong et al., 2020).",
    ),
    Technique(
        "MixUp",
        lambda c: _on(c.augment.mixup, f"Beta({c.augment.mixup:g})"),
        "Adds two images, and their labels in the same proportion. Between two classes the "
        "answer then changes gradually, and probabilities near 1 become rarer "
        "(Zhang et al., 2018).",
    ),
    Technique(
        "CutMix",
        lambda c: _on(c.augment.cutmix, f"Beta({c.augment.cutmix:g})"),
        "Puts a rectangle of one image into another and mixes the labels by area. Every part of "
        "an image then has to be recognised by itself (Yun et al., 2019).",
    ),
    Technique(
        "label smoothing",
        lambda c: _on(c.augment.label_smoothing, f"{c.augment.label_smoothing:g}"),
        "Takes a little of the probability that is asked for the true answer and spreads it over "
        "all answers. Logits then have no reason to grow without end (Szegedy et al., 2016).",
    ),
    Technique(
        "optimiser",
        lambda c: _on(c.optim.optimizer == "muon", f"Muon, {c.optim.muon_lr:g}"),
        "Turns the momentum of a matrix into the nearest orthogonal one before it is applied. "
        "All directions of a layer then learn at one pace, rare ones too "
        "(Jordan et al., 2024).",
    ),
    Technique(
        "optimiser",
        lambda c: _on(c.optim.optimizer == "adamw", f"AdamW, {c.optim.lr:g}"),
        "Divides each parameter's momentum by the size of its recent gradients, so that all move "
        "at one pace. Where there is weight decay, it acts beside the gradient, not through it "
        "(Loshchilov & Hutter, 2019).",
    ),
    Technique(
        "optimiser",
        lambda c: _on(c.optim.optimizer == "adam", f"Adam, {c.optim.lr:g}"),
        "Divides each parameter's momentum by the size of its recent gradients. All parameters "
        "then move at one pace, whatever their scale (Kingma & Ba, 2015).",
    ),
    Technique(
        "optimiser",
        lambda c: _on(c.optim.optimizer == "sgd", f"SGD, {c.optim.lr:g}"),
        "Follows the gradient of a batch, carried on by the momentum of those before. Many "
        "CNNs are trained with it; results depend much on its rate (Sutskever et al., 2013).",
    ),
    Technique(
        "optimiser",
        lambda c: _on(c.optim.optimizer == "lbfgs", f"L-BFGS, decay {c.optim.weight_decay:g}"),
        "Fits the last layer alone, by logistic regression on the features of all images at once, "
        "to its minimum. Nothing before it moves (Alain & Bengio, 2017).",
    ),
    Technique(
        "schedule",
        lambda c: _on(
            c.optim.optimizer != "lbfgs",
            c.optim.schedule
            + _on(c.optim.warmup_epochs, f", {_epochs(c.optim.warmup_epochs)} of warm-up"),
        ),
        "The learning rate rises from 0 during a warm-up, if there is one, and then follows the "
        "curve of this name.",
    ),
    Technique(
        "clipping",
        lambda c: _on(c.optim.clip_norm, f"{c.optim.clip_norm:g}"),
        "Shortens a gradient that is longer than this. A single unusual batch then changes the "
        "weights by little (Pascanu et al., 2013).",
    ),
    Technique(
        "weight average",
        lambda c: _on(c.optim.average_decay, f"{c.optim.average_decay:g}"),
        "Keeps a running mean of the weights, which is the model that is evaluated. The noise of "
        "single steps averages out (Polyak & Juditsky, 1992).",
    ),
    Technique(
        "sharpness-aware",
        lambda c: _on(c.optim.sam, f"radius {c.optim.sam:g}"),
        "Climbs to the worst place nearby and takes the gradient there, at twice the cost. "
        "Minima that stay low all around tend to hold on new images (Foret et al., 2021).",
    ),
    Technique(
        "small images first",
        lambda c: _on(c.train.small_epochs, _epochs(c.train.small_epochs)),
        "Begins on images of fewer pixels, so with fewer tokens, and ends at full size. Early "
        "epochs learn what is coarse anyway, and cost a part of the time (Touvron et al., 2019).",
    ),
    Technique(
        "teacher",
        lambda c: _on(c.train.teacher, c.train.teacher or ""),
        "Another model is trained first, and a token of the ViT learns to give its answers "
        "(Touvron et al., 2021).",
    ),
)
"""What training may do, in the order in which it happens."""


def of_training(config: Config) -> Iterator[Word]:
    """The techniques that a config trains with."""
    for technique in TRAINING:
        if amount := technique.amount(config):
            yield Word(technique.name, amount, technique.how)

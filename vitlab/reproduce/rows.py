"""The rows of the results page: which config each trains, and what its source reports.

A row is a recipe, or a recipe with a few fields changed to train it as its source did.
"""

from typing import Any, NamedTuple

from vitlab.config import Config, ViTConfig, fields_of, refuse_multilabel
from vitlab.errors import ConfigError
from vitlab.fields import unknown
from vitlab.recipes import ALL_RECIPES, recipe


class Published(NamedTuple):
    """What the source of a recipe reports on the CIFAR-10 test set."""

    accuracy: float
    note: str = ""


PUBLISHED = {
    "vit-d6-w128": Published(0.65, "learned positions; 70.50 % with sinusoidal ones"),
    "vit-d9-w192": Published(0.8639, "86.26 in its table"),
    "resnet18-sgd": Published(0.9364),
    "vit-d6-w256": Published(0.77),
    "cnn6": Published(0.89),
    "vit-tiny": Published(0.8670, "best epoch on the test set"),
    "resnet18": Published(0.9343),
}
"""By recipe, in the source's own setting."""

WHOLE = {"data.validation_fraction": 0.0}
"""All 50,000 training images: what most sources trained on, with nothing held back."""

STEPS = {
    "optim.schedule": "steps",
    "optim.step_epochs": (25.0, 40.0),
    "optim.step_factors": (0.5, 0.1),
}

SYSTEMS: dict[str, tuple[str, dict[str, Any], Published]] = {
    "vit-d6-w128-sin1d": (
        "vit-d6-w128",
        {**WHOLE, "model.position": "sin1d"},
        Published(0.7050),
    ),
    "vit-d6-w128-learned": ("vit-d6-w128", WHOLE, Published(0.65)),
    "vit-d9-w192-whole": ("vit-d9-w192", WHOLE, PUBLISHED["vit-d9-w192"]),
    "resnet18-sgd-whole": ("resnet18-sgd", {**WHOLE, **STEPS}, PUBLISHED["resnet18-sgd"]),
    "vit-d6-w256": ("vit-d6-w256", {}, PUBLISHED["vit-d6-w256"]),
    "cnn6": ("cnn6", {}, PUBLISHED["cnn6"]),
    "vit-tiny-whole": ("vit-tiny", WHOLE, PUBLISHED["vit-tiny"]),
    "resnet18-whole": ("resnet18", WHOLE, PUBLISHED["resnet18"]),
}
"""Row -> recipe, changed fields and published figure: the seven systems as their sources train."""

PRACTICE = {
    "train.batch_size": 512,
    "train.precision": "auto",
    **{
        name: value
        for name, value in fields_of(recipe("strong-plain")).items()
        if name.startswith(("augment.", "optim."))
    },
    "optim.warmup_epochs": 5.0,
}
"""How `strong-plain` is trained, in batches that leave enough steps in few epochs."""

ROWS = SYSTEMS | {
    f"{name}-practice": (base, {**changes, **PRACTICE}, published)
    for name, (base, changes, published) in SYSTEMS.items()
    if isinstance(recipe(base).model, ViTConfig)
}
"""And the same ViTs for as many epochs under our own practice: what that alone is worth."""


CADENCE = {"train.checkpoint_epochs": 5.0}
"""An epoch of these takes a large GPU a second, and a checkpoint up to half of one."""


def row_config(name: str, overrides: dict[str, Any] | None = None) -> Config:
    """The config of a row, or of a recipe by its own name; ConfigError suggests the nearest."""
    if name in ROWS:
        base, changes, _ = ROWS[name]
        changes = CADENCE | changes
    elif name in ALL_RECIPES:
        base, changes = name, {}
    else:
        raise ConfigError([unknown(name, {**ROWS, **ALL_RECIPES})])
    config = recipe(base).override({**changes, **(overrides or {})})
    refuse_multilabel(config.data, "a row of the results page has an accuracy", "`vitlab train`")
    return config


def published(name: str) -> Published | None:
    """What a row's source reports, if it has one."""
    return ROWS[name][2] if name in ROWS else PUBLISHED.get(name)

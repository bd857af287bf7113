"""What is known of a run's model without opening it: how it wants its images, and its numbers.

    run -> Terms   class names, size, channels, statistics: enough to ask the model
    run -> card    accuracies with their intervals, parameters, data: enough to judge it

Both travel with an exported model as JSON. A number that was never measured is None.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitlab.data.images import Fit
from vitlab.errors import RunError
from vitlab.run import Checkpoint, Run


@dataclass(frozen=True)
class Terms:
    """How a model wants its images, and what its answers are called."""

    name: str
    """Name of the run."""
    class_names: tuple[str, ...]
    """One per logit, in order."""
    image_size: tuple[int, int]
    """Height and width in pixels that every picture is brought to."""
    channels: int
    """1 for grey, 3 for colour."""
    fit: Fit
    """How a picture of another shape comes to `image_size`."""
    mean: tuple[float, ...]
    """Mean per channel of the training images, in 0..1."""
    std: tuple[float, ...]
    """Standard deviation per channel of the training images, in 0..1."""
    input_size: tuple[int, int]
    """Height and width of what enters the model: `image_size`, but for a run of small images that
    was left before its last epochs."""
    temperature: float | None
    """What logits are divided by; None where it was never measured."""
    checkpoint_sha256: str
    """Hash of the checkpoint that is meant."""
    grey_range: tuple[int, int] | None = None
    """The values of 16-bit pictures that become 0 and 255."""

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Terms":
        """Read what `to_dict` wrote; RunError if it is something else."""
        try:
            made: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
            }
            found = cls(**made)
            sound = len(found.mean) == len(found.std) == found.channels and all(found.class_names)
        except TypeError as error:
            raise RunError(f"not the description of a vitlab model: {error}") from error
        if not sound:
            raise RunError("not the description of a vitlab model: its lengths disagree")
        return found


def terms(run: Run, checkpoint: Checkpoint) -> Terms:
    """How the model of a run's checkpoint wants its images."""
    config, origin = run.config.data, run.provenance["data"]
    assert config.image_size and config.channels
    return Terms(
        name=run.name,
        class_names=tuple(origin["class_names"]),
        image_size=config.image_size,
        channels=config.channels,
        fit=config.fit,
        mean=tuple(origin["mean"]),
        std=tuple(origin["std"]),
        input_size=checkpoint.state["image_size"],
        temperature=temperature(run, checkpoint),
        checkpoint_sha256=checkpoint.sha256,
        grey_range=grey_range(run),
    )


def grey_range(run: Run) -> tuple[int, int] | None:
    """The values of 16-bit pictures that a run takes for 0 and 255; None for all there are."""
    found = run.provenance["data"].get("grey_range")
    return (found[0], found[1]) if found else None


def temperature(run: Run, checkpoint: Checkpoint) -> float | None:
    """What the logits of a checkpoint are divided by, as evaluate fitted it on validation images.

    None where these very weights were never evaluated.
    """
    return _result(run, checkpoint, "validation").get("temperature")


def card(run: Run, checkpoint: Checkpoint) -> dict[str, Any]:
    """The numbers of a run's checkpoint, fractions from 0 to 1; None for what was not measured."""
    config, origin, finished = run.config, run.provenance, run.finished or {}
    numbers: dict[str, Any] = {
        "name": run.name,
        "recipe": config.recipe,
        "model": config.model.kind,
        # A folder of one's own is nobody else's business, but for its name.
        "dataset": Path(config.data.dataset).name or config.data.dataset,
        "classes": config.data.classes,
        "training_images": origin["data"].get("train_images"),
        "epochs": finished.get("epochs"),
        "seed": config.train.seed,
        "parameters": finished.get("parameters"),
        "multiply_adds": finished.get("macs"),
    }
    for split in ("validation", "test"):
        result = _result(run, checkpoint, split)
        for number in ("accuracy", "accuracy_interval", "images", "top3_accuracy"):
            numbers[f"{split}_{number}"] = result.get(number)
    numbers["calibration_error"] = _result(run, checkpoint, "validation").get("calibration_error")
    scaled = _result(run, checkpoint, "validation").get("scaled_calibration_error")
    numbers["scaled_calibration_error"] = scaled
    return numbers | {
        "temperature": temperature(run, checkpoint),
        "checkpoint_sha256": checkpoint.sha256,
        "vitlab": origin.get("vitlab"),
    }


def _result(run: Run, checkpoint: Checkpoint, split: str) -> dict[str, Any]:
    """A split's result if it speaks of this checkpoint, else nothing."""
    results = run.results
    for shelf in (results, results.get("best", {})):
        result = shelf.get(split, {})
        if result.get("checkpoint_sha256") == checkpoint.sha256:
            return result
    return {}

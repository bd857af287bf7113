"""What a finished training's own numbers show, and what to try next: two sentences."""

from collections.abc import Iterator

from vitlab.formatting import between, count, percent
from vitlab.pretrained import names, shipped
from vitlab.run import Run
from vitlab.stats import wilson

CHANCE = 1.3
"""Multiple of 1 / classes below which a model does no better than guessing."""

GAP = 0.1
"""How far accuracy on training images may be ahead before it is called overfitting."""

FITTED = 0.9
"""Accuracy on training images below which it is called underfitting."""

RISING = 0.01
"""Gain of accuracy over the last quarter of the epochs that more of them would go on with."""

FEW_STEPS = 500
"""Fewer leave warm-up, weight average and a small learning rate no time."""

FEW_IMAGES = 5_000
"""With fewer, weights that have seen other images are worth more than any other change."""


def diagnose(run: Run) -> str:
    """What a finished run reached, what that is called, and the first thing to try.

    Raises:
        RunError: the run is not finished.
    """
    final = run.final_numbers
    train, validation = final["train_clean"], final.get("validation")
    reached = f"{percent(train['accuracy'])} on training images"
    if validation is not None:
        images = validation.get("images") or run.provenance["data"]["validation_images"]
        right = round(validation["accuracy"] * images)
        interval = wilson(right, images)
        reached += (
            f", {percent(validation['accuracy'])} on {count(images, 'validation image')} "
            f"({between(interval)})"
        )
        gap = train["accuracy"] - validation["accuracy"]
        overfitted = gap > GAP and train["accuracy"] > interval[1]
    else:
        overfitted = False
    assert run.config.data.classes is not None
    if train["accuracy"] < CHANCE / run.config.data.classes:
        name, ways = "it does no better than guessing", _learn(run)
    elif overfitted:
        name, ways = "overfitting", _generalise(run)
    elif train["accuracy"] < FITTED:
        name, ways = "underfitting", _fit_better(run)
    elif validation is None:
        return f"{reached}; without validation images nothing shows how it does on new ones."
    else:
        return f"{reached}: no sign of overfitting or underfitting."
    return f"{reached}: {name}. Try, in this order: {'; '.join(ways)}."


def _learn(run: Run) -> Iterator[str]:
    """What to try when nothing was learned."""
    yield f"a lower optim.lr than {run.config.optim.lr:g}"
    if not run.config.optim.warmup_epochs:
        yield "a warm-up, optim.warmup_epochs=5"
    yield from _more_steps(run)
    yield "--overfit-one-batch, which shows whether the set-up can learn at all"


def _generalise(run: Run) -> Iterator[str]:
    """What to try when training images are learned by heart."""
    config, images = run.config, run.provenance["data"]["train_images"]
    if config.train.weights is None and images < FEW_IMAGES:
        same = [name for name in names() if shipped(name).config.model == config.model]
        yield f"start from weights, {f'--from {same[0]}' if same else 'recipe cpu with --from cpu'}"
    yield "more images"
    if config.augment.policy == "none":
        yield "more augmentation, augment.policy=trivialaugment"
    final = run.final_numbers
    best, epochs = final["best"], final["epochs"]
    at = epochs * best.get("step", final["step"]) / final["step"]
    if at < 0.7 * epochs:
        yield (
            f"fewer epochs than {epochs:g}, as {percent(best.get('accuracy'))} of the validation "
            f"images were right after {at:.0f}"
        )


def _fit_better(run: Run) -> Iterator[str]:
    """What to try when even training images are not learned."""
    yield from _more_steps(run)
    found = [line for line in run.metrics if line["split"] == "train_clean"]
    before = [x["accuracy"] for x in found if x["epoch"] <= 0.75 * run.final_numbers["epochs"]]
    if before and found[-1]["accuracy"] - before[-1] > RISING:
        gain = 100 * (found[-1]["accuracy"] - before[-1])
        yield (
            f"more train.epochs than {run.config.train.epochs}, as the last quarter of them still "
            f"gained {gain:.1f} points"
        )
    yield "a larger model, or less augmentation"


def _more_steps(run: Run) -> Iterator[str]:
    final, train = run.final_numbers, run.config.train
    if final["step"] < FEW_STEPS:
        each = max(1, round(final["step"] / final["epochs"]))
        yield (
            f"a train.batch_size smaller than {train.batch_size}, as {count(final['step'], 'step')}"
            f" ({each} an epoch) are few"
        )

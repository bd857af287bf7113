"""What a finished training's own numbers show, and what to try next: two sentences."""

from collections.abc import Iterator

from vitlab.formatting import between, count, percent, points
from vitlab.pretrained import names, shipped
from vitlab.run import Run
from vitlab.stats import wilson

CHANCE = 1.3
"""Multiple of 1 / classes from which on accuracy is never called guessing."""

GAP = 0.1
"""How far accuracy on training images may be ahead before it is called overfitting."""

FITTED = 0.9
"""Accuracy on training images below which it is called underfitting."""

RISING = 0.01
"""Gain of accuracy since three quarters of the epochs, or before, that asks for more of them."""

FEW_STEPS = 500
"""Fewer leave warm-up and weight average no time; on hundreds of images six times as many brought
nothing (docs/log.md)."""

FEW_BATCHES, SMALL_BATCH = 8, 32
"""With fewer batches than this in an epoch, batches above this many images are too large. Smaller
ones are mostly noise."""

FEW_IMAGES = 5_000
"""With fewer, weights that have seen other images are worth more than any other change."""


def diagnose(run: Run) -> str:
    """What a finished run reached, what that is called, and the first thing to try.

    Raises:
        RunError: the run is not finished.
    """
    if run.config.data.task == "multilabel":
        return _diagnose_labels(run)
    final = run.final_numbers
    train, validation = final["train_clean"], final.get("validation")
    data = run.provenance["data"]
    learned = train.get("images") or data["train_images"]
    reached = f"{percent(train['accuracy'])} on {count(learned, 'training image')}"
    # Of few images, an accuracy is called higher than another only where their intervals say so.
    least = wilson(round(train["accuracy"] * learned), learned)[0]
    gap, ahead, few, interval = 0.0, False, False, (0.0, 1.0)
    if validation is not None:
        images = validation.get("images") or data["validation_images"]
        right = round(validation["accuracy"] * images)
        interval = wilson(right, images)
        reached += (
            f", {percent(validation['accuracy'])} on {count(images, 'validation image')} "
            f"(95 % interval {between(interval)})"
        )
        gap = train["accuracy"] - validation["accuracy"]
        ahead = least > interval[1]
        few = max(validation["accuracy"] - interval[0], interval[1] - validation["accuracy"]) > GAP
    shown = train["accuracy"] - interval[1] if few else gap
    classes = run.config.data.classes
    assert classes is not None
    if train["accuracy"] < CHANCE / classes and least <= 1 / classes:
        name = f"it does no better than guessing among {count(classes, 'class', 'classes')}"
        ways = _learn(run)
    elif ahead and shown > GAP:
        name, ways = f"overfitting, a gap of {points(gap)} points", _generalise(run, interval[1])
    elif train["accuracy"] < FITTED:
        name, ways = f"underfitting, below {100 * FITTED:g} % on training images", _fit_better(run)
    elif validation is None:
        return f"{reached}; without validation images nothing shows how it does on new ones."
    elif gap > GAP:
        return (
            f"{reached}: a gap of {points(gap)} points, but so few images do not show whether "
            "that is overfitting."
        )
    elif ahead:
        return (
            f"{reached}: a gap of {points(gap)} points, less than the {100 * GAP:g} from which on "
            "it is called overfitting."
        )
    else:
        but = f", but so few validation images do not rule out a gap of {100 * GAP:g} points"
        return f"{reached}: no sign of overfitting or underfitting{but if few else ''}."
    return f"{reached}: {name}. Try, in this order: {'; '.join(ways)}."


def _diagnose_labels(run: Run) -> str:
    """The same of several labels an image, by mean average precision, which has no interval yet."""
    final, score = run.final_numbers, "mean_average_precision"
    train, validation = final["train_clean"], final.get("validation")
    reached = (
        f"mean average precision {percent(train[score])} on "
        f"{count(train.get('images') or 0, 'training image')}"
    )
    gap = 0.0
    if validation is not None:
        gap = train[score] - validation[score]
        reached += (
            f", {percent(validation[score])} on "
            f"{count(validation.get('images') or 0, 'validation image')}"
        )
    if gap > GAP:
        name, ways = f"overfitting, a gap of {points(gap)} points", _generalise(run, 1.0)
    elif train[score] < FITTED:
        name = f"underfitting, below {100 * FITTED:g} % on training images"
        ways = _fit_better(run)
    elif validation is None:
        return f"{reached}; without validation images nothing shows how it does on new ones."
    else:
        return f"{reached}: no sign of overfitting or underfitting."
    return f"{reached}: {name}. Try, in this order: {'; '.join(ways)}."


def _learn(run: Run) -> Iterator[str]:
    """What to try when nothing was learned."""
    optim, epochs = run.config.optim, run.config.train.epochs
    yield from _more_steps(run)
    muon = f" and optim.muon_lr than {optim.muon_lr:g}" if optim.optimizer == "muon" else ""
    yield f"a lower optim.lr than {optim.lr:g}{muon}"
    if not optim.warmup_epochs and epochs > 1:
        yield f"a warm-up, --optim.warmup_epochs {max(1, min(5, epochs // 10))}"
    yield "--overfit-one-batch, which shows whether the set-up can learn at all"


def _generalise(run: Run, most: float) -> Iterator[str]:
    """What to try when training images are learned by heart.

    Args:
        most: the upper end of the interval of the last validation accuracy.
    """
    config, images = run.config, run.provenance["data"]["train_images"]
    if config.train.weights is None and images < FEW_IMAGES:
        same = [name for name in names() if shipped(name).config.model == config.model]
        yield f"start from weights, {f'--from {same[0]}' if same else 'recipe cpu with --from cpu'}"
    yield "more images"
    if config.augment.policy == "none":
        yield "more augmentation, --augment.policy trivialaugment"
    final = run.final_numbers
    best, epochs = final["best"], final["epochs"]
    at = epochs * best.get("step", final["step"]) / final["step"]
    if at < 0.7 * epochs and (best.get("accuracy") or 0) > most:
        yield (
            f"fewer epochs than {epochs:g}, as {percent(best.get('accuracy'))} of the validation "
            f"images were right after {at:.0f}"
        )


def _fit_better(run: Run) -> Iterator[str]:
    """What to try when even training images are not learned."""
    ways = list(_more_steps(run))
    yield from ways
    epochs, augment = run.config.train.epochs, run.config.augment
    found = [line for line in run.metrics if line["split"] == "train_clean"]
    before = [x for x in found if x["epoch"] <= 0.75 * run.final_numbers["epochs"]]
    score = run.config.data.score
    gain = found[-1][score] - before[-1][score] if before else 0.0
    if gain > RISING and not any("train.epochs" in way for way in ways):
        yield (
            f"more train.epochs than {epochs}, as {score.replace('_', ' ')} on training images "
            f"rose by {points(gain)} points after epoch {before[-1]['epoch']:g}"
        )
    yield "a larger model"
    if augment.policy != "none" or augment.mixes or augment.cutout or augment.erasing:
        yield "less augmentation"


def _more_steps(run: Run) -> Iterator[str]:
    """What gives a training more steps, where it had few."""
    final, train = run.final_numbers, run.config.train
    if final["step"] >= FEW_STEPS:
        return
    each = max(1, round(final["step"] / final["epochs"]))
    batch = min(train.batch_size, run.provenance["data"]["train_images"])
    why = f"as {count(final['step'], 'step')} ({each} an epoch) are few"
    if each < FEW_BATCHES and batch > SMALL_BATCH:
        yield f"a train.batch_size smaller than {batch}, {why}"
    else:
        yield f"more train.epochs than {train.epochs}, {why}"

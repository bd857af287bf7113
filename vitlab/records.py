"""What the files of a run directory hold, as types. `vitlab.run` reads and writes them.

    provenance.json             Provenance
    checkpoints/*/state.json    CheckpointState
    metrics.jsonl               one MetricsLine a line
    finished.json               FinalNumbers
    results.json                Results
    timing.json                 Timing
    explain/faithfulness.json   Faithfulness

Accuracies and other shares are fractions from 0 to 1, losses are in nats, times in seconds unless
a name says otherwise, memory is in bytes. Where images have several labels (`data.task`), an
evaluation has the mean average precision instead of the accuracy. What is NotRequired is missing
from files of earlier versions, or where a run has nothing to say.
"""

from typing import Any, Literal, NotRequired, TypedDict

Split = Literal["validation", "test"]
"""What a finished model is evaluated on."""

CheckpointChoice = Literal["last", "best"]
"""The newest checkpoint, or that of the highest validation accuracy."""


class Choice(TypedDict):
    """A setting that was chosen automatically, and why."""

    value: str
    reason: str


class DataProvenance(TypedDict):
    """The images of a run; statistics are per channel, of pixel values from 0 to 1."""

    fingerprint: str
    class_names: list[str]
    mean: list[float]
    std: list[float]
    train_images: int
    validation_images: int
    split_sha256: dict[str, str]
    """Hash of the images of each split: train and, where there are any, validation."""
    skipped_images: NotRequired[int]
    grey_range: NotRequired[list[int] | None]
    validation_seen: NotRequired[int]
    """Validation images that the weights it started from were trained on."""


class Provenance(TypedDict):
    """Where a run comes from."""

    command: str | None
    vitlab: str
    commit: str | None
    python: str
    torch: str
    numpy: str
    platform: str
    device: str
    device_type: str
    threads: int
    cpu_capability: str
    precision: Choice
    compilation: Choice
    determinism: Choice
    started: str
    """UTC, ISO 8601."""
    data: DataProvenance
    processes: NotRequired[int]
    attention: NotRequired[Choice]
    layout: NotRequired[Choice]
    trial: NotRequired[dict[str, float]]
    """What was tried to choose settings, with its seconds."""
    weights: NotRequired[dict[str, Any]]
    """Which weights it started from, and what of them fitted."""
    teacher: NotRequired[str]
    """Name of the folder of its teacher's run, beside its own."""


class Evaluation(TypedDict):
    """A measurement on one split during training."""

    loss: float
    accuracy: float
    mean_average_precision: float
    images: NotRequired[int]


class BestEvaluation(TypedDict, total=False):
    """The best validation of a run and its step; empty where nothing was validated."""

    step: int
    loss: float
    accuracy: float
    mean_average_precision: float
    images: int


class CheckpointState(TypedDict):
    """What a human can read of a checkpoint."""

    step: int
    image_size: tuple[int, int]
    """Height and width at which the next step trains."""
    scaler: dict[str, Any]
    plateau: dict[str, Any]
    clock: dict[str, float | None]
    recent: list[float]
    recent_seconds: float
    evaluation: dict[str, Any]
    """An Evaluation by split, if they were measured at this very step."""
    best: dict[str, float]
    """Step, loss and accuracy of the best validation so far."""
    alarms: list[str]


class TrainingLine(TypedDict):
    """A line of metrics: means over the steps since the last one."""

    split: Literal["train"]
    step: int
    epoch: float
    loss: float
    lr: float
    grad_norm: float
    images_per_second: float


class EvaluationLine(TypedDict):
    """A line of metrics: an evaluation of clean training or of validation images."""

    split: Literal["train_clean", "validation"]
    step: int
    epoch: float
    loss: float
    accuracy: float
    mean_average_precision: float
    images: NotRequired[int]


MetricsLine = TrainingLine | EvaluationLine


class Clock(TypedDict):
    """What a training took, over all processes that had a part in it."""

    wall_seconds: float
    process_seconds: float
    """CPU time of all threads."""
    step_seconds: float
    preparation_seconds: NotRequired[float]
    capture_seconds: NotRequired[float]
    joules: NotRequired[float]
    shared: NotRequired[bool]
    """Other trainings were at work on the same device."""
    teacher: NotRequired["Clock"]
    """The part of it that its teacher's training took."""


class EarlyStop(TypedDict):
    """Why a training ended before its planned epochs."""

    reason: str
    planned_epochs: int


class FinalNumbers(TypedDict):
    """What a finished training reached and what it took."""

    step: int
    epochs: float
    train_clean: Evaluation
    best: BestEvaluation
    parameters: int
    macs: int
    """Multiply-adds of one image."""
    megabytes: float
    images_per_second: float
    seconds_per_epoch: float
    seconds_per_step: float
    clock: Clock
    peak_memory_bytes: int
    alarms: list[str]
    validation: NotRequired[Evaluation]
    stopped: NotRequired[EarlyStop]


ClassResult = TypedDict(
    "ClassResult",
    {
        "class": str,
        "images": int,
        "accuracy": float | None,
        "precision": float | None,
        "recall": float | None,
        "f1": float | None,
        "auc": float | None,
        "confidence": float | None,
    },
)
"""The numbers of one class; None for a class without images."""


LabelResult = TypedDict(
    "LabelResult",
    {
        "class": str,
        "images": int,
        "average_precision": float | None,
        "threshold": float,
        "precision": float | None,
        "recall": float | None,
        "f1": float | None,
    },
)
"""The numbers of one label of several; None for a label without images."""


class Confusion(TypedDict):
    """A kind of mistake, with its share of all errors, alone and together with its reverse."""

    true: str
    predicted: str
    count: int
    share: float
    pair_share: float


class ReliabilityBin(TypedDict):
    """Images whose highest probability lies above one edge and up to the other; None if empty."""

    above: float
    to: float
    images: int
    confidence: float | None
    accuracy: float | None


class EpochsToAccuracy(TypedDict):
    """The epochs at which an accuracy was first measured; None where it was not reached."""

    accuracy: float
    train_clean: float | None
    validation: float | None


class Summary(TypedDict):
    """What logits say of a split. Means over classes leave out the `absent_classes`.

    Numbers that begin with `scaled` are of logits divided by the temperature, None without one.
    """

    images: int
    loss: float
    accuracy: float
    accuracy_interval: list[float]
    balanced_accuracy: float | None
    top3_accuracy: float
    mean_precision: float | None
    mean_recall: float | None
    mean_f1: float | None
    mean_auc: float | None
    mean_confidence: float
    calibration_error: float
    temperature: float | None
    scaled_loss: float | None
    scaled_calibration_error: float | None
    absent_classes: list[str]
    per_class: list[ClassResult]
    top_confusions: list[Confusion]
    confusion: list[list[int]]
    """Images by true class (row) and predicted class (column)."""
    reliability: list[ReliabilityBin]
    scaled_reliability: list[ReliabilityBin] | None


class LabelSummary(TypedDict):
    """What logits say of a split whose images have several labels, instead of a Summary."""

    images: int
    loss: float
    mean_average_precision: float
    mean_average_precision_interval: list[float]
    micro_f1: float
    mean_precision: float
    mean_recall: float
    mean_f1: float
    exact_match: float
    """Share of images that are given all of their labels and no other."""
    temperature: float | None
    temperature_images: NotRequired[int | None]
    """Validation images that temperature and thresholds were fitted on."""
    scaled_loss: float | None
    absent_classes: list[str]
    per_class: list[LabelResult]


class EvaluationSource(TypedDict):
    """Which weights and which images a result speaks of."""

    step: int
    checkpoint_sha256: str
    data_fingerprint: str
    index_sha256: str
    precision: str
    validation_seen: NotRequired[int]
    cross_validated: NotRequired[int]
    """Folds, where each image was classified by a model that the others were trained on: none of
    these is the model of the checkpoint, which was trained on all of them."""
    test_openings: NotRequired[int]
    """Uses of these test images so far, by the ledger beside the run, this one included."""
    ood: NotRequired["OodResult"]


class OodResult(TypedDict):
    """What was found of images that are unlike the training images; see `metrics.ood`."""

    score: str
    threshold: float
    """Up to which an image is taken for known, as 95 % of the validation images are."""
    held_out: bool
    """False where the threshold is of images that the model was trained on."""
    unknown: float
    """Share of the images of this result that are called unknown."""


class PredictionSets(TypedDict):
    """Sets of classes that are to hold the true one with some probability, as measured."""

    level: float
    coverage: float
    coverage_interval: list[float]
    mean_size: float
    empty: float
    """Share of the images whose set is empty."""


class SplitResult(Summary, EvaluationSource):
    """The evaluation of a checkpoint on a split, with what its run's training adds."""

    conformal_thresholds: NotRequired[list[float | None]]
    """Of the coverages of `metrics.conformal.LEVELS`, by validation images."""
    prediction_sets: NotRequired[list[PredictionSets]]
    """Measured with the thresholds of validation images; on these, half by the other half."""

    temperature_images: NotRequired[int | None]
    """Validation images that the temperature was fitted on."""
    train_accuracy: float | None
    generalisation_gap: float | None
    seconds_per_epoch: float | None
    seconds_per_step: float | None
    epochs_to_accuracy: list[EpochsToAccuracy]


class Condition(TypedDict):
    """Accuracy on images that were corrupted or attacked; severity 0 where there is but one."""

    condition: str
    severity: int
    images: int
    correct: int
    accuracy: float
    accuracy_interval: list[float]


class RobustnessResult(EvaluationSource):
    """The evaluation of a checkpoint on corrupted and attacked images of a split."""

    images: int
    mean_corrupted_accuracy: float
    epsilon: float
    conditions: list[Condition]


Results = TypedDict(
    "Results",
    {
        "validation": SplitResult,
        "test": SplitResult,
        "validation-robustness": RobustnessResult,
        "test-robustness": RobustnessResult,
        "best": "Results",
    },
    total=False,
)
"""Evaluations of the last checkpoint and, under `best`, those of the best one."""


class Timing(TypedDict):
    """How long an answer takes: the median time of one image, in milliseconds."""

    inference_ms: float
    device: str
    threads: int
    step: int


PASSED = "beats both"
"""The verdict of `vitlab explain` on maps that are better than a random one and than the centre of
the image, and that depend on what the model has learned."""


class Estimate(TypedDict):
    """A mean over images and its 95 % interval."""

    mean: float
    interval: list[float]


class TestedMaps(TypedDict):
    """What covering and uncovering images in the order of a method's maps came to."""

    method: str
    gain: Estimate
    """Area under insertion less area under deletion."""
    verdict: NotRequired[str]
    """In words; the random and the centre map have none."""


class Faithfulness(TypedDict):
    """What `explain` found of a checkpoint's maps; there is more that only `explain` reads."""

    checkpoint_sha256: str
    images: int
    split: str
    """Of which the images are: a run that held none out was tested on training images."""
    methods: list[TestedMaps]
    """Highest gain first."""


class Failure(TypedDict):
    """Why a trial of a study has no result."""

    status: str
    reason: str

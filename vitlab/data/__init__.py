"""Images and labels: where they come from, how they are split, what happens to them in training.

`vitlab.data.augment` and `vitlab.data.batches` need torch and are imported by their own names.
"""

from vitlab.data.images import decode
from vitlab.data.known import KNOWN
from vitlab.data.sources import (
    ARRAYS,
    Data,
    Dataset,
    LabelledImages,
    class_counts,
    describe,
    find_again,
    from_arrays,
    load_test,
    load_train,
    open_dataset,
    resolve,
    statistics,
)
from vitlab.data.splits import index_sha256

__all__ = [
    "ARRAYS",
    "KNOWN",
    "Data",
    "Dataset",
    "LabelledImages",
    "class_counts",
    "decode",
    "describe",
    "find_again",
    "from_arrays",
    "index_sha256",
    "load_test",
    "load_train",
    "open_dataset",
    "resolve",
    "statistics",
]

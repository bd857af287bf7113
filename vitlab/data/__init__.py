"""Images and labels: where they come from, how they are split, what happens to them in training.

`vitlab.data.augment` and `vitlab.data.batches` need torch and are imported by their own names.
"""

from vitlab.data.dataset import ARRAYS, Data, Dataset, load_test, open_dataset
from vitlab.data.find import Root, locate, relocate
from vitlab.data.images import decode
from vitlab.data.known import KNOWN
from vitlab.data.labelled import LabelledImages, Subset, class_counts, from_arrays, statistics
from vitlab.data.splits import index_sha256

__all__ = [
    "ARRAYS",
    "KNOWN",
    "Data",
    "Dataset",
    "LabelledImages",
    "Root",
    "Subset",
    "class_counts",
    "decode",
    "from_arrays",
    "index_sha256",
    "load_test",
    "locate",
    "open_dataset",
    "relocate",
    "statistics",
]

"""Training: a config and a data set become a run directory."""

from vitlab.training.fit import overfit_one_batch, resume, train

__all__ = ["overfit_one_batch", "resume", "train"]

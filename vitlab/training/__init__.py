"""Training: a config and a data set become a run directory."""

from vitlab.training.fit import new_path, overfit_one_batch, resume, train
from vitlab.training.scaling import SCALED, scale_to_images

__all__ = ["SCALED", "new_path", "overfit_one_batch", "resume", "scale_to_images", "train"]

"""Training: `keras.Model.fit` on lanes with carried state, schedules, checkpoints, resume."""

from textgen.training.throughput import size_to_fit
from textgen.training.trainer import resume, train

__all__ = ["resume", "size_to_fit", "train"]

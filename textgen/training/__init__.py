"""Training: `keras.Model.fit` with carried state, schedules, checkpoints and resuming."""

from textgen.training.sizing import size_to_fit
from textgen.training.trainer import resume, train

__all__ = ["resume", "size_to_fit", "train"]

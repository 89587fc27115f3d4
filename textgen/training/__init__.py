"""Training: `keras.Model.fit` on lanes with carried state, schedules, checkpoints, resume."""

from textgen.training.trainer import resume, train

__all__ = ["resume", "train"]

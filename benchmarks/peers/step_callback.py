"""The callback that gives turns to a worker whose loop is `keras.Model.fit`."""

from typing import Any

import keras

from benchmarks.workers import TrainingTurns


class StepCallback(keras.callbacks.Callback):
    """Reports the optimizer's steps to `TrainingTurns`."""

    def __init__(self) -> None:
        super().__init__()
        self._turns = TrainingTurns()
        self._steps = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Report the new steps: one call of the training function can take several."""
        steps = int(self.model.optimizer.iterations)
        self._turns.steps_done(steps - self._steps)
        self._steps = steps

"""The callback that paces a worker whose loop is `keras.Model.fit`."""

import keras

from benchmarks.pacing import Pacer


class PacedFit(keras.callbacks.Callback):
    """Tells the pacer of the steps done."""

    def __init__(self):
        super().__init__()
        self.pacer = Pacer()
        self._steps = 0

    def on_train_batch_end(self, batch, logs=None):
        """Count the steps: the optimizer knows how many a call has taken."""
        steps = int(self.model.optimizer.iterations)
        self.pacer.steps_done(steps - self._steps)
        self._steps = steps

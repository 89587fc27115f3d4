"""The callback that paces a worker whose loop is `keras.Model.fit`."""

import keras

from benchmarks.pacing import Pacer


class PacedFit(keras.callbacks.Callback):
    """Tells the pacer of each step."""

    def __init__(self):
        super().__init__()
        self.pacer = Pacer()

    def on_train_batch_end(self, batch, logs=None):
        """Count the step."""
        self.pacer.step_done()

"""The trained Keras model as an engine: for a GPU, and to hold the other engines to.

It knows token ids, states and logits. It does NOT know text or sampling, nor how the
model computes: that is `textgen.models`. TensorFlow is imported when an engine is made.
"""

import numpy as np
from numpy.typing import NDArray

from textgen.models.weights import ModelWeights
from textgen.startup import import_tensorflow_quietly

Array = NDArray[np.float32]

# Steps of a prompt read at once: bounds the logits that the model makes along the way.
PREFILL_STEPS = 128


class TensorFlowEngine:
    """Runs `textgen.models.build_language_model` on given weights; keeps `Engine`'s contract.

    The model is traced once, for any batch and any number of steps.
    """

    def __init__(self, weights: ModelWeights) -> None:
        import_tensorflow_quietly()
        import tensorflow as tf

        from textgen.models.language_model import build_language_model

        model = build_language_model(weights.to_config(), weights.vocab_size)
        model.set_model_weights(weights)
        token_ids = tf.TensorSpec([None, None], tf.int32)
        state = tf.TensorSpec([weights.num_layers, None, weights.state_size], tf.float32)

        @tf.function(input_signature=(token_ids, state))
        def call(token_ids, state):
            return model(token_ids, state)

        self._call = call
        self._weights = weights
        self.vocab_size = weights.vocab_size

    def initial_state(self, batch: int) -> Array:
        """Return the state at the beginning of a text, `[num_layers, batch, state_size]`."""
        return self._weights.initial_state(batch)

    def forward(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after every token, `[batch, time, vocab_size]`, and the next state."""
        logits, next_state = self._call(token_ids.astype(np.int32), state.astype(np.float32))
        return logits.numpy(), next_state.numpy()

    def prefill(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after the last token, `[batch, vocab_size]`, and the next state."""
        for start in range(0, token_ids.shape[1], PREFILL_STEPS):
            logits, state = self.forward(token_ids[:, start : start + PREFILL_STEPS], state)
        return logits[:, -1], state

    def decode_step(self, token_ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Return the logits after one token a row, `[batch, vocab_size]`, and the next state."""
        logits, next_state = self.forward(token_ids[:, None], state)
        return logits[:, 0], next_state

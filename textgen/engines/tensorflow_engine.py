"""The Keras model as an engine: for GPUs, and as a check of the other engines.

It knows token ids, states and logits. It does NOT know text or sampling, or how the model
computes: that is `textgen.models`. TensorFlow is imported when an engine is made.
"""

from typing import Any

import numpy as np

from textgen.arrays import Float32Array, IntArray, State
from textgen.models.weights import ModelWeights
from textgen.startup import import_tensorflow_quietly

# Steps of a prompt that are read at once, since the model computes logits for all of them.
_PREFILL_STEPS = 128


class TensorFlowEngine:
    """Runs `textgen.models.build_language_model` with given weights; implements `Engine`.

    The model is traced once, for any batch size and any number of steps.
    """

    def __init__(self, weights: ModelWeights) -> None:
        """Build and trace the model.

        Args:
            weights: The model.
        """
        import_tensorflow_quietly()
        import tensorflow as tf

        from textgen.models.language_model import build_language_model

        model = build_language_model(weights.to_config(), weights.vocab_size)
        model.set_model_weights(weights)
        token_ids = tf.TensorSpec([None, None], tf.int32)
        state = tf.TensorSpec([weights.num_layers, None, weights.state_size], tf.float32)

        def call(token_ids: Any, state: Any) -> Any:
            return model(token_ids, state)

        self._call = tf.function(call, input_signature=(token_ids, state))
        self._weights = weights
        self.vocab_size = weights.vocab_size

    def initial_state(self, batch: int) -> Float32Array:
        """Return the state at the start of a text, `[num_layers, batch, state_size]`."""
        return self._weights.initial_state(batch)

    def forward(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float32Array]:
        """Return the logits after every token, `[batch, time, vocab_size]`, and the next state."""
        logits, next_state = self._call(token_ids.astype(np.int32), state.astype(np.float32))
        return logits.numpy(), next_state.numpy()

    def prefill(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float32Array]:
        """Return the logits after the last token, `[batch, vocab_size]`, and the next state."""
        for start in range(0, token_ids.shape[1], _PREFILL_STEPS):
            logits, state = self.forward(token_ids[:, start : start + _PREFILL_STEPS], state)
        return logits[:, -1], state

    def decode_step(self, token_ids: IntArray, state: State) -> tuple[Float32Array, Float32Array]:
        """Return the logits after one token per row, `[batch, vocab_size]`, and the next state."""
        logits, next_state = self.forward(token_ids[:, None], state)
        return logits[:, 0], next_state

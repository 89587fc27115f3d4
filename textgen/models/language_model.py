"""The Keras model: token ids and a state in, logits and the next state out.

Embedding, `num_layers` GRU layers with locked dropout behind each, Dense to
logits. It does not know what a token means, where windows come from, or how its
weights are trained and stored.
"""

import keras
import numpy as np
import tensorflow as tf

from textgen.config import ModelConfig
from textgen.models.gru import GRU
from textgen.models.kernels import KernelChoice, choose_gru_kernel
from textgen.models.weights import GruWeights, ModelWeights


class LanguageModel(keras.Model):
    """Embedding, GRU layers, Dense.

    Args:
        config: Sizes and dropout.
        vocab_size: Number of token ids.
        seed: Seed of the initial weights and of dropout.
        kernel: Which GRU runs.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, *, seed: int, kernel: KernelChoice):
        super().__init__(name="language_model")
        self.config = config
        self.vocab_size = vocab_size
        self.kernel_choice = kernel
        self.embedding = keras.layers.Embedding(
            vocab_size,
            config.embedding_dim,
            embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
            name="embedding",
        )
        self.gru_layers = [
            GRU(config.hidden_size, kernel=kernel.name, seed=seed + 10 * (i + 1), name=f"gru_{i}")
            for i in range(config.num_layers)
        ]
        self.dropouts = [
            keras.layers.Dropout(
                config.dropout, noise_shape=(1, None, None), seed=seed + 10 * (i + 1) + 5
            )
            for i in range(config.num_layers)
        ]
        self.dense = keras.layers.Dense(
            vocab_size,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 1),
            name="dense",
        )
        self._build_weights()

    def _build_weights(self) -> None:
        self.embedding.build((None, None))
        sizes = [self.config.embedding_dim] + [self.config.hidden_size] * self.config.num_layers
        for layer, size in zip(self.gru_layers, sizes, strict=False):
            layer.build((None, None, size))
        self.dense.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, token_ids, state, training=False):
        """Predict the token after each position.

        Args:
            token_ids: `[batch, time]` integers.
            state: `[num_layers, batch, hidden_size]` float32.
            training: Whether dropout acts.

        Returns:
            Logits `[batch, time, vocab_size]` and the next state, shaped as `state`.
        """
        hidden, next_state = self.hidden_states(token_ids, state, training=training)
        return tf.transpose(self.dense(hidden), [1, 0, 2]), next_state

    def token_losses(self, token_ids, targets, state, training=False):
        """Return the cross-entropy of each target in nats, `[time, batch]`, and the next state.

        Args:
            token_ids: `[batch, time]` integers.
            targets: `[batch, time]` integers, the token after each.
            state: `[num_layers, batch, hidden_size]` float32.
            training: Whether dropout acts.
        """
        hidden, next_state = self.hidden_states(token_ids, state, training=training)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tf.transpose(targets), logits=self.dense(hidden)
        )
        return losses, next_state

    def hidden_states(self, token_ids, state, training=False):
        """Return what the Dense layer reads, `[time, batch, hidden_size]`, and the next state."""
        next_states = []
        hidden = None
        for i, (layer, dropout) in enumerate(zip(self.gru_layers, self.dropouts, strict=True)):
            if i == 0:
                hidden, last = self._first_layer(layer, tf.transpose(token_ids), state[0])
            else:
                hidden, last = layer(hidden, state[i])
            next_states.append(last)
            hidden = dropout(hidden, training=training)
        return hidden, tf.stack(next_states)

    def _first_layer(self, layer: GRU, token_ids, state):
        """Run the first GRU layer on `[time, batch]` ids.

        With fewer tokens in the vocabulary than in the window, `embedding @ kernel` is
        made once for each token of the vocabulary and looked up, which saves most of
        the input product.
        """
        tokens = token_ids.shape.num_elements()
        if layer.gru_kernel == "fused" and tokens is not None and self.vocab_size < tokens:
            table = layer.input_gates(tf.convert_to_tensor(self.embedding.embeddings))
            return layer.from_input_gates(tf.gather(table, token_ids), state)
        return layer(self.embedding(token_ids), state)

    def initial_state(self, batch_size: int):
        """Return the state at the beginning of a text, zeros `[num_layers, batch, hidden_size]`."""
        return tf.zeros([self.config.num_layers, batch_size, self.config.hidden_size])

    def model_weights(self) -> ModelWeights:
        """Return a copy of the weights as NumPy arrays."""
        return ModelWeights(
            embedding=_array(self.embedding.embeddings),
            gru=tuple(
                GruWeights(
                    kernel=_array(layer.gru.cell.kernel),
                    recurrent_kernel=_array(layer.gru.cell.recurrent_kernel),
                    bias=_array(layer.gru.cell.bias),
                )
                for layer in self.gru_layers
            ),
            dense_kernel=_array(self.dense.kernel),
            dense_bias=_array(self.dense.bias),
        )

    def set_model_weights(self, weights: ModelWeights) -> None:
        """Take over `weights`; their shapes must be those of this model."""
        self.embedding.set_weights([weights.embedding])
        for layer, gru in zip(self.gru_layers, weights.gru, strict=True):
            layer.gru.set_weights([gru.kernel, gru.recurrent_kernel, gru.bias])
        self.dense.set_weights([weights.dense_kernel, weights.dense_bias])


def _array(variable: keras.Variable) -> np.ndarray:
    """Return a copy of a variable's value."""
    return np.array(variable.numpy())


def build_language_model(
    config: ModelConfig,
    vocab_size: int,
    *,
    seed: int = 1,
    kernel: KernelChoice | None = None,
) -> LanguageModel:
    """Return a model with fresh weights.

    Args:
        config: Sizes and dropout.
        vocab_size: Number of token ids.
        seed: Seed of the initial weights and of dropout.
        kernel: Which GRU runs; None: the fastest this machine can run.

    Returns:
        A built model.
    """
    return LanguageModel(config, vocab_size, seed=seed, kernel=kernel or choose_gru_kernel())

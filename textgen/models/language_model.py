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
from textgen.models.kernels import Execution, choose_execution
from textgen.models.weights import GruWeights, ModelWeights


class LanguageModel(keras.Model):
    """Embedding, GRU layers, Dense.

    Args:
        config: Sizes and dropout.
        vocab_size: Number of token ids.
        seed: Seed of the initial weights and of dropout.
        execution: How it is computed.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, *, seed: int, execution: Execution):
        super().__init__(name="language_model")
        self.config = config
        self.vocab_size = vocab_size
        self.execution = execution
        self.embedding = keras.layers.Embedding(
            vocab_size,
            config.embedding_dim,
            embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
            name="embedding",
        )
        self.gru_layers = [
            GRU(
                config.hidden_size,
                kernel=execution.kernel,
                precision=execution.precision,
                weight_drop=config.weight_drop,
                seed=seed + 10 * (i + 1),
                name=f"gru_{i}",
            )
            for i in range(config.num_layers)
        ]
        # one mask for all steps of a window, in the layout of either kernel
        locked = (1, None, None) if execution.kernel == "fused" else (None, 1, None)
        self.dropouts = [
            keras.layers.Dropout(config.dropout, noise_shape=locked, seed=seed + 10 * (i + 1) + 5)
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

    def call(
        self, token_ids: tf.Tensor, state: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Predict the token after each position.

        Args:
            token_ids: `[batch, time]` integers.
            state: `[num_layers, batch, hidden_size]` float32.
            training: Whether dropout acts, and products take the training precision.

        Returns:
            Logits `[batch, time, vocab_size]` and the next state, shaped as `state`.
        """
        kernels = self.recurrent_kernels(training)

        def predict(token_ids, state):
            hidden, next_state = self.hidden_states(token_ids, state, kernels, training)
            return self._logits(hidden, training), next_state

        return self._in_shards(predict, [token_ids], state)

    def token_losses(
        self, token_ids: tf.Tensor, targets: tf.Tensor, state: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Measure how well each target was predicted.

        Args:
            token_ids: `[batch, time]` integers.
            targets: `[batch, time]` integers, the token after each.
            state: `[num_layers, batch, hidden_size]` float32.
            training: Whether dropout acts, and products take the training precision.

        Returns:
            The cross-entropies in nats, `[batch, time]`, and the next state.
        """
        kernels = self.recurrent_kernels(training)

        def lose(token_ids, targets, state):
            hidden, next_state = self.hidden_states(token_ids, state, kernels, training)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=targets, logits=self._logits(hidden, training)
            )
            return losses, next_state

        return self._in_shards(lose, [token_ids, targets], state)

    def recurrent_kernels(self, training=False):
        """Return the recurrent kernels of this step; all parts of a batch share them."""
        return [layer.recurrent_kernel(training) for layer in self.gru_layers]

    def hidden_states(self, token_ids, state, kernels, training=False):
        """Return what the Dense layer reads, `[batch, time, hidden_size]`, and the next state.

        The first comes in the dtype of the products, the state in float32. `kernels` are
        the recurrent kernels, one a layer, from `recurrent_kernels`.
        """
        if self.execution.kernel == "fused":
            return self._run_fused(token_ids, state, kernels, training)
        next_states, hidden = [], self.embedding(token_ids)
        for i, (layer, dropout) in enumerate(zip(self.gru_layers, self.dropouts, strict=True)):
            hidden, last = layer(hidden, state[i], kernels[i])
            next_states.append(last)
            hidden = dropout(hidden, training=training)
        return hidden, tf.stack(next_states)

    def _run_fused(self, token_ids, state, kernels, training):
        """Run all layers in the layout of the fused kernel, `[time, features, batch]`."""
        products = self._products(training)
        hidden, kernel = self._first_inputs(token_ids)
        next_states = []
        for i, (layer, dropout) in enumerate(zip(self.gru_layers, self.dropouts, strict=True)):
            hidden, last = layer.run_fused(
                hidden,
                tf.transpose(state[i]),
                layer.kernel if i else kernel,
                kernels[i],
                products,
            )
            next_states.append(tf.transpose(last))
            hidden = dropout(hidden, training=training)
        return tf.transpose(hidden, [2, 0, 1]), tf.stack(next_states)

    def _first_inputs(self, token_ids):
        """Return the first layer's inputs `[time, features, batch]`, and their kernel.

        A vocabulary smaller than the embedding goes in as one-hot columns, with the
        product of embedding and kernel as the kernel: fewer operations, and both
        gradients come from products instead of scattered additions.
        """
        kernel = self.gru_layers[0].kernel
        embeddings = tf.convert_to_tensor(self.embedding.embeddings)
        time_major = tf.transpose(token_ids)
        if self.vocab_size <= self.config.embedding_dim:
            columns = tf.one_hot(time_major, self.vocab_size, axis=1, dtype=tf.int8)
            return columns, tf.matmul(embeddings, kernel)
        return tf.transpose(tf.gather(embeddings, time_major), [0, 2, 1]), kernel

    def _logits(self, hidden, training):
        products = self._products(training)
        kernel = tf.cast(tf.convert_to_tensor(self.dense.kernel), products)
        logits = tf.tensordot(tf.cast(hidden, products), kernel, 1)
        return tf.cast(logits, tf.float32) + self.dense.bias

    def _products(self, training) -> tf.DType:
        return tf.as_dtype(self.execution.precision if training else "float32")

    def _in_shards(self, function, batches, state):
        """Apply `function(*batches, state)` to parts of the batch side by side; join the parts.

        Lanes are independent, so the parts are separate pieces of one graph that run on
        a core each.
        """
        sizes = self.execution.shard_sizes(batches[0].shape[0])
        if len(sizes) == 1:
            return function(*batches, state)
        parts = zip(
            *(tf.split(batch, sizes, axis=0) for batch in batches),
            tf.split(state, sizes, axis=1),
            strict=True,
        )
        results, states = zip(*(function(*part) for part in parts), strict=True)
        return tf.concat(results, axis=0), tf.concat(states, axis=1)

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
    execution: Execution | None = None,
) -> LanguageModel:
    """Return a model with fresh weights.

    Args:
        config: Sizes and dropout.
        vocab_size: Number of token ids.
        seed: Seed of the initial weights and of dropout.
        execution: How it is computed; None: as is fastest on this machine.

    Returns:
        A built model.
    """
    return LanguageModel(config, vocab_size, seed=seed, execution=execution or choose_execution())

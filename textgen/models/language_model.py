"""The Keras model: token ids and a state in, logits and the next state out.

Embedding, `num_layers` blocks of a recurrent layer each, Dense to logits. It does not
know what a token means, where windows come from, or how its weights are trained and
stored.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from textgen.config import ModelConfig
from textgen.models.block import Block, locked
from textgen.models.kernels import Execution, choose_execution
from textgen.models.weights import ModelWeights


class StepWeights(NamedTuple):
    """The weights of one step after dropout: drawn once, shared by all parts of a batch.

    Attributes:
        embeddings: `[vocab_size, embedding_dim]`.
        recurrent_kernels: One a block.
    """

    embeddings: tf.Tensor
    recurrent_kernels: list[tf.Tensor]


class LanguageModel(keras.Model):
    """Embedding, recurrent blocks, Dense.

    Args:
        config: Sizes, parts and dropout.
        vocab_size: Number of token ids.
        seed: Seed of the initial weights and of dropout.
        execution: How it is computed.

    Source: for the dropouts, Merity et al. 2017, "Regularizing and Optimizing LSTM Language
    Models"; for tied weights, Press and Wolf 2017, "Using the Output Embedding to Improve
    Language Models".
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
        self.embedding_dropout = keras.layers.Dropout(
            config.embedding_dropout, noise_shape=(None, 1), seed=seed + 6
        )
        self.input_dropout = keras.layers.Dropout(
            config.input_dropout, noise_shape=locked(execution), seed=seed + 7
        )
        self.blocks = [
            Block(config, i, execution=execution, seed=seed + 10 * (i + 1))
            for i in range(config.num_layers)
        ]
        self.dense = _Head(vocab_size, tied=config.tie_weights, seed=seed + 1)
        self._build_weights()

    def _build_weights(self) -> None:
        self.embedding.build((None, None))
        for block in self.blocks:
            block.build()
        self.dense.build(self.config.hidden_size)
        if self.config.initial_state == "learned":
            shape = (self.config.num_layers, self.config.state_size)
            self.learned_initial_state = self.add_weight(
                shape=shape, initializer="zeros", name="learned_initial_state"
            )
        self.built = True

    def call(
        self, token_ids: tf.Tensor, state: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Predict the token after each position.

        Args:
            token_ids: `[batch, time]` integers.
            state: `[num_layers, batch, state_size]` float32.
            training: Whether dropout acts, and products take the training precision.

        Returns:
            Logits `[batch, time, vocab_size]` and the next state, shaped as `state`.
        """
        weights = self.step_weights(training)

        def predict(token_ids, state):
            hidden, next_state = self.hidden_states(token_ids, state, weights, training)
            return self._logits(hidden, training), next_state

        return self._in_shards(predict, [token_ids], state)

    def token_losses(
        self, token_ids: tf.Tensor, targets: tf.Tensor, state: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Measure how well each target was predicted.

        Args:
            token_ids: `[batch, time]` integers.
            targets: `[batch, time]` integers, the token after each.
            state: `[num_layers, batch, state_size]` float32.
            training: Whether dropout acts, and products take the training precision.

        Returns:
            The cross-entropies in nats, `[batch, time]`, and the next state.
        """
        weights = self.step_weights(training)

        def shard_losses(token_ids, targets, state):
            hidden, next_state = self.hidden_states(token_ids, state, weights, training)
            return self._cross_entropies(hidden, targets, training), next_state

        return self._in_shards(shard_losses, [token_ids, targets], state)

    def losses_and_penalties(
        self, token_ids: tf.Tensor, targets: tf.Tensor, state: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Measure, in training, how well each target was predicted and how large the states are.

        Args:
            token_ids: `[batch, time]` integers.
            targets: `[batch, time]` integers, the token after each.
            state: `[num_layers, batch, state_size]` float32.

        Returns:
            The cross-entropies in nats, `[batch, time]`; a row's mean squares of what the Dense
            layer reads, and of its change from token to token, `[batch, 2]`; the next state.

        Source: Merity et al. 2017, "Revisiting Activation Regularization for Language RNNs".
        """
        weights = self.step_weights(training=True)

        def shard_losses(token_ids, targets, state):
            hidden, next_state = self.hidden_states(token_ids, state, weights, training=True)
            penalties = _mean_squares(tf.cast(hidden, tf.float32))
            return self._cross_entropies(hidden, targets, training=True), penalties, next_state

        return self._in_shards(shard_losses, [token_ids, targets], state)

    def step_weights(self, training: bool = False) -> StepWeights:
        """Return the weights that dropout acts on, drawn for one step."""
        embeddings = tf.convert_to_tensor(self.embedding.embeddings)
        return StepWeights(
            self.embedding_dropout(embeddings, training=training),
            [block.recurrent.recurrent_kernel(training) for block in self.blocks],
        )

    def hidden_states(self, token_ids, state, weights: StepWeights, training=False):
        """Return what the Dense layer reads, `[batch, time, hidden_size]`, and the next state.

        The first comes in the dtype of the products, the state in float32.
        """
        hidden, embeddings = self._first_inputs(token_ids, weights.embeddings, training)
        next_states: list[tf.Tensor] = []
        for block, kernel, before in zip(
            self.blocks, weights.recurrent_kernels, tf.unstack(state), strict=True
        ):
            hidden, after = block(
                hidden,
                before,
                kernel,
                embeddings=None if next_states else embeddings,
                products=self._products(training),
                training=training,
            )
            next_states.append(after)
        if self.execution.kernel == "fused":
            hidden = tf.transpose(hidden, [2, 0, 1])
        return hidden, tf.stack(next_states)

    def _first_inputs(self, token_ids, embeddings, training):
        """Return the first block's inputs, and the embeddings if these are one-hot columns.

        A vocabulary smaller than the embedding goes in as one-hot columns, with the
        product of embedding and kernel as the kernel: fewer operations, and both
        gradients come from products instead of scattered additions.
        """
        if self.execution.kernel != "fused":
            return self.input_dropout(tf.gather(embeddings, token_ids), training=training), None
        time_major = tf.transpose(token_ids)
        masked = training and self.config.input_dropout > 0
        if self.vocab_size <= self.config.embedding_dim and not masked:
            return tf.one_hot(time_major, self.vocab_size, axis=1, dtype=tf.int8), embeddings
        columns = tf.transpose(tf.gather(embeddings, time_major), [0, 2, 1])
        return self.input_dropout(columns, training=training), None

    def _cross_entropies(self, hidden, targets, training):
        logits = self._logits(hidden, training)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)

    def _logits(self, hidden, training):
        products = self._products(training)
        kernel = tf.cast(self._dense_kernel(), products)
        logits = tf.tensordot(tf.cast(hidden, products), kernel, 1)
        return tf.cast(logits, tf.float32) + self.dense.bias

    def _dense_kernel(self) -> tf.Tensor:
        if self.config.tie_weights:
            return tf.transpose(tf.convert_to_tensor(self.embedding.embeddings))
        return tf.convert_to_tensor(self.dense.kernel)

    def _products(self, training) -> tf.DType:
        return tf.as_dtype(self.execution.matmul_dtype if training else "float32")

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
        *results, states = zip(*(function(*part) for part in parts), strict=True)
        return *(tf.concat(result, axis=0) for result in results), tf.concat(states, axis=1)

    def initial_state(self, batch_size: int):
        """Return the state at the beginning of a text, `[num_layers, batch, state_size]`."""
        shape = [self.config.num_layers, batch_size, self.config.state_size]
        if self.config.initial_state == "zeros":
            return tf.zeros(shape)
        return tf.broadcast_to(tf.convert_to_tensor(self.learned_initial_state)[:, None], shape)

    def init_dense_bias(self, counts: np.ndarray) -> None:
        """Let the bias of the Dense layer be the log frequencies of tokens.

        Otherwise the first steps learn them with whatever they have: with thousands of tokens
        the states of tied weights saturate, and stay so (docs/experiments.md, 14).

        Args:
            counts: `[vocab_size]`, how often each token was seen; each counts once more.
        """
        shares = (counts + 1) / (counts + 1).sum()
        self.dense.bias.assign(np.log(shares).astype(np.float32))

    def model_weights(self) -> ModelWeights:
        """Return a copy of the weights as NumPy arrays."""
        learned = self.config.initial_state == "learned"
        return ModelWeights(
            embedding=_array(self.embedding.embeddings),
            layers=tuple(block.layer_weights() for block in self.blocks),
            dense_kernel=_array(self._dense_kernel()),
            dense_bias=_array(self.dense.bias),
            residual=self.config.residual,
            learned_initial_state=_array(self.learned_initial_state) if learned else None,
        )

    def set_model_weights(self, weights: ModelWeights) -> None:
        """Take over `weights`; their shapes and parts must be those of this model."""
        self.embedding.set_weights([weights.embedding])
        for block, layer in zip(self.blocks, weights.layers, strict=True):
            block.set_layer_weights(layer)
        self.dense.bias.assign(weights.dense_bias)
        if not self.config.tie_weights:
            self.dense.kernel.assign(weights.dense_kernel)
        if self.config.initial_state == "learned":
            self.learned_initial_state.assign(weights.learned_initial_state)


class _Head(keras.layers.Layer):
    """The weights of the Dense layer; tied, it has a bias of its own alone."""

    def __init__(self, vocab_size: int, *, tied: bool, seed: int):
        super().__init__(name="dense")
        self.vocab_size, self.tied, self._seed = vocab_size, tied, seed

    def build(self, inputs: int) -> None:
        if not self.tied:
            self.kernel = self.add_weight(
                shape=(inputs, self.vocab_size),
                initializer=keras.initializers.GlorotUniform(seed=self._seed),
                name="kernel",
            )
        self.bias = self.add_weight(shape=(self.vocab_size,), initializer="zeros", name="bias")
        self.built = True


def _mean_squares(hidden):
    """Return a row's sums of squares of `hidden` and of its change along time, over its size."""
    size = tf.cast(tf.reduce_prod(tf.shape(hidden)[1:]), hidden.dtype)
    changes = hidden[:, 1:] - hidden[:, :-1]
    return tf.stack([tf.reduce_sum(x * x, axis=[1, 2]) / size for x in (hidden, changes)], axis=1)


def _array(value: keras.Variable | tf.Tensor) -> np.ndarray:
    """Return a copy of a value."""
    return np.array(value.numpy())


def build_language_model(
    config: ModelConfig,
    vocab_size: int,
    *,
    seed: int = 1,
    execution: Execution | None = None,
) -> LanguageModel:
    """Return a model with fresh weights.

    Args:
        config: Sizes, parts and dropout.
        vocab_size: Number of token ids.
        seed: Seed of the initial weights and of dropout.
        execution: How it is computed; None: as is fastest on this machine.

    Returns:
        A built model.
    """
    execution = execution or choose_execution(cell=config.cell)
    return LanguageModel(config, vocab_size, seed=seed, execution=execution)

"""The Keras model: token ids and a state in, logits and the next state out.

Embedding, `num_layers` blocks with a recurrent layer each, Dense. It does NOT know what a token
means, where windows come from, or how its weights are trained and stored.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from textgen.arrays import Float32Array, IntArray
from textgen.config import ModelConfig
from textgen.models.block import Block
from textgen.models.kernels import Execution, choose_execution
from textgen.models.weights import ModelWeights


class StepWeights(NamedTuple):
    """The weights of one step after dropout: drawn once, shared by all shards of a batch.

    Attributes:
        embeddings: `[vocab_size, embedding_dim]`.
        recurrent_kernels: One per block, `[hidden_size, gates * hidden_size]`.
    """

    embeddings: tf.Tensor
    recurrent_kernels: list[tf.Tensor]


class LanguageModel(keras.Model):
    """Embedding, recurrent blocks, Dense.

    Args:
        config: Sizes, parts and dropout.
        vocab_size: Number of token ids.
        seed: Seed of the initial weights and of dropout.
        execution: Kernel, matmul dtype and shards.

    Source: for the dropouts, Merity et al. 2017, "Regularizing and Optimizing LSTM Language
    Models"; for tied weights, Press and Wolf 2017, "Using the Output Embedding to Improve
    Language Models".
    """

    def __init__(self, config: ModelConfig, vocab_size: int, *, seed: int, execution: Execution):
        super().__init__(name="language_model")
        self.config = config
        self.vocab_size = vocab_size
        self.execution = execution
        self.layout = execution.layout
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
            config.input_dropout, noise_shape=self.layout.locked_noise_shape, seed=seed + 7
        )
        self.blocks = [
            Block(config, i, execution=execution, seed=seed + 10 * (i + 1))
            for i in range(config.num_layers)
        ]
        self.dense = _DenseWeights(vocab_size, tied=config.tie_weights, seed=seed + 1)
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
            training: Whether dropout is active and products are computed in `matmul_dtype`.

        Returns:
            Logits `[batch, time, vocab_size]` and the next state, shaped as `state`.
        """
        weights = self.step_weights(training)

        def shard_logits(token_ids: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            hidden, next_state = self.hidden_states(token_ids, state, weights, training)
            return self._logits(hidden, training), next_state

        logits, next_state = self._in_shards(shard_logits, [token_ids], state)
        return logits, next_state

    def token_losses(
        self, token_ids: tf.Tensor, targets: tf.Tensor, state: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Compute the cross-entropy of each target.

        Args:
            token_ids: `[batch, time]` integers.
            targets: `[batch, time]` integers, the token after each.
            state: `[num_layers, batch, state_size]` float32.
            training: Whether dropout is active and products are computed in `matmul_dtype`.

        Returns:
            The cross-entropies, `[batch, time]` nats, and the next state, shaped as `state`.
        """
        weights = self.step_weights(training)

        def shard_losses(
            token_ids: tf.Tensor, targets: tf.Tensor, state: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            hidden, next_state = self.hidden_states(token_ids, state, weights, training)
            return self._cross_entropies(hidden, targets, training), next_state

        losses, next_state = self._in_shards(shard_losses, [token_ids, targets], state)
        return losses, next_state

    def losses_and_penalties(
        self, token_ids: tf.Tensor, targets: tf.Tensor, state: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Compute the cross-entropy of each target, and the penalties AR and TAR, in training.

        Args:
            token_ids: `[batch, time]` integers.
            targets: `[batch, time]` integers, the token after each.
            state: `[num_layers, batch, state_size]` float32.

        Returns:
            The cross-entropies, `[batch, time]` nats; the penalties of each lane, `[batch, 2]`:
            the sums of squares of the Dense layer's input (AR) and of its changes from token to
            token (TAR), both divided by the number of values of the input; and the next state,
            shaped as `state`.

        Source: Merity et al. 2017, "Revisiting Activation Regularization for Language RNNs".
        """
        weights = self.step_weights(training=True)

        def shard_losses(
            token_ids: tf.Tensor, targets: tf.Tensor, state: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            hidden, next_state = self.hidden_states(token_ids, state, weights, training=True)
            penalties = _mean_squares(hidden)
            return self._cross_entropies(hidden, targets, training=True), penalties, next_state

        losses, penalties, next_state = self._in_shards(shard_losses, [token_ids, targets], state)
        return losses, penalties, next_state

    def step_weights(self, training: bool = False) -> StepWeights:
        """Return the weights that dropout applies to, drawn for one step."""
        embeddings = tf.convert_to_tensor(self.embedding.embeddings)
        return StepWeights(
            self.embedding_dropout(embeddings, training=training),
            [block.recurrent_kernel(training) for block in self.blocks],
        )

    def hidden_states(
        self,
        token_ids: tf.Tensor,
        state: tf.Tensor,
        weights: StepWeights,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Compute the input of the Dense layer.

        Args:
            token_ids: `[batch, time]` integers.
            state: `[num_layers, batch, state_size]` float32.
            weights: The weights of this step, from `step_weights`.
            training: Whether dropout is active and products are computed in `matmul_dtype`.

        Returns:
            The input, `[batch, time, hidden_size]` float32, and the next state, shaped as
            `state`.
        """
        hidden, embeddings = self._first_inputs(token_ids, weights.embeddings, training)
        next_states: list[tf.Tensor] = []
        for block, recurrent_kernel, layer_state in zip(
            self.blocks, weights.recurrent_kernels, tf.unstack(state), strict=True
        ):
            hidden, next_state = block(
                hidden,
                layer_state,
                recurrent_kernel,
                embeddings=None if next_states else embeddings,
                matmul_dtype=self._matmul_dtype(training),
                training=training,
            )
            next_states.append(next_state)
        return self.layout.to_batch_major(hidden), tf.stack(next_states)

    def _first_inputs(
        self, token_ids: tf.Tensor, embeddings: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the first block's inputs, and the embeddings if the inputs are one-hot columns.

        If the vocabulary is no larger than the embedding, the inputs are one-hot columns, and the
        first block multiplies the embeddings into its kernels: fewer operations, and both
        gradients are matrix products instead of scattered additions.
        """
        dropped = training and self.config.input_dropout > 0
        small = self.vocab_size <= self.config.embedding_dim
        if self.layout.one_hot and small and not dropped:
            return self.layout.one_hot_columns(token_ids, self.vocab_size), embeddings
        embedded = self.layout.embed(embeddings, token_ids)
        return self.input_dropout(embedded, training=training), None

    def _cross_entropies(self, hidden: tf.Tensor, targets: tf.Tensor, training: bool) -> tf.Tensor:
        logits = self._logits(hidden, training)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)

    def _logits(self, hidden: tf.Tensor, training: bool) -> tf.Tensor:
        dtype = self._matmul_dtype(training)
        kernel = tf.cast(self._dense_kernel(), dtype)
        logits = tf.tensordot(tf.cast(hidden, dtype), kernel, 1)
        return tf.cast(logits, tf.float32) + self.dense.bias

    def _dense_kernel(self) -> tf.Tensor:
        if self.config.tie_weights:
            return tf.transpose(tf.convert_to_tensor(self.embedding.embeddings))
        return tf.convert_to_tensor(self.dense.kernel)

    def _matmul_dtype(self, training: bool) -> tf.DType:
        return tf.as_dtype(self.execution.matmul_dtype if training else "float32")

    def _in_shards(
        self,
        function: Callable[..., tuple[tf.Tensor, ...]],
        batches: list[tf.Tensor],
        state: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        """Apply `function(*batches, state)` to shards of the batch in parallel; join the results.

        Lanes are independent, so the shards are separate parts of one graph, and each runs on its
        own core.

        Args:
            function: Returns tensors `[lanes, ...]`, and a state `[num_layers, lanes, ...]` last.
            batches: Each `[batch, ...]`.
            state: `[num_layers, batch, state_size]`.

        Returns:
            The tensors and the state for the whole batch.
        """
        sizes = self.execution.shard_sizes(batches[0].shape[0])
        if len(sizes) == 1:
            return function(*batches, state)
        shards = zip(
            *(tf.split(batch, sizes, axis=0) for batch in batches),
            tf.split(state, sizes, axis=1),
            strict=True,
        )
        *results, states = zip(*(function(*shard) for shard in shards), strict=True)
        return *(tf.concat(result, axis=0) for result in results), tf.concat(states, axis=1)

    def initial_state(self, batch_size: int) -> tf.Tensor:
        """Return the state at the start of a text, `[num_layers, batch_size, state_size]`."""
        shape = [self.config.num_layers, batch_size, self.config.state_size]
        if self.config.initial_state == "zeros":
            return tf.zeros(shape)
        return tf.broadcast_to(tf.convert_to_tensor(self.learned_initial_state)[:, None], shape)

    def init_dense_bias(self, counts: IntArray) -> None:
        """Set the bias of the Dense layer to the log frequencies of the tokens.

        Otherwise the first steps are spent learning unigram frequencies; with tied weights and
        thousands of tokens the states saturate and do not recover
        (docs/experiments.md#dense-bias).

        Args:
            counts: `[vocab_size]`, occurrences of each token; 1 is added to each.
        """
        frequencies = (counts + 1) / (counts + 1).sum()
        self.dense.bias.assign(np.log(frequencies).astype(np.float32))

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
        """Set the weights; `weights` must have the shapes and parts of this model."""
        self.embedding.set_weights([weights.embedding])
        for block, layer in zip(self.blocks, weights.layers, strict=True):
            block.set_layer_weights(layer)
        self.dense.bias.assign(weights.dense_bias)
        if not self.config.tie_weights:
            self.dense.kernel.assign(weights.dense_kernel)
        if self.config.initial_state == "learned":
            self.learned_initial_state.assign(weights.learned_initial_state)


class _DenseWeights(keras.layers.Layer):
    """The weights of the Dense layer: kernel and bias, or only the bias if weights are tied."""

    def __init__(self, vocab_size: int, *, tied: bool, seed: int):
        super().__init__(name="dense")
        self.vocab_size, self.tied, self._seed = vocab_size, tied, seed

    def build(self, hidden_size: int) -> None:
        if not self.tied:
            self.kernel = self.add_weight(
                shape=(hidden_size, self.vocab_size),
                initializer=keras.initializers.GlorotUniform(seed=self._seed),
                name="kernel",
            )
        self.bias = self.add_weight(shape=(self.vocab_size,), initializer="zeros", name="bias")
        self.built = True


def _mean_squares(hidden: tf.Tensor) -> tf.Tensor:
    """Return the mean squares of each lane's values and of their changes along time.

    Args:
        hidden: `[batch, time, hidden_size]`.

    Returns:
        `[batch, 2]`; both sums are divided by `time * hidden_size`.
    """
    size = tf.cast(tf.reduce_prod(tf.shape(hidden)[1:]), hidden.dtype)
    changes = hidden[:, 1:] - hidden[:, :-1]
    return tf.stack([tf.reduce_sum(x * x, axis=[1, 2]) / size for x in (hidden, changes)], axis=1)


def _array(value: keras.Variable | tf.Tensor) -> Float32Array:
    """Return a copy of a variable or tensor."""
    return np.array(value.numpy())


def build_language_model(
    config: ModelConfig,
    vocab_size: int,
    *,
    seed: int = 1,
    execution: Execution | None = None,
) -> LanguageModel:
    """Return a model with initial weights.

    Args:
        config: Sizes, parts and dropout.
        vocab_size: Number of token ids.
        seed: Seed of the initial weights and of dropout.
        execution: Kernel, matmul dtype and shards; None: the fastest on this machine.

    Returns:
        The model, built.
    """
    execution = execution or choose_execution(cell=config.cell)
    return LanguageModel(config, vocab_size, seed=seed, execution=execution)

"""A `keras.Model` that trains a language model on lanes, carrying its state between windows.

The final state of a window is the initial state of the next. It is a variable of this model, so
that the language model itself has no hidden state and a checkpoint can store it. Gradients stop at
the start of the window (truncated backpropagation through time).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from textgen.config import TrainingConfig
from textgen.corpora import TokenizedCorpus
from textgen.models.language_model import LanguageModel
from textgen.training.progress import Progress

# `{"token_ids", "restart"}`: `[lanes, time]` integers, and a bool `[]`.
_Inputs = dict[str, tf.Tensor]
# Inputs, and targets `[lanes, time]`.
_Windows = Iterator[tuple[_Inputs, tf.Tensor]]
# The running `loss` and `bits_per_char`, float32 `[]`.
_Logs = dict[str, tf.Tensor]


class CarriedStateModel(keras.Model):
    """Adds carried state, loss and metrics to a `LanguageModel`.

    Args:
        language_model: The model to train, available as `.language_model`.
        config: Penalties, `state_reset_probability` and seed.
        corpus: The corpus; the tokens per character of both splits are used.
        batch_size: Lanes of the training split.
        validation_lanes: Lanes of the validation split.
        progress: Progress of the run, available to callbacks as `.progress`.

    `fit` takes batches of `({"token_ids", "restart"}, targets)`; `evaluate` takes weights of the
    targets as a third element. `restart` resets the state to the initial state. Each call of the
    step function of `fit` takes the steps set by `plan_steps`, at most `steps_per_execution`,
    which saves Python overhead (docs/experiments.md#steps-per-call).
    """

    def __init__(
        self,
        language_model: LanguageModel,
        config: TrainingConfig,
        corpus: TokenizedCorpus,
        *,
        batch_size: int,
        validation_lanes: int,
        progress: Progress,
    ) -> None:
        super().__init__(name="carried_state")
        self.language_model = language_model
        self.config = config
        self.progress = progress
        has_resets = config.state_reset_probability > 0
        self._resets = keras.random.SeedGenerator(config.seed + 8) if has_resets else None
        self._train_bits = _bits_per_nat(len(corpus.train), corpus.train_characters)
        self._validation_bits = _bits_per_nat(len(corpus.validation), corpus.validation_characters)
        self.training_state = self._state_variable(batch_size, "training_state")
        self.validation_state = self._state_variable(validation_lanes, "validation_state")
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self._rates = tf.Variable([0.0], shape=[None], trainable=False, dtype=tf.float32)
        self.built = True

    def _state_variable(self, lanes: int, name: str) -> keras.Variable:
        """Return a variable for the state, `[num_layers, lanes, state_size]`."""
        return keras.Variable(self.language_model.initial_state(lanes), trainable=False, name=name)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running mean of the loss, nats per token."""
        return [self.loss_tracker]

    def call(
        self, token_ids: tf.Tensor, state: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Predict the token after each position; see `LanguageModel.call`."""
        logits, next_state = self.language_model(token_ids, state, training=training)
        return logits, next_state

    def plan_steps(self, learning_rates: Sequence[float]) -> None:
        """Set the steps that the next call of the step function takes, by their learning rates."""
        self._rates.assign(learning_rates)

    def load_ema_weights(self) -> None:
        """Replace the weights with their moving average, if the optimizer has one."""
        optimizer: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        optimizer.finalize_variable_values(self.language_model.trainable_variables)

    def make_train_function(self, force: bool = False) -> tf.types.experimental.PolymorphicFunction:
        """Return the compiled step function, which `fit` calls with the iterator of its windows."""
        if force or getattr(self, "train_function", None) is None:
            self.train_function = tf.function(
                self._take_steps, autograph=False, reduce_retracing=True
            )
        return self.train_function

    def _take_steps(self, windows: _Windows) -> _Logs:
        rates = tf.convert_to_tensor(self._rates)

        def step(number: tf.Tensor) -> tf.Tensor:
            self.optimizer.learning_rate = rates[number]
            self.train_step(next(windows))
            return number + 1

        tf.while_loop(lambda number: number < tf.size(rates), step, [0], parallel_iterations=1)
        return self._logs(self._train_bits)

    def train_step(self, data: tuple[_Inputs, tf.Tensor]) -> _Logs:
        """Take one optimizer step on one window per lane.

        Args:
            data: Inputs, and targets `[lanes, time]`.

        Returns:
            The running loss and bits per character.
        """
        inputs, targets = data
        variables = self.language_model.trainable_variables
        with tf.GradientTape() as tape:
            state = self._state_before(inputs["restart"], self.training_state)
            state = self._with_random_resets(state)
            loss, penalty, next_state = self._mean_loss(inputs["token_ids"], targets, state)
            scaled = self.optimizer.scale_loss(loss + penalty)
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        self.training_state.assign(next_state)
        self.loss_tracker.update_state(loss)
        return self._logs(self._train_bits)

    def _mean_loss(
        self, token_ids: tf.Tensor, targets: tf.Tensor, state: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | float, tf.Tensor]:
        """Return the mean loss `[]`, the penalty `[]` that is added to it, and the next state."""
        coefficients = self.config.activation_penalty, self.config.temporal_penalty
        if not any(coefficients):
            losses, next_state = self.language_model.token_losses(
                token_ids, targets, state, training=True
            )
            return tf.reduce_mean(losses), 0.0, next_state
        losses, mean_squares, next_state = self.language_model.losses_and_penalties(
            token_ids, targets, state
        )
        penalties = tf.reduce_mean(mean_squares, axis=0) * tf.constant(coefficients, tf.float32)
        return tf.reduce_mean(losses), tf.reduce_sum(penalties), next_state

    def _state_before(self, restart: tf.Tensor, carried: keras.Variable) -> tf.Tensor:
        """Return the state before a window: the carried one, or the initial one after a restart.

        Both are `[num_layers, lanes, state_size]`; `restart` is a bool `[]`.
        """
        value = tf.convert_to_tensor(carried)
        return tf.where(restart, self.language_model.initial_state(carried.shape[1]), value)

    def _with_random_resets(self, state: tf.Tensor) -> tf.Tensor:
        """Return `state` with a random subset of the lanes reset to the initial state."""
        if self._resets is None:
            return state
        lanes = state.shape[1]
        draws = keras.random.uniform([1, lanes, 1], seed=self._resets)
        initial = self.language_model.initial_state(lanes)
        return tf.where(draws < self.config.state_reset_probability, initial, state)

    def test_step(self, data: tuple[_Inputs, tf.Tensor, tf.Tensor]) -> _Logs:
        """Add one window per validation lane to the running loss.

        Args:
            data: Inputs; targets and their weights, `[lanes, time]`.

        Returns:
            The running loss and bits per character.
        """
        inputs, targets, weights = data
        state = self._state_before(inputs["restart"], self.validation_state)
        losses, next_state = self.language_model.token_losses(inputs["token_ids"], targets, state)
        self.validation_state.assign(next_state)
        self.loss_tracker.update_state(losses, sample_weight=weights)
        return self._logs(self._validation_bits)

    def _logs(self, bits_per_nat: float) -> _Logs:
        loss = self.loss_tracker.result()
        return {"loss": loss, "bits_per_char": loss * bits_per_nat}


def _bits_per_nat(tokens: int, characters: int) -> float:
    """Return the factor from nats per token to bits per character."""
    return tokens / (characters * math.log(2))

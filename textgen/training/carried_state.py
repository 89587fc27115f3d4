"""A language model made trainable by `keras.Model.fit` on lanes with carried state.

The state that a window ends in is the state the next window begins with; it lives
here as a variable, so that the language model itself stays free of hidden state and
a checkpoint can hold it. Gradients stop at the window's border (truncated
backpropagation through time).
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from textgen.config import TrainingConfig
from textgen.corpora import TokenizedCorpus
from textgen.models.language_model import LanguageModel
from textgen.training.progress import Progress


class CarriedStateModel(keras.Model):
    """Adds carried state, loss and metrics to a `LanguageModel`.

    Args:
        language_model: The model to train, reachable as `.language_model`.
        config: Penalties and state reset.
        corpus: What it is trained on; gives the tokens per character of both splits.
        batch_size: Lanes of the training split.
        validation_lanes: Lanes of the validation split.
        progress: How far the run has come, for callbacks to read at `.progress`.

    `fit` takes batches of `({"token_ids", "restart"}, targets)`; `evaluate` takes
    weights for the targets as a third part. `restart` begins a text anew. Each call of
    the compiled function of `fit` takes the steps that `plan_steps` announced, at most
    `steps_per_execution`, which saves the way through Python (docs/experiments.md).
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
    ):
        super().__init__(name="carried_state")
        self.language_model = language_model
        self.config = config
        self.progress = progress
        self._resets = keras.random.SeedGenerator(config.seed + 8) if config.state_reset_probability else None
        self._train_bits = _bits_per_char(len(corpus.train), corpus.train_characters)
        self._validation_bits = _bits_per_char(len(corpus.validation), corpus.validation_characters)
        self.training_state = self._state_variable(batch_size, "training_state")
        self.validation_state = self._state_variable(validation_lanes, "validation_state")
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self._rates = tf.Variable([0.0], shape=[None], trainable=False, dtype=tf.float32)
        self.built = True

    def _state_variable(self, lanes: int, name: str) -> keras.Variable:
        return keras.Variable(self.language_model.initial_state(lanes), trainable=False, name=name)

    @property
    def metrics(self):
        """The running mean of the loss, nats per token."""
        return [self.loss_tracker]

    def call(self, token_ids, state, training=False):
        """Predict the token after each position; see `LanguageModel.call`."""
        return self.language_model(token_ids, state, training=training)

    def plan_steps(self, learning_rates: Sequence[float]) -> None:
        """Have the next call of the training function take a step at each of the rates."""
        self._rates.assign(learning_rates)

    def put_average_in(self) -> None:
        """Replace the weights by their moving average, if the optimizer keeps one."""
        optimizer: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        optimizer.finalize_variable_values(self.language_model.trainable_variables)

    def make_train_function(self, force=False):
        """Compile the function that `fit` calls with the iterator of its windows."""
        if force or getattr(self, "train_function", None) is None:
            self.train_function = tf.function(
                self._take_steps, autograph=False, reduce_retracing=True
            )
        return self.train_function

    def _take_steps(self, windows):
        rates = tf.convert_to_tensor(self._rates)

        def step(number):
            self.optimizer.learning_rate = rates[number]
            self.train_step(next(windows))
            return number + 1

        tf.while_loop(lambda number: number < tf.size(rates), step, [0], parallel_iterations=1)
        return self._logs(self._train_bits)

    def train_step(self, data):
        """Take one optimizer step on one window of every lane."""
        inputs, targets = data
        variables = self.language_model.trainable_variables
        with tf.GradientTape() as tape:
            state = self._forgetful(self._carried(self.training_state, inputs["restart"]))
            loss, penalty, next_state = self._mean_loss(inputs["token_ids"], targets, state)
            scaled = self.optimizer.scale_loss(loss + penalty)
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        self.training_state.assign(next_state)
        self.loss_tracker.update_state(loss)
        return self._logs(self._train_bits)

    def _mean_loss(self, token_ids, targets, state):
        """Return the mean loss, what is added to it, and the next state."""
        weights = self.config.activation_penalty, self.config.temporal_penalty
        if not any(weights):
            losses, next_state = self.language_model.token_losses(
                token_ids, targets, state, training=True
            )
            return tf.reduce_mean(losses), 0.0, next_state
        losses, squares, next_state = self.language_model.losses_and_penalties(
            token_ids, targets, state
        )
        penalty = tf.reduce_sum(tf.reduce_mean(squares, axis=0) * tf.constant(weights))
        return tf.reduce_mean(losses), penalty, next_state

    def _carried(self, state: keras.Variable, restart):
        """Return the carried state, or that of a text's beginning where a pass begins."""
        value = tf.convert_to_tensor(state)
        return tf.where(restart, self.language_model.initial_state(state.shape[1]), value)

    def _forgetful(self, state):
        """Return the state with a random share of the lanes at a text's beginning."""
        if not self.config.state_reset_probability:
            return state
        lanes = state.shape[1]
        draws = keras.random.uniform([1, lanes, 1], seed=self._resets)
        begins = self.language_model.initial_state(lanes)
        return tf.where(draws < self.config.state_reset_probability, begins, state)

    def test_step(self, data):
        """Add one window of every validation lane to the mean loss."""
        inputs, targets, weights = data
        losses, next_state = self.language_model.token_losses(
            inputs["token_ids"], targets, self._carried(self.validation_state, inputs["restart"])
        )
        self.validation_state.assign(next_state)
        self.loss_tracker.update_state(losses, sample_weight=weights)
        return self._logs(self._validation_bits)

    def _logs(self, bits_per_nat):
        loss = self.loss_tracker.result()
        return {"loss": loss, "bits_per_char": loss * bits_per_nat}


def _bits_per_char(tokens: int, characters: int) -> float:
    """Return the factor from nats per token to bits per character."""
    return tokens / (characters * math.log(2))

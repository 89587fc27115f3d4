"""Dynamic evaluation: score a segment of a text, update the weights on it, repeat.

Every token is scored by weights that have not been trained on it. This module knows token ids
and weights. It does NOT know text, files, or how the network computes: that is `textgen.models`.
TensorFlow is imported when the first model is built.

Source: Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models". The update is
Adam without momentum (Kingma and Ba 2015); theirs divides by the RMS of gradients over the
training set, which a run does not store.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from textgen.arrays import IntArray
from textgen.config import DynamicConfig, ModelConfig, Passes, check_argument
from textgen.corpora.windows import require_tokens
from textgen.errors import ConfigError, TrainingError
from textgen.evaluation.scoring import EncodedText, OnProgress
from textgen.metrics import TextScore
from textgen.models.weights import ModelWeights
from textgen.startup import import_tensorflow_quietly

if TYPE_CHECKING:
    import tensorflow as tf

    from textgen.models.language_model import LanguageModel

    Variables: TypeAlias = Sequence[tf.Variable]

# Decay of the mean square of the gradients, and the term added to its root against division by 0.
_DECAY, _EPSILON = 0.999, 1e-8
_MIN_TOKENS = 2
# `_adaptive_model` keeps one model, whose variables the calls share.
_LOCK = Lock()


def dynamic_score(
    weights: ModelWeights,
    config: ModelConfig,
    text: EncodedText,
    start_id: int,
    settings: DynamicConfig | None = None,
    on_progress: OnProgress | None = None,
) -> TextScore:
    """Score a text with a model that is trained on each segment after it has been scored.

    Args:
        weights: The model to start from; it is not changed.
        config: The model's settings; dropout is disabled.
        text: At least one token.
        start_id: The token from which the first one is predicted.
        settings: How the weights are updated; None: the defaults of `DynamicConfig`.
        on_progress: Called after each segment.

    Returns:
        The score of one pass with carried state.

    Raises:
        CorpusError: There is no token.
        DependencyError: TensorFlow is not installed.
        TrainingError: The weights became infinite or NaN.
    """
    require_tokens(text.token_ids)
    with _LOCK:
        model = _adaptive_model(weights, config, settings or DynamicConfig())
        model.reset()
        return text.score_from_nats(model.train_on(text.token_ids, start_id, on_progress))


def adapt(
    weights: ModelWeights,
    config: ModelConfig,
    token_ids: IntArray,
    start_id: int,
    settings: DynamicConfig | None = None,
    passes: int = 1,
) -> ModelWeights:
    """Return the weights of a model after training it on a text.

    Args:
        weights: The model to start from; it is not changed.
        config: The model's settings; dropout is disabled.
        token_ids: `[time]`, at least two.
        start_id: The token from which the first one is predicted.
        settings: How the weights are updated; None: the defaults of `DynamicConfig`.
        passes: Passes over the text, at most 1,000, each from the initial state.

    Returns:
        New weights of the same shapes.

    Raises:
        ConfigError: `token_ids` is too short, or `passes` is out of range.
        DependencyError: TensorFlow is not installed.
        TrainingError: The weights became infinite or NaN.
    """
    if len(token_ids) < _MIN_TOKENS:
        raise ConfigError(
            f"A text to adapt to must have at least {_MIN_TOKENS} tokens. "
            f"Received: {len(token_ids)}. Provide a longer text."
        )
    check_argument(passes, Passes, "passes")
    with _LOCK:
        model = _adaptive_model(weights, config, settings or DynamicConfig())
        model.reset()
        for _ in range(passes):
            model.train_on(token_ids, start_id)
        return model.weights()


class _AdaptiveModel:
    """A float32 copy of a model whose weights are updated on the text that it reads."""

    def __init__(self, weights: ModelWeights, config: ModelConfig, settings: DynamicConfig) -> None:
        import_tensorflow_quietly()
        from textgen.models.kernels import choose_execution, limit_threads
        from textgen.models.language_model import build_language_model

        limit_threads()
        execution = choose_execution("auto", "float32", config.cell)
        self._model = build_language_model(
            _without_dropout(config), weights.vocab_size, execution=execution
        )
        self._model.set_model_weights(weights)
        self._segment = settings.segment
        variables = [variable.value for variable in self._model.trainable_variables]
        self._rule = _UpdateRule(variables, settings)
        self._score_and_update = _segment_function(self._model, variables, self._rule)

    def reset(self) -> None:
        """Restore the weights that the model was built with."""
        self._rule.reset()

    def weights(self) -> ModelWeights:
        """Return the current weights; raises `TrainingError` if they are not finite."""
        found: ModelWeights = self._model.model_weights()
        _require_finite(all(np.isfinite(array).all() for array in found.to_tensors().values()))
        return found

    def train_on(
        self, token_ids: IntArray, start_id: int, on_progress: OnProgress | None = None
    ) -> float:
        """Score and train on a text `[time]` from the initial state; return its total nats."""
        length = self._segment
        stream = np.concatenate([[start_id], token_ids]).astype(np.int32)
        state, nats = self._model.initial_state(1), []
        for start in range(0, len(token_ids), length):
            piece = stream[start : start + length + 1]
            # The last segment is padded, so that one traced function serves all of them.
            padded = np.pad(piece, (0, length + 1 - len(piece)))[None]
            mask = (np.arange(length)[None] < len(piece) - 1).astype(np.float32)
            segment_nats, state = self._score_and_update(padded[:, :-1], padded[:, 1:], mask, state)
            nats.append(segment_nats)
            if on_progress is not None:
                on_progress(min(1.0, (start + length) / len(token_ids)))
        total = math.fsum(np.array(nats, np.float64))
        _require_finite(math.isfinite(total))
        return total


# Building and tracing take a second or two: once for all texts of a table.
@lru_cache(maxsize=1)
def _adaptive_model(
    weights: ModelWeights, config: ModelConfig, settings: DynamicConfig
) -> _AdaptiveModel:
    return _AdaptiveModel(weights, config, settings)


def _segment_function(
    model: "LanguageModel", variables: "Variables", rule: "_UpdateRule"
) -> Callable[..., Any]:
    """Return the traced function that scores one segment and updates the weights.

    Its arguments are int32 `token_ids` and `targets` `[1, segment]`, a float32 `mask` of the
    predictions that count, `[1, segment]`, and the state `[num_layers, 1, state_size]`; it
    returns the segment's nats and the next state.
    """
    import tensorflow as tf

    def score_and_update(
        token_ids: tf.Tensor, targets: tf.Tensor, mask: tf.Tensor, state: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            losses, next_state = model.token_losses(token_ids, targets, state)
            nats = tf.reduce_sum(losses * mask)
            loss = nats / tf.reduce_sum(mask)
        # A learned initial state has no gradient, since the state is an argument.
        rule.update(tape.gradient(loss, variables, unconnected_gradients="zero"))
        return nats, next_state

    traced: Callable[..., Any] = tf.function(score_and_update, autograph=False)
    return traced


class _UpdateRule:
    """Adam without momentum, with decay toward the trained weights.

    With the clipped gradient `g` of step `n`: `v = 0.999 v + 0.001 g^2`,
    `w -= learning_rate g / (sqrt(v / (1 - 0.999^n)) + 1e-8)`, then `w += pull (w_trained - w)`.
    Keras's Adam always has a momentum.
    """

    def __init__(self, variables: "Variables", settings: DynamicConfig) -> None:
        import tensorflow as tf

        self._variables, self._settings = variables, settings
        self._trained = [tf.identity(variable) for variable in variables]
        self._squares = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        self._power = tf.Variable(1.0)

    def reset(self) -> None:
        """Restore the trained weights and the state of the rule."""
        import tensorflow as tf

        self._power.assign(1.0)
        for variable, trained in zip(self._variables, self._trained, strict=True):
            variable.assign(trained)
        for square in self._squares:
            square.assign(tf.zeros_like(square))

    def update(self, gradients: "Sequence[tf.Tensor | tf.IndexedSlices]") -> None:
        """Update the weights by one step; called while the graph is traced."""
        import tensorflow as tf

        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if self._settings.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._settings.clip_norm)
        decay = self._power.assign(self._power * _DECAY)
        for weight, square, gradient, trained in zip(
            self._variables, self._squares, gradients, self._trained, strict=True
        ):
            mean = square.assign(_DECAY * square + (1 - _DECAY) * tf.square(gradient))
            root = tf.sqrt(mean / (1 - decay)) + _EPSILON
            moved = weight - self._settings.learning_rate * gradient / root
            weight.assign(moved + self._settings.pull * (trained - moved))


def _without_dropout(config: ModelConfig) -> ModelConfig:
    return replace(
        config,
        input_dropout=0.0,
        embedding_dropout=0.0,
        layer_dropout=None,
        dropout=0.0,
        weight_drop=0.0,
    )


def _require_finite(is_finite: bool) -> None:
    if not is_finite:
        raise TrainingError(
            "The weights must stay finite while they are updated on the text. Received: NaN or "
            "infinity. Lower `DynamicConfig.learning_rate`."
        )

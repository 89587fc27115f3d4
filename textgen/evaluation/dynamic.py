"""A model that learns from the text it reads: score a segment, update the weights on it, go on.

Every token is scored by weights that have not seen it. This module knows token ids and
weights. It does NOT know text, files, or how the network computes: that is
`textgen.models`. TensorFlow is imported when a model begins to learn.

Source: Krause et al. 2018, "Dynamic Evaluation of Neural Sequence Models"; the update is
Adam without momentum (Kingma and Ba 2015) instead of their RMS over the training set, which
a run does not keep.
"""

import math
from dataclasses import replace
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from textgen.config import DynamicConfig, ModelConfig
from textgen.corpora.windows import require_tokens
from textgen.errors import TrainingError
from textgen.evaluation.scoring import EncodedText, OnProgress, unwatched
from textgen.metrics import TextScore
from textgen.models.weights import ModelWeights
from textgen.startup import import_tensorflow_quietly

# Of the mean square of the gradients, and what keeps its root from being 0.
_DECAY, _EPSILON = 0.999, 1e-8
_ONE_READER = Lock()


def dynamic_score(
    weights: ModelWeights,
    config: ModelConfig,
    text: EncodedText,
    start_id: int,
    settings: DynamicConfig | None = None,
    on_progress: OnProgress = unwatched,
) -> TextScore:
    """Return what a model pays for a text that it learns from while it reads.

    Args:
        weights: The model to begin with; it is not changed.
        config: The model's settings; nothing is dropped, whatever they say.
        text: At least one token.
        start_id: What the first token is predicted from.
        settings: How to learn; None: the defaults of `DynamicConfig`.
        on_progress: Told the share that is done, a segment at a time.

    Returns:
        Total nats in one pass with carried state, each token scored before it is learned,
        and what they are divided by.

    Raises:
        CorpusError: There is no token.
        TrainingError: The weights grew beyond all bounds.
    """
    require_tokens(text.token_ids)
    with _ONE_READER:
        learner = _learner(weights, config, settings or DynamicConfig())
        learner.begin()
        return text.score_from_nats(learner.read(text.token_ids, start_id, on_progress))


def adapt(
    weights: ModelWeights,
    config: ModelConfig,
    token_ids: NDArray[np.integer],
    start_id: int,
    settings: DynamicConfig | None = None,
    passes: int = 1,
) -> ModelWeights:
    """Return the weights that a model has after it has learned from a text.

    Args:
        weights: The model to begin with; it is not changed.
        config: The model's settings; nothing is dropped, whatever they say.
        token_ids: `[time]`, at least one.
        start_id: What the first token is predicted from.
        settings: How to learn; None: the defaults of `DynamicConfig`.
        passes: How many times the text is read, each time from the initial state.

    Returns:
        New weights of the same shapes.

    Raises:
        CorpusError: `token_ids` is empty.
        TrainingError: The weights grew beyond all bounds.
    """
    require_tokens(token_ids)
    with _ONE_READER:
        learner = _learner(weights, config, settings or DynamicConfig())
        learner.begin()
        for _ in range(passes):
            learner.read(token_ids, start_id)
        return learner.weights()


class _Learner:
    """A copy of a model in float32 whose weights follow what it reads."""

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
        self._settings = settings
        variables = [variable.value for variable in self._model.trainable_variables]
        self._rule = _UpdateRule(variables, settings)
        self._learn = _learning_step(self._model, variables, self._rule)

    def begin(self) -> None:
        """Forget all that was learned."""
        self._rule.begin()

    def weights(self) -> ModelWeights:
        """Return the weights as they are now, checked to be numbers."""
        found = self._model.model_weights()
        _require_finite(all(np.isfinite(array).all() for array in found.to_tensors().values()))
        return found

    def read(
        self,
        token_ids: NDArray[np.integer],
        start_id: int,
        on_progress: OnProgress = unwatched,
    ) -> float:
        """Read a text from the initial state, learn it, and return its cost in nats."""
        length = self._settings.segment
        stream = np.concatenate([[start_id], token_ids]).astype(np.int32)
        state, costs = self._model.initial_state(1), []
        for start in range(0, len(token_ids), length):
            piece = stream[start : start + length + 1]
            # the last segment is filled up, so that one traced function takes all
            padded = np.pad(piece, (0, length + 1 - len(piece)))[None]
            counts = np.arange(length)[None] < len(piece) - 1
            cost, state = self._learn(
                padded[:, :-1], padded[:, 1:], counts.astype(np.float32), state
            )
            costs.append(cost)
            on_progress(min(1.0, (start + length) / len(token_ids)))
        total = math.fsum(np.array(costs, np.float64))
        _require_finite(math.isfinite(total))
        return total


# Building and tracing takes a second or two, which the texts of a table share.
@lru_cache(maxsize=1)
def _learner(weights: ModelWeights, config: ModelConfig, settings: DynamicConfig) -> _Learner:
    return _Learner(weights, config, settings)


def _learning_step(model, variables, rule: "_UpdateRule"):
    """Return `(token_ids, targets, counts, state) -> (nats, next_state)`, which updates `model`."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def learn(token_ids, targets, counts, state):
        with tf.GradientTape() as tape:
            losses, next_state = model.token_losses(token_ids, targets, state)
            cost = tf.reduce_sum(losses * counts)
            loss = cost / tf.reduce_sum(counts)
        # a learned first state stays: the state comes from outside, and has no gradient
        rule.update(tape.gradient(loss, variables, unconnected_gradients="zero"))
        return cost, next_state

    return learn


class _UpdateRule:
    """Moves variables against their gradients, and pulls them back to where they began.

    With `g` clipped: `v = 0.999 v + 0.001 g^2`, `w -= learning_rate g / (sqrt(v / (1 -
    0.999^n)) + 1e-8)`, then `w += pull (w_trained - w)`. Keras's Adam keeps a momentum as well.
    """

    def __init__(self, variables, settings: DynamicConfig) -> None:
        import tensorflow as tf

        self._variables, self._settings = variables, settings
        self._trained = [tf.identity(variable) for variable in variables]
        self._squares = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        self._power = tf.Variable(1.0)

    def begin(self) -> None:
        """Put the variables back to where they were."""
        import tensorflow as tf

        self._power.assign(1.0)
        for variable, trained in zip(self._variables, self._trained, strict=True):
            variable.assign(trained)
        for square in self._squares:
            square.assign(tf.zeros_like(square))

    def update(self, gradients) -> None:
        """Take one step; part of a graph."""
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


def _require_finite(ok: bool) -> None:
    if not ok:
        raise TrainingError(
            "Learning from the text must leave the weights finite. Received: NaN or infinity. "
            "Give `DynamicConfig` a lower learning_rate."
        )

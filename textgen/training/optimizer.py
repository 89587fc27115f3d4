"""The optimizer of a training run: AdamW, with an optional average of the weights."""

from typing import Any

import keras
from keras import ops

from textgen.config import ResolvedDtype, TrainingConfig

# Parts of the names of variables that are not matrices, or that are lookup tables.
_WITHOUT_DECAY = ["bias", "embeddings", "gamma", "beta", "learned_initial_state"]


class AveragingAdamW(keras.optimizers.AdamW):
    """AdamW with an exponential moving average of the weights whose decay starts low.

    After `n` steps the decay is `min(ema_momentum, (1 + n) / (10 + n))`. With a constant decay,
    the average would stay near the initial weights for hundreds of steps, in which validations and
    samples use it. All else is as in `keras.optimizers.AdamW`.

    Source: for the decay, `tf.train.ExponentialMovingAverage`.
    """

    @property
    def ema_momentum(self) -> Any:
        """The decay of the current step, a float32 scalar tensor."""
        steps = ops.cast(self.iterations, "float32")
        return ops.minimum(self._max_ema_momentum, (1.0 + steps) / (10.0 + steps))

    @ema_momentum.setter
    def ema_momentum(self, decay: float) -> None:
        self._max_ema_momentum = decay


def make_optimizer(
    config: TrainingConfig, matmul_dtype: ResolvedDtype
) -> keras.optimizers.Optimizer:
    """Return AdamW with weight decay on the matrices only, the embedding excluded.

    Args:
        config: Learning rate, weight decay, clipping and `ema_decay`.
        matmul_dtype: With `"float16"` the loss is scaled, so that small gradients do not
            underflow.

    Returns:
        The optimizer, not yet built.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    """
    optimizer = AveragingAdamW(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        use_ema=config.ema_decay is not None,
        ema_momentum=config.ema_decay or 0.0,
    )
    optimizer.exclude_from_weight_decay(var_names=_WITHOUT_DECAY)
    return (
        keras.optimizers.LossScaleOptimizer(optimizer) if matmul_dtype == "float16" else optimizer
    )

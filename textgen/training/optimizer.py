"""The optimizer of a run."""

import keras
from keras import ops

from textgen.config import TrainingConfig

_WITHOUT_DECAY = ["bias", "embeddings", "gamma", "beta", "learned_initial_state"]


class AveragingAdamW(keras.optimizers.AdamW):
    """AdamW whose moving average of the weights is short while training is young.

    After `n` steps its decay is `(1 + n) / (10 + n)`, at most the one asked for. With a constant
    one, the average would follow the weights of the beginning for hundreds of steps, and
    validations and samples would show them. Otherwise as `keras.optimizers.AdamW`.

    Source: for the young average, `tf.train.ExponentialMovingAverage`.
    """

    @property
    def ema_momentum(self):
        """The decay of this step."""
        steps = ops.cast(self.iterations, "float32")
        return ops.minimum(self._longest, (1.0 + steps) / (10.0 + steps))

    @ema_momentum.setter
    def ema_momentum(self, decay: float) -> None:
        self._longest = decay


def make_optimizer(config: TrainingConfig, matmul_dtype: str) -> keras.optimizers.Optimizer:
    """Return AdamW; only the matrices decay, the embedding not among them.

    Args:
        config: Learning rate, weight decay, clipping, and the average of the weights.
        matmul_dtype: Under `"float16"` the loss is scaled, so that small gradients survive.

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
    return keras.optimizers.LossScaleOptimizer(optimizer) if matmul_dtype == "float16" else optimizer

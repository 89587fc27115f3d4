"""The optimizer of a run."""

import keras

from textgen.config import TrainingConfig

_WITHOUT_DECAY = ["bias", "embeddings", "gamma", "beta", "first_state"]


def make_optimizer(config: TrainingConfig, precision: str) -> keras.optimizers.Optimizer:
    """Return AdamW; only the matrices decay, the embedding not among them.

    Args:
        config: Learning rate, weight decay, clipping, and the average of the weights.
        precision: Under `"float16"` the loss is scaled, so that small gradients survive.

    Returns:
        The optimizer, not yet built.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    """
    optimizer = keras.optimizers.AdamW(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        use_ema=config.average is not None,
        ema_momentum=config.average or 0.0,
    )
    optimizer.exclude_from_weight_decay(var_names=_WITHOUT_DECAY)
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "float16" else optimizer

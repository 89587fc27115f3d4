"""The optimizer of a run."""

import keras

from textgen.config import TrainingConfig


def make_optimizer(config: TrainingConfig, precision: str) -> keras.optimizers.Optimizer:
    """Return AdamW; biases and the embedding do not decay.

    Args:
        config: Learning rate, weight decay and clipping.
        precision: Under `"float16"` the loss is scaled, so that small gradients survive.

    Returns:
        The optimizer, not yet built.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
    """
    optimizer = keras.optimizers.AdamW(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "embeddings"])
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "float16" else optimizer

"""The learning rate as a pure function of where training stands."""

import math

from textgen.config import TrainingConfig

_MOST_WARM_UP = 0.05


def learning_rate(config: TrainingConfig, step: int, fraction: float) -> float:
    """Return the learning rate of one step: linear warm-up, then half a cosine.

    A short run warms up for a twentieth of itself, whatever `warmup_steps` says.

    Args:
        config: Peak, warm-up and final fraction.
        step: Steps already done.
        fraction: How much of the run is done, 0 to 1, by steps or by time.

    Returns:
        The rate for the next step.

    Source: Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts".
    """
    final = config.final_learning_rate_fraction
    cosine = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * fraction))
    warm_up = min(1.0, max((step + 1) / (config.warmup_steps + 1), fraction / _MOST_WARM_UP))
    return config.learning_rate * cosine * warm_up

"""The learning rate as a pure function of where training stands."""

import math
from collections.abc import Callable

from textgen.config import Schedule, TrainingConfig

_MOST_WARM_UP = 0.05
# from 1 where training begins to 0 where it ends
_SHAPES: dict[Schedule, Callable[[float], float]] = {
    "cosine": lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)),
    "linear": lambda fraction: 1 - fraction,
    "constant": lambda _: 1.0,
}


def learning_rate(config: TrainingConfig, step: int, fraction: float) -> float:
    """Return the learning rate of one step: linear warm-up, then `schedule`.

    A short run warms up for a twentieth of itself, whatever `warmup_steps` says.

    Args:
        config: Peak, warm-up and final fraction.
        step: Steps already done.
        fraction: How much of the run is done, 0 to 1, by steps or by time.

    Returns:
        The rate for the next step.

    Source: for half a cosine, Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent
    with Warm Restarts".
    """
    final = config.final_learning_rate_fraction
    share = final + (1 - final) * _SHAPES[config.schedule](fraction)
    warm_up = min(1.0, max((step + 1) / (config.warmup_steps + 1), fraction / _MOST_WARM_UP))
    return config.learning_rate * share * warm_up

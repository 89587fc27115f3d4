"""The learning rate as a pure function of training progress."""

import math
from collections.abc import Callable

from textgen.config import Schedule, TrainingConfig

_MAX_WARMUP_FRACTION = 0.05
# Each falls from 1 at the start of training to 0 at its end, or stays constant.
_SHAPES: dict[Schedule, Callable[[float], float]] = {
    "cosine": lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)),
    "linear": lambda fraction: 1 - fraction,
    "constant": lambda _: 1.0,
}


def learning_rate(config: TrainingConfig, step: int, fraction: float) -> float:
    """Return the learning rate of one step: linear warmup, then `schedule`.

    Warmup ends after `warmup_steps`, or after a twentieth of the run if that is earlier.

    Args:
        config: Peak rate, schedule, warmup steps and final fraction.
        step: Optimizer steps already taken.
        fraction: Completed fraction of the run, 0 to 1, by steps or by time.

    Returns:
        The learning rate of the next step.

    Source: for half a cosine, Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent
    with Warm Restarts".
    """
    final = config.final_learning_rate_fraction
    decay = final + (1 - final) * _SHAPES[config.schedule](fraction)
    by_steps = (step + 1) / (config.warmup_steps + 1)
    warmup = min(1.0, max(by_steps, fraction / _MAX_WARMUP_FRACTION))
    return config.learning_rate * decay * warmup

"""Training progress: steps, seconds, and the best validation loss so far."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_REQUIRED = ("step", "seconds")
_STORED = ("step", "best_loss", "best_step", "validations_since_best", "starting_seconds")


@dataclass
class Progress:
    """The part of the training state that is not a tensor; one object, shared by the callbacks.

    Attributes:
        total_steps: Steps of the whole run, unless a limit ends it earlier.
        tokens_per_step: Tokens that one step reads.
        max_seconds: Wall-clock limit of the run, interruptions excluded; None: no limit.
        clock: Returns monotonic seconds.
        step: Optimizer steps taken.
        best_loss: Lowest validation loss so far, nats per token.
        best_step: The step at which it was measured.
        validations_since_best: Validations since then without improvement.
        seconds_before: Training time before the run was last resumed.
        starting_seconds: Time until the first step was complete. It counts toward the limit and
            not as progress: otherwise tracing would use up the warmup.
    """

    total_steps: int
    tokens_per_step: int
    max_seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    step: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    validations_since_best: int = 0
    seconds_before: float = 0.0
    starting_seconds: float = 0.0
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def seconds(self) -> float:
        """Training time of the run, interruptions excluded."""
        return self.seconds_before + self.clock() - self._started

    @property
    def fraction(self) -> float:
        """Completed fraction of the run, 0 to 1, by the limit that is nearer."""
        return self.fraction_at(self.step)

    def fraction_at(self, step: int) -> float:
        """Return the fraction that would be complete after `step` steps at the present time."""
        done = step / self.total_steps
        if self.max_seconds is not None and self.step > 0:
            available = self.max_seconds - self.starting_seconds
            spent = self.seconds - self.starting_seconds
            done = max(done, spent / available if available > 0 else 1.0)
        return min(1.0, done)

    @property
    def seconds_left(self) -> float:
        """Estimated time until the run is complete; 0 before the first step."""
        done = self.fraction
        if self.step == 0 or done == 0:
            return 0.0
        return (self.seconds - self.starting_seconds) * (1 - done) / done

    def count_steps(self, steps: int) -> None:
        """Count steps that were taken."""
        if self.step == 0:
            self.starting_seconds = self.seconds
        self.step += steps

    def record_validation(self, loss: float) -> bool:
        """Record a validation loss, and return whether it is the best so far."""
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, self.step
            self.validations_since_best = 0
            return True
        self.validations_since_best += 1
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return the values that resuming needs, ready for JSON."""
        return {**{name: getattr(self, name) for name in _STORED}, "seconds": self.seconds}

    def restore(self, values: dict[str, Any]) -> None:
        """Load the values that `to_dict` returned; time continues from the stored seconds."""
        for name in _STORED:
            setattr(self, name, values.get(name, getattr(self, name)))
        self.seconds_before = values["seconds"]
        self._started = self.clock()


def check_stored(values: object) -> dict[str, Any]:
    """Return stored values after checking that `Progress.restore` can load them.

    Args:
        values: Parsed JSON from a file.

    Returns:
        The same values.

    Raises:
        ValueError: They are not an object, a value is not a number, or a required one is missing.
    """
    if not isinstance(values, dict):
        raise ValueError(f"progress must be an object, not {values!r}")
    for name in (*_REQUIRED, *(name for name in _STORED if name in values)):
        value = values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"progress.{name} must be a number, not {value!r}")
    return values

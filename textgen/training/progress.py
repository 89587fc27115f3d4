"""How far a run has come: steps, seconds, and the best loss so far."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_KEPT = ("step", "best_loss", "best_step", "validations_since_best", "starting_seconds")


@dataclass
class Progress:
    """The part of training's state that is not a tensor; one object shared by the callbacks.

    Attributes:
        total_steps: Steps of the whole run, if nothing ends it earlier.
        tokens_per_step: Tokens that one step reads.
        max_seconds: Wall-clock limit over all sittings; None: none.
        clock: Returns monotonic seconds.
        step: Optimizer steps done.
        best_loss: Lowest validation loss so far, nats per token.
        best_step: The step it was measured at.
        validations_since_best: Validations since then.
        seconds_before: Training time of earlier sittings of this run.
        starting_seconds: Time until the first step was done: what compiling takes is no
            progress, and must not take the warm-up away.
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
        """Training time over all sittings."""
        return self.seconds_before + self.clock() - self._started

    @property
    def fraction(self) -> float:
        """How much of the run is done, 0 to 1, by whichever limit is nearer."""
        return self.fraction_at(self.step)

    def fraction_at(self, step: int) -> float:
        """Return how much of the run would be done if `step` steps were, at this time."""
        done = step / self.total_steps
        if self.max_seconds is not None and self.step > 0:
            left = self.max_seconds - self.starting_seconds
            spent = self.seconds - self.starting_seconds
            done = max(done, spent / left if left > 0 else 1.0)
        return min(1.0, done)

    @property
    def seconds_left(self) -> float:
        """How long the rest will take at the pace so far; 0 before the first step."""
        done = self.fraction
        if self.step == 0 or done == 0:
            return 0.0
        return (self.seconds - self.starting_seconds) * (1 - done) / done

    def count_steps(self, steps: int) -> None:
        """Take note of steps that are done."""
        if self.step == 0:
            self.starting_seconds = self.seconds
        self.step += steps

    def record_validation(self, loss: float) -> bool:
        """Take note of a validation loss; return whether it is the best so far."""
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, self.step
            self.validations_since_best = 0
            return True
        self.validations_since_best += 1
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return what the next sitting needs, as plain values."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return {**kept, "seconds": self.seconds}

    def restore(self, values: dict[str, Any]) -> None:
        """Take over what `to_dict` gave in an earlier sitting; the clock goes on from there."""
        for name in _KEPT:
            setattr(self, name, values.get(name, getattr(self, name)))
        self.seconds_before = values["seconds"]
        self._started = self.clock()

"""How the steps of a run become calls of `fit`, so that validations stay where they belong."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class FitStretch:
    """Arguments of one call of `fit`: Keras epochs of `steps` steps, all of one length.

    Attributes:
        initial_epoch: The first Keras epoch.
        epochs: The Keras epoch before which to stop.
        steps: Steps of each.
    """

    initial_epoch: int
    epochs: int
    steps: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole call."""
        return (self.epochs - self.initial_epoch) * self.steps


def fit_stretches(first_step: int, total_steps: int, interval: int) -> Iterator[FitStretch]:
    """Cut training into calls of `fit`, validations staying at the multiples of `interval`.

    Keras gives all epochs of one call the same number of steps. A run takes one call; one
    that is resumed in between two validations a short one before it. The last epoch may
    reach beyond the run: it is ended when the run is.

    Args:
        first_step: Steps already done.
        total_steps: Steps of the whole run.
        interval: Steps between two validations.

    Yields:
        The calls, in order.
    """
    if first_step >= total_steps:
        return
    epoch, done = divmod(first_step, interval)
    if done:
        yield FitStretch(epoch, epoch + 1, interval - done)
        epoch += 1
    last_epoch = -(-total_steps // interval)
    if epoch < last_epoch:
        yield FitStretch(epoch, last_epoch, interval)

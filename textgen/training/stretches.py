"""How the steps of a run become calls of `fit`, so that validations stay where they belong."""

from collections.abc import Iterator
from dataclasses import dataclass

from textgen.config import ModelConfig
from textgen.corpora import LanePlan
from textgen.models.kernels import Execution
from textgen.models.weights import GATES

# A call saves about a millisecond a step; it should stay short, since Ctrl-C waits for its end.
_STEPS_PER_CALL = 10
_LARGE_STEP = 1e10


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

    def counted_steps(self, steps_per_call: int) -> int:
        """Return the steps of the stretch as Keras counts them: every call as a whole one."""
        calls = -(-self.steps // steps_per_call)
        return (self.epochs - self.initial_epoch) * calls * steps_per_call


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


def steps_per_call(model: ModelConfig, plan: LanePlan, execution: Execution) -> int:
    """Return how many steps one call of the compiled training function takes at most.

    Args:
        model: Sizes.
        plan: Batch size and window length.
        execution: The kernel.

    Returns:
        Several on a GPU and for steps of less than ten billion operations (0.03 to 0.1 s on
        a CPU of two cores), else one.
    """
    weights = len(GATES[model.cell]) * model.hidden_size**2 * model.num_layers
    operations = 6 * weights * plan.batch_size * plan.seq_len
    small = execution.kernel == "cudnn" or operations < _LARGE_STEP
    return _STEPS_PER_CALL if small else 1

"""The division of a run into calls of `keras.Model.fit`, and of these into step function calls.

For Keras an epoch is the steps between two validations, and all epochs of one call of `fit` have
the same number of steps. This module does NOT know models or data.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from textgen.config import ModelConfig
from textgen.corpora import LanePlan
from textgen.models.kernels import Execution
from textgen.models.weights import GATES

# Saves about a millisecond per step (docs/experiments.md#steps-per-call). More would delay
# Ctrl-C, which takes effect between two calls.
_MAX_STEPS_PER_EXECUTION = 10
_MIN_LARGE_STEP_OPERATIONS = 1e10


@dataclass(frozen=True)
class FitCall:
    """Arguments of one call of `fit`: Keras epochs of equal length.

    Attributes:
        initial_epoch: The first Keras epoch.
        epochs: One more than the last Keras epoch.
        steps: Steps per Keras epoch.
    """

    initial_epoch: int
    epochs: int
    steps: int

    def counted_steps(self, steps_per_execution: int) -> int:
        """Return the number of steps as Keras counts them: incomplete executions as whole ones."""
        executions = -(-self.steps // steps_per_execution)
        return (self.epochs - self.initial_epoch) * executions * steps_per_execution


def plan_fit_calls(first_step: int, total_steps: int, interval: int) -> Iterator[FitCall]:
    """Divide the rest of a run into calls of `fit`, with validations at multiples of `interval`.

    A new run is one call. A run that is resumed between two validations begins with a shorter
    call, up to the next validation. The last epoch may extend past the end of the run: training
    then stops inside it.

    Args:
        first_step: Steps already taken.
        total_steps: Steps of the whole run.
        interval: Steps between two validations.

    Yields:
        The calls, in order.
    """
    if first_step >= total_steps:
        return
    epoch, taken = divmod(first_step, interval)
    if taken:
        yield FitCall(epoch, epoch + 1, interval - taken)
        epoch += 1
    num_epochs = -(-total_steps // interval)
    if epoch < num_epochs:
        yield FitCall(epoch, num_epochs, interval)


def max_steps_per_execution(model: ModelConfig, plan: LanePlan, execution: Execution) -> int:
    """Return the maximum number of steps that one call of the compiled step function takes.

    Args:
        model: Sizes of the model.
        plan: Batch size and window length.
        execution: The kernel.

    Returns:
        Ten on a GPU, and for steps of less than ten billion operations (0.03 to 0.1 s on two CPU
        cores); else one.
    """
    weights = len(GATES[model.cell]) * model.hidden_size**2 * model.num_layers
    operations = 6 * weights * plan.batch_size * plan.seq_len
    is_short = execution.kernel == "cudnn" or operations < _MIN_LARGE_STEP_OPERATIONS
    return _MAX_STEPS_PER_EXECUTION if is_short else 1

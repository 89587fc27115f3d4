"""Training callbacks: schedule, limits, best weights, metrics, checkpoints.

Each is a Keras callback with one task; `training_callbacks` returns them in the order in which
they depend on each other. They share one `Progress`. A user's own callbacks run after them and
find `loss` and `bits_per_char` in the logs, and after a validation both with the prefix `val_`.

For Keras an "epoch" is the steps between two validations: one pass over the corpus unless
`validate_every` is set. A "batch" is one call of the compiled step function, which takes several
steps of a small model.
"""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import keras

from textgen.arrays import Float32Array
from textgen.config import TrainingConfig
from textgen.corpora import TokenizedCorpus
from textgen.errors import TrainingError
from textgen.metrics import score_from_loss
from textgen.runs import RunDirectory
from textgen.tokenizers import Tokenizer
from textgen.training.checkpoints import save_checkpoint
from textgen.training.progress import Progress
from textgen.training.schedule import learning_rate

# The running metrics, which Keras always passes; optional in callbacks that do not read them.
Logs = dict[str, Any]


class ScheduleSteps(keras.callbacks.Callback):
    """Sets the number and the learning rates of the steps of each call, and counts the steps."""

    def __init__(self, config: TrainingConfig, interval: int, progress: Progress) -> None:
        super().__init__()
        self.config, self.interval, self.progress = config, interval, progress
        self._steps = 0

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Plan the steps of the next call, which ends at a validation or the end of the run."""
        progress = self.progress
        first = progress.step
        to_validation = self.interval - first % self.interval
        to_end = progress.total_steps - first
        self._steps = min(self.model.steps_per_execution, to_validation, to_end)
        self.model.plan_steps(
            [
                learning_rate(self.config, step, progress.fraction_at(step))
                for step in range(first, first + self._steps)
            ]
        )

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Count the steps."""
        self.progress.count_steps(self._steps)


class StopAtLimit(keras.callbacks.Callback):
    """Ends training at the limit of steps or time, with a last validation."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Stop after this call if the run is complete."""
        if self.progress.fraction >= 1:
            self.model.stop_training = True


class RequireFiniteLoss(keras.callbacks.Callback):
    """Ends training with an error when the validation loss is not finite."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Raise `TrainingError` if the loss has diverged."""
        loss, best_step = logs["val_loss"], self.progress.best_step
        if math.isfinite(loss):
            return
        kept = f"The weights of step {best_step:,} are" if best_step else "No weights are"
        raise TrainingError(
            f"The validation loss must be finite. Received: {loss} at step "
            f"{self.progress.step:,}. {kept} kept. Start over with a lower `learning_rate` or "
            "`clip_norm`."
        )


class StopWithoutImprovement(keras.callbacks.Callback):
    """Ends training after `patience` validations without a lower loss."""

    def __init__(self, patience: int, progress: Progress) -> None:
        super().__init__()
        self.patience, self.progress = patience, progress

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Stop once `patience` validations have passed without improvement."""
        if self.progress.validations_since_best >= self.patience:
            self.model.stop_training = True


class SwapEmaWeights(keras.callbacks.Callback):
    """Swaps in the moving average of the weights for each validation and for `SaveBestWeights`.

    Callbacks that run after it see the raw weights again, and so does the next call of `fit`,
    although Keras replaces the raw weights with the average whenever a call of `fit` ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._raw: list[Float32Array] = []

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Swap in the average."""
        variables = self.model.language_model.trainable_variables
        self._raw = [variable.numpy() for variable in variables]
        self.model.load_ema_weights()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Restore the raw weights."""
        self._restore()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Restore the raw weights, which Keras has just replaced."""
        self._restore()

    def _restore(self) -> None:
        variables = self.model.language_model.trainable_variables
        for variable, value in zip(variables, self._raw, strict=True):
            variable.assign(value)


class SaveBestWeights(keras.callbacks.Callback):
    """Writes `model.safetensors` whenever the validation loss is the lowest so far."""

    def __init__(self, run: RunDirectory, tokenizer: Tokenizer, progress: Progress) -> None:
        super().__init__()
        self.run, self.tokenizer, self.progress = run, tokenizer, progress

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the weights if they are the best so far."""
        loss = logs["val_loss"]
        if loss < self.progress.best_loss:
            # Written before the checkpoint, which must not refer to weights that do not exist.
            self.run.write_weights(self.model.language_model.model_weights(), self.tokenizer)
        self.progress.record_validation(loss)


class LogMetrics(keras.callbacks.Callback):
    """Appends one line to `metrics.jsonl` after each validation."""

    def __init__(
        self, run: RunDirectory, corpus: TokenizedCorpus, steps_per_epoch: int, progress: Progress
    ) -> None:
        super().__init__()
        self.run, self.corpus, self.progress = run, corpus, progress
        self.steps_per_epoch = steps_per_epoch
        self._started = (0, 0.0)
        self._seconds_at_last_step = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Start the measurement of throughput."""
        self._started = (self.progress.step, self.progress.seconds)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Record the time, so that validation does not count as training."""
        self._seconds_at_last_step = self.progress.seconds

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Append the line."""
        self.run.append_metrics(self._row(logs))

    def _row(self, logs: Logs) -> dict[str, float | int]:
        corpus, step = self.corpus, self.progress.step
        score = score_from_loss(
            logs["val_loss"],
            len(corpus.validation),
            corpus.validation_characters,
            corpus.validation_bytes,
        )
        first_step, first_seconds = self._started
        seconds = max(self._seconds_at_last_step - first_seconds, 1e-9)
        tokens = (step - first_step) * self.progress.tokens_per_step
        return {
            "step": step,
            "epoch": round(step / self.steps_per_epoch, 3),
            "loss": logs["loss"],
            "validation_loss": logs["val_loss"],
            "perplexity": score.perplexity,
            "bits_per_char": score.bits_per_char,
            "bits_per_byte": score.bits_per_byte,
            "tokens_per_second": round(tokens / seconds, 1),
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(self.progress.seconds, 2),
        }


class SaveCheckpoints(keras.callbacks.Callback):
    """Writes a checkpoint after each validation, and every few minutes between validations."""

    def __init__(
        self, run: RunDirectory, tokenizer: Tokenizer, minutes: float | None, progress: Progress
    ) -> None:
        super().__init__()
        self.run, self.minutes, self.progress = run, minutes, progress
        self.fingerprint = tokenizer.fingerprint()
        self._saved_at = progress.seconds

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Save if a checkpoint is due, unless a validation follows, after which one is saved."""
        if self.minutes is None or _ends_epoch(self, batch):
            return
        is_due = self.progress.seconds - self._saved_at > 60 * self.minutes
        if is_due and math.isfinite(logs["loss"]):
            self._save()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save."""
        self._save()

    def _save(self) -> None:
        path = self.run.checkpoint_path
        save_checkpoint(path, self.model, self.progress, self.fingerprint)
        self._saved_at = self.progress.seconds


class DeferInterrupt(keras.callbacks.Callback):
    """Defers Ctrl-C until the training state is consistent, then raises `KeyboardInterrupt`.

    The state is consistent between two calls of the step function. After the last call before a
    validation, the validation is completed too: a checkpoint of that step must include it.

    Attributes:
        is_consistent: False after a second Ctrl-C, which interrupts immediately.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_consistent = True
        self._is_requested = False

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Raise `KeyboardInterrupt` if Ctrl-C was pressed, unless a validation follows."""
        if self._is_requested and not _ends_epoch(self, batch):
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Raise `KeyboardInterrupt` if Ctrl-C was pressed."""
        if self._is_requested:
            raise KeyboardInterrupt

    @contextmanager
    def handling_sigint(self) -> Iterator[None]:
        """Handle SIGINT inside the `with` block; do nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._request)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._is_requested:
            self.is_consistent = False
            raise KeyboardInterrupt
        self._is_requested = True


def _ends_epoch(callback: keras.callbacks.Callback, batch: int) -> bool:
    """Return whether a validation follows the call that has just ended."""
    is_last = batch + 1 >= callback.params["steps"]
    return bool(is_last or callback.model.stop_training)


def training_callbacks(
    *,
    config: TrainingConfig,
    run: RunDirectory,
    tokenizer: Tokenizer,
    corpus: TokenizedCorpus,
    steps_per_epoch: int,
    interval: int,
    progress: Progress,
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of a run, in the order in which they depend on each other.

    The best weights are chosen before the metrics and the checkpoint are written, so that both
    include the choice. Callbacks that stop training run before `SaveCheckpoints`, which skips a
    checkpoint if a validation follows.

    Args:
        config: Schedule, limits, averaging and checkpoint interval.
        run: The run directory that is written to.
        tokenizer: The run's tokenizer.
        corpus: The corpus; the sizes of its validation split are used.
        steps_per_epoch: Steps per pass over the corpus.
        interval: Steps between two validations.
        progress: Progress of the run.

    Returns:
        The callbacks; a user's own run after them.
    """
    callbacks: list[keras.callbacks.Callback] = [
        ScheduleSteps(config, interval, progress),
        RequireFiniteLoss(progress),
        SaveBestWeights(run, tokenizer, progress),
        *([] if config.ema_decay is None else [SwapEmaWeights()]),
        LogMetrics(run, corpus, steps_per_epoch, progress),
        StopAtLimit(progress),
    ]
    if config.patience is not None:
        callbacks.append(StopWithoutImprovement(config.patience, progress))
    return [
        *callbacks,
        SaveCheckpoints(run, tokenizer, config.checkpoint_minutes, progress),
        keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False),
    ]

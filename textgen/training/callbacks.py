"""What happens around the steps: schedule, limits, best weights, log, checkpoints.

Each is a plain Keras callback with one duty; `training_callbacks` puts them in the
order they depend on. They share one `Progress`. A user's own callbacks run after them
and find `loss` and `bits_per_char` in the logs, and both again with `val_` in front
after a validation. For Keras an "epoch" is the stretch between two validations, which
is a pass over the corpus unless `validate_every` says otherwise; and a "batch" is a call of
the compiled step function, which for small models takes several steps.
"""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import keras

from textgen.config import TrainingConfig
from textgen.corpora import TokenizedCorpus
from textgen.errors import TrainingError
from textgen.metrics import score_from_loss
from textgen.runs import RunDirectory
from textgen.tokenizers import Tokenizer
from textgen.training.checkpoints import save_checkpoint
from textgen.training.progress import Progress
from textgen.training.schedule import learning_rate


class FollowSchedule(keras.callbacks.Callback):
    """Gives each call of the step function its steps with their learning rates; counts them."""

    def __init__(self, config: TrainingConfig, interval: int, progress: Progress):
        super().__init__()
        self.config, self.interval, self.progress = config, interval, progress
        self._steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        """Plan the steps of the coming call; none passes a validation or the end."""
        progress = self.progress
        first = progress.step
        most = self.model.steps_per_execution
        to_validation = self.interval - first % self.interval
        self._steps = min(most, to_validation, progress.total_steps - first)
        self.model.plan_steps(
            [
                learning_rate(self.config, step, progress.fraction_at(step))
                for step in range(first, first + self._steps)
            ]
        )

    def on_train_batch_end(self, batch, logs=None):
        """Count the steps."""
        self.progress.count_steps(self._steps)


class StopOnTime(keras.callbacks.Callback):
    """Ends training, with a last validation, when its time is over."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress

    def on_train_batch_end(self, batch, logs=None):
        """Stop after this call if the time is over."""
        if self.progress.fraction >= 1:
            self.model.stop_training = True


class RefuseNan(keras.callbacks.Callback):
    """Ends training with an error when a validation loss is no number."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress

    def on_epoch_end(self, epoch, logs=None):
        """Raise if the loss has diverged."""
        if not math.isfinite(logs["val_loss"]):
            best = self.progress.best_step
            kept = (
                f"The best weights, of step {best:,}, are kept" if best else "No weights are kept"
            )
            raise TrainingError(
                f"The validation loss is {logs['val_loss']} at step {self.progress.step:,}. "
                f"{kept}. Train anew with a lower --learning-rate or --clip-norm."
            )


class StopOnPatience(keras.callbacks.Callback):
    """Ends training after `patience` validations without a better loss."""

    def __init__(self, patience: int, progress: Progress):
        super().__init__()
        self.patience, self.progress = patience, progress

    def on_epoch_end(self, epoch, logs=None):
        """Stop if the best loss is too long ago."""
        if self.progress.validations_since_best >= self.patience:
            self.model.stop_training = True


class EvaluateAverage(keras.callbacks.Callback):
    """Puts the average of the weights in their place for a validation and for `KeepBest`.

    What comes behind it in a validation's end finds the weights of training again, and so
    does the next `fit`: Keras puts the average in for good when one ends.
    """

    def __init__(self):
        super().__init__()
        self._own: list = []

    def on_test_begin(self, logs=None):
        """Put the average in."""
        variables = self.model.language_model.trainable_variables
        self._own = [variable.numpy() for variable in variables]
        self.model.put_average_in()

    def on_epoch_end(self, epoch, logs=None):
        """Put the weights of training back."""
        self._restore()

    def on_train_end(self, logs=None):
        """Put them back once more."""
        self._restore()

    def _restore(self):
        variables = self.model.language_model.trainable_variables
        for variable, value in zip(variables, self._own, strict=True):
            variable.assign(value)


class KeepBest(keras.callbacks.Callback):
    """Writes `model.safetensors` whenever the validation loss is the lowest so far."""

    def __init__(self, run: RunDirectory, tokenizer: Tokenizer, progress: Progress):
        super().__init__()
        self.run, self.tokenizer, self.progress = run, tokenizer, progress

    def on_epoch_end(self, epoch, logs=None):
        """Keep the weights if they are the best."""
        loss = logs["val_loss"]
        if loss < self.progress.best_loss:
            # written first: a checkpoint must not tell of weights that are not there
            self.run.write_weights(self.model.language_model.model_weights(), self.tokenizer)
        self.progress.record_validation(loss)


class LogMetrics(keras.callbacks.Callback):
    """Writes one line of `metrics.jsonl` after each validation."""

    def __init__(
        self, run: RunDirectory, corpus: TokenizedCorpus, steps_per_epoch: int, progress: Progress
    ):
        super().__init__()
        self.run, self.corpus, self.progress = run, corpus, progress
        self.steps_per_epoch = steps_per_epoch
        self._begun = (0, 0.0)
        self._seconds_at_last_step = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        """Start the stopwatch of the throughput."""
        self._begun = (self.progress.step, self.progress.seconds)

    def on_train_batch_end(self, batch, logs=None):
        """Note the time, so that validation does not count as training."""
        self._seconds_at_last_step = self.progress.seconds

    def on_epoch_end(self, epoch, logs=None):
        """Write the line."""
        self.run.append_metrics(self._row(logs))

    def _row(self, logs) -> dict[str, float | int]:
        corpus, step = self.corpus, self.progress.step
        loss = logs["val_loss"]
        score = score_from_loss(
            loss, len(corpus.validation), corpus.validation_characters, corpus.validation_bytes
        )
        first_step, first_seconds = self._begun
        seconds = max(self._seconds_at_last_step - first_seconds, 1e-9)
        tokens = (step - first_step) * self.progress.tokens_per_step
        return {
            "step": step,
            "epoch": round(step / self.steps_per_epoch, 3),
            "loss": logs["loss"],
            "validation_loss": loss,
            "perplexity": score.perplexity,
            "bits_per_char": score.bits_per_char,
            "bits_per_byte": score.bits_per_byte,
            "tokens_per_second": round(tokens / seconds, 1),
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(self.progress.seconds, 2),
        }


class SaveCheckpoints(keras.callbacks.Callback):
    """Writes the checkpoint after each validation and every few minutes in between."""

    def __init__(
        self, run: RunDirectory, tokenizer: Tokenizer, minutes: float | None, progress: Progress
    ):
        super().__init__()
        self.run, self.minutes, self.progress = run, minutes, progress
        self.fingerprint = tokenizer.fingerprint()
        self._saved_at = progress.seconds

    def on_train_batch_end(self, batch, logs=None):
        """Save if the last checkpoint is old, and no validation is about to save anyway."""
        if _ends_epoch(self, batch):
            return
        due = (
            self.minutes is not None and self.progress.seconds - self._saved_at > 60 * self.minutes
        )
        if due and math.isfinite(logs["loss"]):
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        """Save."""
        self._save()

    def _save(self):
        path = self.run.checkpoint_path
        save_checkpoint(path, self.model, self.progress, self.fingerprint)
        self._saved_at = self.progress.seconds


class StopOnInterrupt(keras.callbacks.Callback):
    """Turns Ctrl-C into a `KeyboardInterrupt` between two calls, when all state is whole.

    After the last call before a validation it waits for that: what is saved must not
    claim a step whose validation is missing.

    Attributes:
        state_is_whole: False after a second Ctrl-C, which interrupts anywhere.
    """

    def __init__(self):
        super().__init__()
        self.interrupted = False
        self.state_is_whole = True

    def on_train_batch_end(self, batch, logs=None):
        """Raise if Ctrl-C was pressed."""
        if self.interrupted and not _ends_epoch(self, batch):
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        """Raise if Ctrl-C was pressed."""
        if self.interrupted:
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over SIGINT for a while; a second Ctrl-C interrupts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = signal.signal(signal.SIGINT, self._remember)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)

    def _remember(self, number, frame):
        if self.interrupted:
            self.state_is_whole = False
            raise KeyboardInterrupt
        self.interrupted = True


def _ends_epoch(callback: keras.callbacks.Callback, batch: int) -> bool:
    """Return whether a validation follows at once the call that ended with step `batch`."""
    return batch + 1 >= callback.params["steps"] or callback.model.stop_training


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
    """Return the callbacks of a run, in the order they depend on each other.

    Best weights are judged before the log and the checkpoint are written, so that
    both tell of them; whatever stops training comes in between.
    """
    callbacks: list[keras.callbacks.Callback] = [
        FollowSchedule(config, interval, progress),
        RefuseNan(progress),
        KeepBest(run, tokenizer, progress),
        *([] if config.ema_decay is None else [EvaluateAverage()]),
        LogMetrics(run, corpus, steps_per_epoch, progress),
        StopOnTime(progress),
    ]
    if config.patience is not None:
        callbacks.append(StopOnPatience(config.patience, progress))
    return [
        *callbacks,
        SaveCheckpoints(run, tokenizer, config.checkpoint_minutes, progress),
        keras.callbacks.TensorBoard(str(run.path / "tensorboard"), write_graph=False),
    ]

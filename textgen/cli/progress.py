"""The display of a training run: a progress bar, one line per validation, samples."""

from types import TracebackType
from typing import Any, Self

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from textgen.config import SamplingConfig
from textgen.engines import make_engine
from textgen.generation import Request, generate_texts
from textgen.runs import RunDirectory

_REFRESH_SECONDS = 0.25

console = Console(stderr=True, highlight=False, soft_wrap=True)

Logs = dict[str, Any] | None


class ProgressBar(keras.callbacks.Callback):
    """Shows loss, bits per character, throughput and time left on stderr.

    A context manager, which removes the bar at its end. If stderr is not a terminal, only the line
    after each validation appears.
    """

    def __init__(self) -> None:
        super().__init__()
        columns = BarColumn(bar_width=24), TextColumn("{task.description}")
        self._bar = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("starting", total=1.0)
        self._shown_at = 0.0
        self._first = (0, 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Show the bar, now that the messages before training have been printed."""
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Restart the throughput measurement."""
        progress = self.model.progress
        self._first = (progress.step, progress.seconds)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Update the bar, a few times per second."""
        seconds = self.model.progress.seconds
        if seconds - self._shown_at >= _REFRESH_SECONDS:
            self._shown_at = seconds
            self._show(logs or {})

    def _show(self, logs: dict[str, Any]) -> None:
        progress = self.model.progress
        first_step, first_seconds = self._first
        elapsed = max(progress.seconds - first_seconds, 1e-9)
        rate = (progress.step - first_step) * progress.tokens_per_step / elapsed
        self._bar.update(
            self._task,
            completed=progress.fraction,
            description=(
                f"step {progress.step:,}  loss {float(logs['loss']):.3f}  "
                f"{float(logs['bits_per_char']):.3f} bits/char  "
                f"{rate:,.0f} tokens/s  {_clock(progress.seconds_left)} left"
            ),
        )

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Print a line with the results of the validation."""
        progress, logs = self.model.progress, logs or {}
        best = "  best" if progress.best_step == progress.step else ""
        console.print(
            f"step {progress.step:>6,}  {_clock(progress.seconds)}  "
            f"loss {logs['loss']:.4f}  validation {logs['val_loss']:.4f}  "
            f"{logs['val_bits_per_char']:.3f} bits/char{best}"
        )


class SampleWriter(keras.callbacks.Callback):
    """Generates a short text after each validation and writes it to `samples/` and to stderr.

    Args:
        run: The run, whose configuration contains the prompt and the length.
    """

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.run = run

    def on_train_begin(self, logs: Logs = None) -> None:
        """Read the settings of the samples."""
        training = self.run.read_config().training
        self._prompt = training.sample_prompt
        self._sampling = SamplingConfig(max_new_tokens=training.sample_length, seed=training.seed)
        self._tokenizer = self.run.read_tokenizer()

    def on_test_end(self, logs: Logs = None) -> None:
        """Copy the weights just validated: the moving average, if there is one."""
        if self._sampling.max_new_tokens:
            self._weights = self.model.language_model.model_weights()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Generate one text with these weights."""
        if not self._sampling.max_new_tokens:
            return
        engine = make_engine("auto", self._weights)
        request = Request(prompt=self._prompt, sampling=self._sampling)
        (generated,) = generate_texts(engine, self._tokenizer, [request], unknown="skip")
        text = self._prompt + generated.text
        self.run.write_sample(self.model.progress.step, text)
        shown = text.replace("\n", "\n    ")
        console.print(f"    {shown}", style="dim", markup=False)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

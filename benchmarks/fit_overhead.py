"""The time `textgen.train` adds to its training step, and the time more steps per call would save.

`textgen` is `train` with its callbacks, schedule and input pipeline; `bare step` is the same
compiled step, called in a loop on one window; `10 steps per call` is a compiled loop around it.
The tokens are random, which does not change the time; figures are medians of the time per step.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import textgen
from benchmarks.arguments import benchmark_parser
from benchmarks.random_inputs import random_text
from benchmarks.report import Measurement, report
from benchmarks.workload import VOCAB_SIZE

_STEPS = 200
_STEPS_PER_CALL = 10
# hidden_size, batch_size, seq_len
_CASES = ((32, 16, 50), (64, 32, 64), (128, 64, 100), (256, 64, 100))


class _StepTimer(keras.callbacks.Callback):
    """Records the step and the time at the end of each call, and stops training after `steps`."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps
        self._ends: list[tuple[int, float]] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the time."""
        step = self.model.progress.step
        self._ends.append((step, time.perf_counter()))
        self.model.stop_training = step > self._steps

    def seconds_per_step(self) -> float:
        """Return the median over the calls."""
        steps, seconds = np.diff(self._ends, axis=0).T
        return float(np.median(seconds / steps))


def main() -> None:
    """Measure and print."""
    arguments = benchmark_parser(__doc__).parse_args()
    text = random_text()
    measurements = []
    for sizes in _CASES[:2] if arguments.quick else _CASES:
        measurements += _measure(text, *sizes)
    report(measurements, arguments.json)


def _measure(text: str, hidden_size: int, batch_size: int, seq_len: int) -> list[Measurement]:
    config = textgen.RunConfig(
        model=textgen.ModelConfig(embedding_dim=64, hidden_size=hidden_size),
        training=textgen.TrainingConfig(
            batch_size=batch_size, seq_len=seq_len, epochs=10_000, validate_every=1_000_000
        ),
    )
    timer = _StepTimer(_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        textgen.train(config, Path(folder) / "run", text=text, callbacks=[timer])
    seconds = {"textgen": timer.seconds_per_step()}
    seconds |= _time_bare_steps(timer.model, batch_size, seq_len)
    case = f"hidden {hidden_size}, {batch_size} x {seq_len}"
    return [Measurement(case, name, 1e3 * value, "ms per step") for name, value in seconds.items()]


def _time_bare_steps(model: keras.Model, batch_size: int, seq_len: int) -> dict[str, float]:
    """Return seconds per step, with one and with several steps per call."""
    tokens = tf.random.uniform([batch_size, seq_len + 1], 0, VOCAB_SIZE, tf.int32, seed=1)
    inputs = {"token_ids": tokens[:, :-1], "restart": tf.constant(False)}

    @tf.function
    def take_steps(count: tf.Tensor) -> None:
        for _ in tf.range(count):
            model.train_step((inputs, tokens[:, 1:]))

    steps_per_call = {"bare step": 1, f"{_STEPS_PER_CALL} steps per call": _STEPS_PER_CALL}
    seconds: dict[str, list[float]] = {name: [] for name in steps_per_call}
    take_steps(tf.constant(1))
    for _ in range(_STEPS // _STEPS_PER_CALL):
        for name, count in steps_per_call.items():
            for _ in range(_STEPS_PER_CALL // count):
                started = time.perf_counter()
                take_steps(tf.constant(count))
                seconds[name].append((time.perf_counter() - started) / count)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()

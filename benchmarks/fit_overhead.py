"""What `textgen.train` costs beside its own training step, and what more steps a call would save.

`textgen` is `train` with its callbacks, schedule and input pipeline; `bare step` the same
compiled step called in a loop on one window; `10 steps a call` a compiled loop around it.
Random tokens, whose values do not change the time; medians of the time of a step.
"""

import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import textgen
from benchmarks.report import Measurement, parse_flags, report

_STEPS = 200
_STEPS_A_CALL = 10
_CASES = ((32, 16, 50), (64, 32, 64), (128, 64, 100), (256, 64, 100))


class _Stopwatch(keras.callbacks.Callback):
    """Notes when each call ended, and after which step; then ends training."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps, self.ends = steps, []

    def on_train_batch_end(self, batch, logs=None):
        """Note the time."""
        self.ends.append((self.model.progress.step, time.perf_counter()))
        self.model.stop_training = self.model.progress.step > self.steps

    def seconds_per_step(self) -> float:
        """Return the median over the calls."""
        steps, times = np.diff(self.ends, axis=0).T
        return statistics.median(times / steps)


def main() -> None:
    """Measure and print."""
    flags = parse_flags(__doc__)
    codes = np.random.default_rng(1).integers(0, 66, size=300_000)
    text = "".join(chr(48 + code) for code in codes)
    measurements = []
    for sizes in _CASES[:2] if flags.quick else _CASES:
        measurements += _measure(text, *sizes)
    report(measurements, flags.json)


def _measure(text: str, hidden_size: int, batch_size: int, seq_len: int) -> list[Measurement]:
    config = textgen.RunConfig(
        model=textgen.ModelConfig(embedding_dim=64, hidden_size=hidden_size),
        training=textgen.TrainingConfig(
            batch_size=batch_size, seq_len=seq_len, epochs=10_000, validate_every=1_000_000
        ),
    )
    stopwatch = _Stopwatch(_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        textgen.train(config, Path(folder) / "run", text=text, callbacks=[stopwatch])
    seconds = {
        "textgen": stopwatch.seconds_per_step(),
        **_bare(stopwatch.model, batch_size, seq_len),
    }
    case = f"hidden {hidden_size}, {batch_size} x {seq_len}"
    return [Measurement(case, name, 1e3 * value, "ms a step") for name, value in seconds.items()]


def _bare(model: keras.Model, batch_size: int, seq_len: int) -> dict[str, float]:
    tokens = tf.random.uniform([batch_size, seq_len + 1], 0, 66, tf.int32, seed=1)
    inputs = {"token_ids": tokens[:, :-1], "restart": tf.constant(False)}

    @tf.function
    def steps(count):
        for _ in tf.range(count):
            model.train_step((inputs, tokens[:, 1:]))

    names = {"bare step": 1, f"{_STEPS_A_CALL} steps a call": _STEPS_A_CALL}
    times: dict[str, list[float]] = {name: [] for name in names}
    steps(tf.constant(1))
    for _ in range(_STEPS // _STEPS_A_CALL):
        for name, count in names.items():
            for _ in range(_STEPS_A_CALL // count):
                begun = time.perf_counter()
                steps(tf.constant(count))
                times[name].append((time.perf_counter() - begun) / count)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()

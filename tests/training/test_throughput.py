"""Measured throughput, with a clock that the test sets."""

import pytest

from tests.training.helpers import FLOAT32, VOCAB_SIZE
from textgen.config import ModelConfig, TrainingConfig
from textgen.training.throughput import measure_tokens_per_second


class StepClock:
    """A clock on which each step takes a given time, and nothing else takes any."""

    def __init__(self, durations):
        self.durations = iter(durations)
        self.now, self.is_running = 0.0, False

    def __call__(self):
        if self.is_running:
            self.now += next(self.durations)
        self.is_running = not self.is_running
        return self.now


@pytest.mark.parametrize(
    "durations, median", [([0.5] * 5, 0.5), ([1.0, 9.0, 2.0, 100.0, 0.25], 2.0)]
)
def test_the_rate_is_that_of_the_median_step(durations, median):
    rate = measure_tokens_per_second(
        ModelConfig(embedding_dim=4, hidden_size=5),
        VOCAB_SIZE,
        TrainingConfig(batch_size=3, seq_len=8),
        FLOAT32,
        clock=StepClock(durations),
    )
    assert rate == pytest.approx(3 * 8 / median)

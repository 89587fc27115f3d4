"""Calls of `fit`: which steps they take, and where validations fall."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.config import ModelConfig
from textgen.corpora import LanePlan
from textgen.models.kernels import Execution
from textgen.training.fit_calls import FitCall, max_steps_per_execution, plan_fit_calls


@pytest.mark.parametrize(
    "first, total, interval, calls",
    [
        (0, 30, 10, [FitCall(0, 3, 10)]),
        (0, 35, 10, [FitCall(0, 4, 10)]),
        (14, 35, 10, [FitCall(1, 2, 6), FitCall(2, 4, 10)]),
        (33, 35, 10, [FitCall(3, 4, 7)]),
        (35, 35, 10, []),
        (0, 4, 10, [FitCall(0, 1, 10)]),
    ],
)
def test_validations_stay_at_multiples_of_the_interval(first, total, interval, calls):
    assert list(plan_fit_calls(first, total, interval)) == calls


@given(total=st.integers(1, 10_000), interval=st.integers(1, 3_000), fraction=st.floats(0.0, 0.999))
def test_the_calls_take_every_step_that_is_left(total, interval, fraction):
    first = int(fraction * total)
    calls = list(plan_fit_calls(first, total, interval))
    ends, step = [], first
    for call in calls:
        for _ in range(call.initial_epoch, call.epochs):
            step += call.steps
            ends.append(step)
    assert all(end % interval == 0 for end in ends)
    assert total <= ends[-1] < total + interval
    assert all(one.epochs == other.initial_epoch for one, other in pairwise(calls))


@pytest.mark.parametrize(
    "call, steps_per_execution, counted",
    [
        (FitCall(0, 3, 10), 1, 30),
        (FitCall(0, 3, 10), 10, 30),
        (FitCall(0, 3, 10), 4, 36),  # 3 executions per epoch, of 4, 4 and 2 steps
        (FitCall(2, 3, 1), 10, 10),
    ],
)
def test_keras_counts_an_incomplete_execution_as_a_whole_one(call, steps_per_execution, counted):
    assert call.counted_steps(steps_per_execution) == counted


@pytest.mark.parametrize(
    "hidden_size, num_layers, cell, kernel, steps",
    [
        # 6 operations per weight and token, 2,048 tokens: 9.7e9 with 3 * 512^2 weights.
        (512, 1, "gru", "fused", 10),
        (576, 1, "gru", "fused", 1),
        (512, 2, "gru", "fused", 1),
        (512, 1, "lstm", "reference", 1),
        (512, 3, "rnn", "fused", 10),
        (2048, 3, "lstm", "cudnn", 10),
    ],
)
def test_only_short_steps_and_those_of_a_gpu_are_taken_together(
    hidden_size, num_layers, cell, kernel, steps
):
    model = ModelConfig(hidden_size=hidden_size, num_layers=num_layers, cell=cell)
    plan = LanePlan(num_tokens=100_000, batch_size=32, seq_len=64, seed=1)
    assert max_steps_per_execution(model, plan, Execution(kernel=kernel)) == steps

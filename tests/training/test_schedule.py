"""The learning rate, against values computed by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.config import TrainingConfig, choices_of
from textgen.training.schedule import learning_rate

CONFIG = TrainingConfig(learning_rate=1.0, warmup_steps=9, final_learning_rate_fraction=0.1)
FRACTIONS = st.floats(0.0, 1.0)


def test_warmup_rises_in_equal_steps():
    rates = [learning_rate(CONFIG, step, 0.0) for step in range(12)]
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates[9:] == pytest.approx([1.0, 1.0, 1.0])


def test_a_short_run_warms_up_for_a_twentieth_of_its_length():
    config = TrainingConfig(learning_rate=1.0, warmup_steps=1000, final_learning_rate_fraction=1.0)
    assert learning_rate(config, 1, 0.025) == pytest.approx(0.5)
    assert learning_rate(config, 3, 0.06) == pytest.approx(1.0)


def test_warmup_and_decay_multiply():
    # Step 4 of 9 warmup steps: 5/10; the cosine at 0.02 of the run: 0.999013.
    decay = 0.1 + 0.9 * 0.5 * (1 + 0.998026728)
    assert learning_rate(CONFIG, 4, 0.02) == pytest.approx(0.5 * decay)


@pytest.mark.parametrize(
    "schedule, rates",
    [
        ("cosine", [1.0, 0.868198, 0.55, 0.1]),
        ("linear", [1.0, 0.775, 0.55, 0.1]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules_go_from_the_peak_to_the_final_fraction(schedule, rates):
    config = replace(CONFIG, schedule=schedule)
    found = [learning_rate(config, 1000, fraction) for fraction in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx(rates, rel=1e-6)


@pytest.mark.parametrize("schedule", choices_of(TrainingConfig, "schedule"))
@given(fractions=st.tuples(FRACTIONS, FRACTIONS))
def test_after_warmup_the_rate_never_rises_and_keeps_to_its_limits(schedule, fractions):
    config = replace(CONFIG, schedule=schedule)
    early, late = (learning_rate(config, 1000, fraction) for fraction in sorted(fractions))
    assert 1.0 + 1e-12 >= early >= late >= 0.1 - 1e-12

"""The learning rate, against values worked out by hand."""

from dataclasses import replace

import pytest

from textgen.config import TrainingConfig
from textgen.training.schedule import learning_rate

_CONFIG = TrainingConfig(learning_rate=1.0, warmup_steps=9, final_learning_rate_fraction=0.1)


def test_warm_up_climbs_in_equal_steps():
    rates = [learning_rate(_CONFIG, step, 0.0) for step in range(12)]
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates[9:] == pytest.approx([1.0, 1.0, 1.0])


def test_a_short_run_warms_up_for_a_twentieth_of_itself():
    config = TrainingConfig(learning_rate=1.0, warmup_steps=1000, final_learning_rate_fraction=1.0)
    assert learning_rate(config, 1, 0.025) == pytest.approx(0.5)
    assert learning_rate(config, 3, 0.06) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "schedule, rates", [("linear", [1.0, 0.775, 0.1]), ("constant", [1.0, 1.0, 1.0])]
)
def test_the_other_schedules_fall_in_a_line_and_not_at_all(schedule, rates):
    config = replace(_CONFIG, schedule=schedule)
    got = [learning_rate(config, 1000, fraction) for fraction in (0.0, 0.25, 1.0)]
    assert got == pytest.approx(rates)


@pytest.mark.parametrize("fraction, rate", [(0.0, 1.0), (0.5, 0.55), (1.0, 0.1)])
def test_the_cosine_goes_from_the_peak_to_the_final_fraction(fraction, rate):
    assert learning_rate(_CONFIG, 1000, fraction) == pytest.approx(rate)

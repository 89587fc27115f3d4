"""Progress by steps and by time, with a clock that the test sets."""

import json

import pytest

from tests.training.helpers import Clock
from textgen.training.progress import Progress, check_stored


def test_the_nearer_limit_decides_the_completed_fraction():
    clock = Clock()
    progress = Progress(total_steps=100, tokens_per_step=1, max_seconds=50, clock=clock)
    assert progress.fraction == 0
    progress.step = 40
    assert progress.fraction == pytest.approx(0.4)
    clock.now += 30
    assert progress.fraction == pytest.approx(0.6)
    clock.now += 30
    assert progress.fraction == 1


def test_without_a_time_limit_only_steps_count():
    clock = Clock()
    progress = Progress(total_steps=8, tokens_per_step=1, clock=clock)
    progress.count_steps(2)
    clock.now += 1e9
    assert progress.fraction == 0.25
    assert progress.fraction_at(6) == 0.75


def test_the_time_until_the_first_step_is_not_progress():
    clock = Clock()
    progress = Progress(total_steps=10**6, tokens_per_step=1, max_seconds=50, clock=clock)
    clock.now += 10
    assert progress.fraction == 0
    progress.count_steps(1)
    assert progress.fraction == pytest.approx(1e-6)
    clock.now += 10
    progress.count_steps(1)
    assert progress.fraction == pytest.approx(0.25)
    assert progress.seconds_left == pytest.approx(30)
    clock.now += 30
    assert progress.fraction == 1


def test_a_first_step_that_takes_all_the_time_ends_the_run():
    clock = Clock()
    progress = Progress(total_steps=10**6, tokens_per_step=1, max_seconds=5, clock=clock)
    clock.now += 10
    progress.count_steps(1)
    assert progress.fraction == 1


def test_the_time_left_is_unknown_before_the_first_step():
    clock = Clock()
    progress = Progress(total_steps=10, tokens_per_step=1, clock=clock)
    clock.now += 5
    assert progress.seconds_left == 0
    progress.count_steps(4)
    clock.now += 8
    assert progress.seconds_left == pytest.approx(8 * 6 / 4)


def test_the_lowest_loss_is_the_best_and_later_validations_are_counted():
    progress = Progress(total_steps=10, tokens_per_step=1, clock=Clock())
    found = []
    for step, loss in enumerate([2.0, 1.5, 1.5, 1.7, 1.4], start=1):
        progress.step = step
        found.append((progress.record_validation(loss), progress.validations_since_best))
    assert found == [(True, 0), (True, 0), (False, 1), (False, 2), (True, 0)]
    assert (progress.best_loss, progress.best_step) == (1.4, 5)


def test_a_resumed_run_continues_with_the_stored_steps_and_seconds():
    clock = Clock()
    first = Progress(total_steps=10, tokens_per_step=1, clock=clock)
    first.step = 3
    assert first.record_validation(1.5)
    assert not first.record_validation(1.6)
    clock.now += 12
    stored = json.loads(json.dumps(first.to_dict()))
    second = Progress(total_steps=20, tokens_per_step=1, clock=clock)
    clock.now += 1000
    second.restore(check_stored(stored))
    clock.now += 5
    assert second.seconds == pytest.approx(17)
    assert (second.step, second.best_loss, second.validations_since_best) == (3, 1.5, 1)
    assert (second.best_step, second.total_steps) == (3, 20)


def test_progress_without_a_validation_survives_json():
    progress = Progress(total_steps=10, tokens_per_step=1, clock=Clock())
    stored = json.loads(json.dumps(progress.to_dict()))
    assert check_stored(stored)["best_loss"] == float("inf")


@pytest.mark.parametrize(
    "values, named",
    [
        ([], r"object, not \[\]"),
        ({"seconds": 1.0}, r"progress\.step"),
        ({"step": 1}, r"progress\.seconds"),
        ({"step": "1", "seconds": 1.0}, r"progress\.step.*'1'"),
        ({"step": 1, "seconds": True}, r"progress\.seconds"),
        ({"step": 1, "seconds": 1.0, "best_loss": None}, r"progress\.best_loss"),
    ],
)
def test_values_that_are_not_progress_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        check_stored(values)

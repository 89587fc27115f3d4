"""How far a run has come, by a clock that the test turns."""

import pytest

from textgen.training.progress import Progress


class _Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_the_nearer_limit_decides_how_much_is_done():
    clock = _Clock()
    progress = Progress(total_steps=100, tokens_per_step=1, max_seconds=50, clock=clock)
    assert progress.fraction == 0
    progress.step = 40
    assert progress.fraction == pytest.approx(0.4)
    clock.now += 30
    assert progress.fraction == pytest.approx(0.6)
    clock.now += 30
    assert progress.fraction == 1


def test_the_time_until_the_first_step_is_no_progress():
    clock = _Clock()
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
    clock = _Clock()
    progress = Progress(total_steps=10**6, tokens_per_step=1, max_seconds=5, clock=clock)
    clock.now += 10
    progress.count_steps(1)
    assert progress.fraction == 1


def test_a_second_sitting_goes_on_where_the_first_stopped():
    clock = _Clock()
    first = Progress(total_steps=10, tokens_per_step=1, clock=clock)
    first.step = 3
    assert first.record_validation(1.5)
    assert not first.record_validation(1.6)
    clock.now += 12
    second = Progress(total_steps=20, tokens_per_step=1, clock=clock)
    clock.now += 1000
    second.restore(first.to_dict())
    clock.now += 5
    assert second.seconds == pytest.approx(1017)
    assert (second.step, second.best_loss, second.validations_since_best) == (3, 1.5, 1)

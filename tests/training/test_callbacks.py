"""Callbacks: each does its one task, at the right step, with a clock that the test sets."""

import json
import math
import signal
import threading
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tests.training.helpers import Clock, fake_model, make_corpus, make_model, make_windows
from textgen.config import TrainingConfig
from textgen.errors import TrainingError
from textgen.runs import RunDirectory
from textgen.training import callbacks as module
from textgen.training.callbacks import (
    DeferInterrupt,
    LogMetrics,
    RequireFiniteLoss,
    SaveBestWeights,
    SaveCheckpoints,
    ScheduleSteps,
    StopAtLimit,
    StopWithoutImprovement,
    SwapEmaWeights,
    training_callbacks,
)
from textgen.training.progress import Progress
from textgen.training.schedule import learning_rate

TOKENIZER = SimpleNamespace(fingerprint=lambda: "a tokenizer")


def progress(total_steps=100, clock=None, **values):
    return Progress(total_steps=total_steps, tokens_per_step=6, clock=clock or Clock(), **values)


def test_a_call_ends_at_a_validation_and_at_the_end_of_the_run():
    planned, config = [], TrainingConfig(warmup_steps=2)
    callback = ScheduleSteps(config, interval=7, progress=progress(total_steps=18))
    callback.set_model(fake_model(steps_per_execution=4, plan_steps=planned.append))
    for batch in range(6):
        callback.on_train_batch_begin(batch)
        callback.on_train_batch_end(batch)
    assert [len(rates) for rates in planned] == [4, 3, 4, 3, 4, 0]
    rates = [rate for part in planned for rate in part]
    assert rates == [learning_rate(config, step, step / 18) for step in range(18)]


def test_training_stops_when_the_time_is_up_and_not_before():
    clock = Clock()
    callback = StopAtLimit(progress(clock=clock, max_seconds=10, step=1))
    callback.set_model(model := fake_model())
    clock.now += 9.9
    callback.on_train_batch_end(0)
    assert not model.stop_training
    clock.now += 0.1
    callback.on_train_batch_end(1)
    assert model.stop_training


def test_training_stops_after_the_last_step():
    callback = StopAtLimit(found := progress(total_steps=5, step=4))
    callback.set_model(model := fake_model())
    callback.on_train_batch_end(0)
    assert not model.stop_training
    found.step = 5
    callback.on_train_batch_end(0)
    assert model.stop_training


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize(
    "best_step, kept", [(0, "No weights are kept"), (1200, "step 1,200 are kept")]
)
def test_a_loss_that_is_not_finite_is_an_error(loss, best_step, kept):
    callback = RequireFiniteLoss(progress(step=1300, best_step=best_step))
    with pytest.raises(TrainingError, match=f"Received: {loss} at step 1,300. .*{kept}"):
        callback.on_epoch_end(0, {"val_loss": loss})
    callback.on_epoch_end(0, {"val_loss": 1e30})


def test_training_stops_after_patience_validations_without_improvement():
    found = progress()
    callback = StopWithoutImprovement(2, found)
    callback.set_model(model := fake_model())
    stops = []
    for loss in (3.0, 2.0, 2.5, 1.9, 2.0, 1.95):
        found.record_validation(loss)
        callback.on_epoch_end(0)
        stops.append(model.stop_training)
    assert stops == [False, False, False, False, False, True]


def test_the_average_is_swapped_in_during_a_validation_only():
    model = make_model(ema_decay=0.5)
    callback = SwapEmaWeights()
    callback.set_model(model)
    for window in make_windows(5):
        model.train_step(window)
    variables = model.language_model.trainable_variables
    raw = [variable.numpy() for variable in variables]

    def is_raw():
        return all(np.array_equal(v, value) for v, value in zip(variables, raw, strict=True))

    callback.on_test_begin()
    averages = [variable.numpy() for variable in variables]
    assert not is_raw()
    callback.on_epoch_end(0)
    assert is_raw()
    model.load_ema_weights()  # What Keras does when `fit` ends.
    assert all(np.array_equal(v, a) for v, a in zip(variables, averages, strict=True))
    callback.on_train_end()
    assert is_raw()


def test_weights_are_written_only_when_they_are_the_best():
    written, found = [], progress()
    run = SimpleNamespace(write_weights=lambda weights, tokenizer: written.append(weights))
    callback = SaveBestWeights(run, TOKENIZER, found)
    network = SimpleNamespace(model_weights=lambda: found.step)
    callback.set_model(fake_model(language_model=network))
    for step, loss in enumerate([3.0, 2.0, 2.0, 2.5, 1.5], start=1):
        found.step = step
        callback.on_epoch_end(0, {"val_loss": loss})
    assert written == [1, 2, 5]
    assert (found.best_loss, found.best_step) == (1.5, 5)


def test_a_line_of_the_metrics_has_values_computed_by_hand(tmp_path):
    clock = Clock()
    found = progress(clock=clock, step=20)
    run = RunDirectory(tmp_path)
    # Two characters and bytes per token.
    callback = LogMetrics(run, make_corpus(), steps_per_epoch=16, progress=found)
    callback.set_model(fake_model(optimizer=SimpleNamespace(learning_rate=np.float32(0.5))))
    clock.now += 3
    callback.on_epoch_begin(0)
    for _ in range(2):
        clock.now += 2
        found.count_steps(10)
        callback.on_train_batch_end(0)
    clock.now += 50  # The validation.
    callback.on_epoch_end(0, {"loss": 1.5, "val_loss": 2 * math.log(2)})
    (row,) = run.read_metrics()
    assert json.loads(json.dumps(row)) == {
        "step": 40,
        "epoch": 2.5,
        "loss": 1.5,
        "validation_loss": pytest.approx(2 * math.log(2)),
        "perplexity": pytest.approx(4),
        "bits_per_char": pytest.approx(1),
        "bits_per_byte": pytest.approx(1),
        "tokens_per_second": 20 * 6 / 4,
        "learning_rate": 0.5,
        "seconds": 57,
    }


@pytest.fixture
def saved(monkeypatch):
    """The steps at which a checkpoint was saved."""
    steps = []
    monkeypatch.setattr(
        module, "save_checkpoint", lambda path, model, found, fingerprint: steps.append(found.step)
    )
    return steps


def checkpoints(minutes, found, steps=100):
    callback = SaveCheckpoints(SimpleNamespace(checkpoint_path=None), TOKENIZER, minutes, found)
    callback.set_model(model := fake_model())
    callback.set_params({"steps": steps})
    return callback, model


def test_checkpoints_are_saved_every_few_minutes_and_after_a_validation(saved):
    clock = Clock()
    found = progress(clock=clock)
    callback, _ = checkpoints(2.0, found)
    for batch in range(10):
        clock.now += 50
        found.step += 1
        callback.on_train_batch_end(batch, {"loss": 1.0})
    # 150 seconds are more than two minutes, 100 are not.
    assert saved == [3, 6, 9]
    callback.on_epoch_end(0, {})
    assert saved == [3, 6, 9, 10]
    clock.now += 119
    callback.on_train_batch_end(10, {"loss": 1.0})
    assert saved == [3, 6, 9, 10]


def test_without_minutes_checkpoints_are_saved_after_validations_only(saved):
    clock = Clock()
    callback, _ = checkpoints(None, progress(clock=clock))
    clock.now += 1e6
    callback.on_train_batch_end(0, {"loss": 1.0})
    assert saved == []


def test_no_checkpoint_is_saved_just_before_a_validation_or_of_a_diverged_run(saved):
    clock = Clock()
    callback, model = checkpoints(2.0, progress(clock=clock), steps=5)
    clock.now += 1000
    callback.on_train_batch_end(4, {"loss": 1.0})
    callback.on_train_batch_end(3, {"loss": math.nan})
    model.stop_training = True
    callback.on_train_batch_end(3, {"loss": 1.0})
    assert saved == []
    model.stop_training = False
    callback.on_train_batch_end(3, {"loss": 1.0})
    assert saved == [0]


def deferring(steps=5):
    callback = DeferInterrupt()
    callback.set_model(fake_model())
    callback.set_params({"steps": steps})
    return callback


def test_an_interrupt_takes_effect_between_two_calls():
    callback = deferring()
    with callback.handling_sigint():
        callback.on_train_batch_end(0)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            callback.on_train_batch_end(1)
    assert callback.is_consistent


def test_an_interrupt_before_a_validation_waits_for_it():
    callback = deferring()
    with callback.handling_sigint():
        signal.raise_signal(signal.SIGINT)
        callback.on_train_batch_end(4)
        with pytest.raises(KeyboardInterrupt):
            callback.on_epoch_end(0)
    assert callback.is_consistent


def test_a_second_interrupt_takes_effect_immediately():
    callback = deferring()
    with callback.handling_sigint():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert not callback.is_consistent


def test_the_previous_handler_is_restored_and_other_threads_have_none():
    before = signal.getsignal(signal.SIGINT)
    callback = deferring()
    with callback.handling_sigint():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before

    seen = []

    def in_a_thread():
        with callback.handling_sigint():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize(
    "settings, optional",
    [
        ({}, []),
        ({"ema_decay": 0.9, "patience": 3}, [SwapEmaWeights, StopWithoutImprovement]),
    ],
)
def test_callbacks_are_ordered_by_their_dependencies(tmp_path, settings, optional):
    found = training_callbacks(
        config=TrainingConfig(**settings),
        run=RunDirectory(tmp_path),
        tokenizer=TOKENIZER,
        corpus=make_corpus(),
        steps_per_epoch=10,
        interval=10,
        progress=progress(),
    )
    types = [type(callback) for callback in found]
    assert types[0] is ScheduleSteps and types[-1] is keras.callbacks.TensorBoard
    order = [RequireFiniteLoss, SaveBestWeights, LogMetrics, StopAtLimit, SaveCheckpoints]
    assert sorted(order, key=types.index) == order
    if optional:
        # The best weights are the average; the raw weights are restored before the metrics.
        swap, stop = (types.index(kind) for kind in optional)
        assert types.index(SaveBestWeights) < swap < types.index(LogMetrics)
        assert types.index(SaveBestWeights) < stop < types.index(SaveCheckpoints)
    assert (SwapEmaWeights in types) == bool(optional)
    assert (StopWithoutImprovement in types) == bool(optional)

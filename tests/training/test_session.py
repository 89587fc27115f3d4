"""Sessions: parts built from the settings; interruption, restoring, and exhausted memory."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.helpers import FLOAT32, CallAtStep, Clock, interrupt, make_corpus, with_training
from textgen.config import ModelConfig, RunConfig, TrainingConfig
from textgen.corpora import plan_lanes
from textgen.errors import DeviceError
from textgen.runs import RunDirectory
from textgen.tokenizers import build_tokenizer
from textgen.training.session import build_session

CONFIG = RunConfig(
    model=ModelConfig(embedding_dim=4, hidden_size=5, dropout=0.0),
    training=TrainingConfig(batch_size=3, seq_len=4, epochs=5, validate_every=6, seed=2),
)


def build(path, config=CONFIG, clock=None):
    tokenizer = build_tokenizer(config.tokenizer, "abcdefg", "abcdefg")
    corpus = make_corpus(train=60)
    training = config.training
    plan = plan_lanes(len(corpus.train), training.batch_size, training.seq_len, training.seed)
    run = RunDirectory(path)
    return build_session(run, config, tokenizer, corpus, plan, FLOAT32, clock=clock or Clock())


def weights(session):
    return [v.numpy() for v in session.model.language_model.trainable_variables]


def test_the_limits_of_the_run_are_those_of_the_settings(tmp_path):
    # Lanes of 20 tokens have room for four windows of four, and one more target.
    session = build(tmp_path)
    assert session.plan.steps_per_epoch == 4
    assert (session.progress.total_steps, session.progress.tokens_per_step) == (20, 12)
    assert session.progress.max_seconds is None
    session = build(tmp_path, with_training(CONFIG, epochs=None, max_minutes=1.5))
    assert session.progress.max_seconds == 90
    assert session.model.steps_per_execution == 10


def test_time_is_that_of_the_clock(tmp_path):
    clock = Clock()
    session = build(tmp_path, clock=clock)
    clock.now += 25
    assert session.progress.seconds == 25


def test_the_seed_decides_the_initial_weights(tmp_path):
    one, same = weights(build(tmp_path)), weights(build(tmp_path))
    other = weights(build(tmp_path, with_training(CONFIG, seed=3)))
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("dense_bias", ["frequencies", "zeros"])
def test_the_dense_bias_is_initialized_as_set(tmp_path, dense_bias):
    config = replace(CONFIG, model=replace(CONFIG.model, dense_bias=dense_bias))
    session = build(tmp_path, config)
    counts = np.bincount(session.corpus.train, minlength=session.tokenizer.vocab_size) + 1
    expected = np.log(counts / counts.sum()) if dense_bias == "frequencies" else 0 * counts
    found = session.model.language_model.dense.bias.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_interruption_before_the_first_validation_saves_checkpoint_and_average(tmp_path):
    session = build(tmp_path, with_training(CONFIG, ema_decay=0.5, validate_every=15))
    raw = []
    at_step = CallAtStep(10, lambda: (raw.append(weights(session)), interrupt()))
    with pytest.raises(KeyboardInterrupt):
        session.fit([at_step])
    kept = session.run.read_weights(session.tokenizer).dense_bias
    assert not np.array_equal(kept, raw[0][-1])
    resumed = build(tmp_path, session.config)
    resumed.restore()
    assert resumed.progress.step == 10
    for one, other in zip(weights(resumed), raw[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_metrics_of_steps_after_the_checkpoint_are_dropped(tmp_path):
    session = build(tmp_path)
    session.fit([])
    assert [row["step"] for row in session.run.read_metrics()] == [6, 12, 18, 20]
    session.run.append_metrics({"step": 26})
    build(tmp_path).restore()
    assert [row["step"] for row in session.run.read_metrics()] == [6, 12, 18, 20]


def test_a_step_that_does_not_fit_in_memory_is_an_error_that_gives_its_size(tmp_path):
    class Exhaust(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    message = r"Received: `batch_size` 3 and `seq_len` 4, .* 0\.0 GiB\. Lower .*`hidden_size`"
    with pytest.raises(DeviceError, match=message):
        build(tmp_path).fit([Exhaust()])

"""Training end to end: learning, reproducibility, exact resuming, limits and errors."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

import textgen
from tests.training.helpers import (
    CallAtStep,
    Clock,
    assert_bitwise_equal,
    interrupt,
    read_checkpoint,
    with_training,
)
from textgen.config import RunConfig, SamplingConfig
from textgen.errors import ConfigError, CorpusError, DeviceError, TrainingError
from textgen.generation import Request
from textgen.training import resume, session, train
from textgen.training.optimizer import make_optimizer


def test_training_learns_the_text(tiny_run, text):
    rows = tiny_run.read_metrics()
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    assert rows[-1]["validation_loss"] < 0.8 * np.log(len(set(text)))
    assert rows[-1]["epoch"] == 2


@pytest.mark.parametrize("dense_bias", ["frequencies", "zeros"])
def test_training_starts_from_the_frequencies_of_the_training_text(
    tiny_config, text, tmp_path, dense_bias
):
    config = with_training(tiny_config, learning_rate=1e-9, epochs=1)
    config = replace(config, model=replace(config.model, dense_bias=dense_bias))
    run = train(config, tmp_path / "run", text=text)
    corpus, vocab_size = run.read_corpus(), run.read_tokenizer().vocab_size
    shares = np.bincount(corpus.train, minlength=vocab_size) + 1
    expected = -np.log(shares / shares.sum())[corpus.validation].mean()
    if dense_bias == "zeros":
        expected = np.log(vocab_size)
    assert run.read_metrics()[-1]["validation_loss"] == pytest.approx(expected, abs=0.05)


def test_the_best_metrics_equal_the_score_of_the_saved_weights(tiny_run):
    best = min(tiny_run.read_metrics(), key=lambda row: row["validation_loss"])
    score = textgen.load(tiny_run.path).score_split("validation")
    assert score.loss == pytest.approx(best["validation_loss"], rel=1e-5)
    for name in ("bits_per_char", "bits_per_byte", "perplexity"):
        assert getattr(score, name) == pytest.approx(best[name], rel=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_config, text, tmp_path):
    runs = [
        train(with_training(tiny_config, seed=seed), tmp_path / name, text=text)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    a, b, c = map(read_checkpoint, runs)
    assert_bitwise_equal(a, b)
    assert any(not np.array_equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize("validate_every", [None, 7])
@pytest.mark.parametrize("stops", [(11, 25), (7, 36), (35, 71)])
def test_an_interrupted_run_resumes_bit_for_bit(tiny_config, text, tmp_path, validate_every, stops):
    config = with_training(tiny_config, validate_every=validate_every)
    whole = train(config, tmp_path / "whole", text=text)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", text=text, callbacks=[CallAtStep(stops[0], interrupt)])
    broken = textgen.RunDirectory(tmp_path / "broken")
    assert broken.weights_path.exists()
    with pytest.raises(KeyboardInterrupt):
        resume(broken.path, callbacks=[CallAtStep(stops[1], interrupt)])
    moved = textgen.RunDirectory(shutil.move(broken.path, tmp_path / "moved"))
    resume(moved.path)
    assert_bitwise_equal(read_checkpoint(whole), read_checkpoint(moved))
    assert whole.weights_path.read_bytes() == moved.weights_path.read_bytes()
    steps = [[row["step"] for row in run.read_metrics()] for run in (whole, moved)]
    assert steps[0] == steps[1]
    losses = [[row["validation_loss"] for row in run.read_metrics()] for run in (whole, moved)]
    assert losses[0] == losses[1]


def test_a_run_with_every_training_option_resumes_bit_for_bit(tiny_config, text, tmp_path):
    config = with_training(
        tiny_config,
        ema_decay=0.9,
        state_reset_probability=0.3,
        seq_len_jitter=3,
        activation_penalty=1.0,
        temporal_penalty=1.0,
        schedule="linear",
    )
    config = replace(
        config,
        model=replace(
            config.model, initial_state="learned", input_dropout=0.1, embedding_dropout=0.1
        ),
    )
    whole = train(config, tmp_path / "whole", text=text)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", text=text, callbacks=[CallAtStep(11, interrupt)])
    resume(tmp_path / "broken")
    broken = textgen.RunDirectory(tmp_path / "broken")
    assert_bitwise_equal(read_checkpoint(whole), read_checkpoint(broken))
    assert whole.weights_path.read_bytes() == broken.weights_path.read_bytes()


def test_the_average_of_the_weights_is_validated_and_kept_and_does_not_change_training(
    tiny_config, text, tmp_path
):
    config = with_training(tiny_config, ema_decay=0.8, epochs=1, validate_every=10)
    run = train(config, tmp_path / "averaged", text=text)
    plain = train(with_training(config, ema_decay=None), tmp_path / "plain", text=text)
    averaged, other = read_checkpoint(run), read_checkpoint(plain)
    for name in (n for n in other if n.startswith("model.") and "validation_state" not in n):
        np.testing.assert_array_equal(averaged[name], other[name], err_msg=name)
    assert any("average" in name for name in averaged)
    kept = run.read_weights(run.read_tokenizer()).dense_bias
    assert not np.array_equal(kept, plain.read_weights(plain.read_tokenizer()).dense_bias)
    score = textgen.load(run.path).score_split("validation")
    best = min(row["validation_loss"] for row in run.read_metrics())
    assert score.loss == pytest.approx(best, rel=1e-5)


def test_the_average_is_the_exponential_one(tiny_config, text, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "max_steps_per_execution", lambda *_: 1)
    seen = []

    class Weights(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.language_model.embedding.embeddings.numpy().copy())

    config = with_training(tiny_config, ema_decay=0.8, epochs=1, validate_every=10_000)
    run = train(config, tmp_path / "run", text=text, callbacks=[Weights()])
    average = seen[0].astype(np.float64)
    for steps, embeddings in enumerate(seen[1:], start=1):
        decay = min(0.8, (1 + steps) / (10 + steps))
        average = decay * average + (1 - decay) * embeddings
    kept = run.read_weights(run.read_tokenizer()).embedding
    # Below 0.5 float32 rounds by 1.5e-8, and the average of many steps by five times that.
    assert np.abs(average).max() < 0.5
    np.testing.assert_allclose(kept, average, atol=1e-6)
    assert np.abs(kept - seen[-1]).max() > 1e-3


def test_more_steps_per_call_change_nothing_but_the_speed(tiny_config, text, tmp_path, monkeypatch):
    runs = []
    for steps in (1, 3):
        monkeypatch.setattr(session, "max_steps_per_execution", lambda *_, steps=steps: steps)
        runs.append(train(tiny_config, tmp_path / str(steps), text=text))
    assert_bitwise_equal(*map(read_checkpoint, runs))


@pytest.mark.parametrize("first, then", [("float16", "float32"), ("float32", "float16")])
def test_a_run_resumes_with_another_matmul_dtype(
    tiny_config, text, tmp_path, monkeypatch, first, then
):
    # Only the optimizer gets the dtype: a model in float16 needs a GPU.
    def optimizer(matmul_dtype):
        return lambda training, _: make_optimizer(training, matmul_dtype)

    monkeypatch.setattr(session, "make_optimizer", optimizer(first))
    run = train(tiny_config, tmp_path / "run", text=text)
    monkeypatch.setattr(session, "make_optimizer", optimizer(then))
    training = replace(run.read_config().training, epochs=3)
    resume(run.path, training=training)
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2, 3]
    moments = [name for name in read_checkpoint(run) if name.startswith("optimizer.")]
    assert any("velocity" in name for name in moments)


def test_a_complete_run_resumes_with_more_epochs(tiny_run, tmp_path):
    copy = textgen.RunDirectory(shutil.copytree(tiny_run.path, tmp_path / "copy"))
    training = replace(copy.read_config().training, epochs=3)
    resume(copy.path, training=training)
    assert [row["epoch"] for row in copy.read_metrics()] == [1, 2, 3]
    assert copy.read_config().training.epochs == 3


def test_a_run_resumes_with_another_kernel(tiny_run, tmp_path):
    copy = textgen.RunDirectory(shutil.copytree(tiny_run.path, tmp_path / "copy"))
    training = replace(copy.read_config().training, epochs=3, kernel="reference")
    resume(copy.path, training=training)
    assert copy.read_environment()["kernel"] == "reference"
    assert (
        copy.read_metrics()[-1]["validation_loss"] < tiny_run.read_metrics()[0]["validation_loss"]
    )


def test_settings_that_are_fixed_for_a_run_cannot_change(tiny_run):
    training = replace(tiny_run.read_config().training, batch_size=4)
    with pytest.raises(ConfigError, match="batch_size"):
        resume(tiny_run.path, training=training)


def test_best_weights_are_kept_and_patience_ends_a_run_that_gets_worse(tiny_config, text, tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch >= 2:
                dense = self.model.language_model.dense
                dense.bias.assign(
                    100.0 * np.random.default_rng(epoch).normal(size=dense.bias.shape)
                )

    config = with_training(tiny_config, epochs=20, patience=2)
    run = train(config, tmp_path / "run", text=text, callbacks=[Spoil()])
    rows = run.read_metrics()
    assert len(rows) == 4
    best = min(rows, key=lambda row: row["validation_loss"])
    assert best["epoch"] == 2
    score = textgen.load(run.path).score_split("validation")
    assert score.loss == pytest.approx(best["validation_loss"], rel=1e-5)


class Tick(keras.callbacks.Callback):
    """Advances the clock by half a second after each call of the step function."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def on_train_batch_end(self, batch, logs=None):
        self.clock.now += 0.5


def test_the_time_limit_ends_a_run_with_a_validation_and_the_schedule_at_its_end(
    tiny_config, text, tmp_path
):
    # Between validations, 36 steps apart, there are four calls: of 10, 10, 10 and 6 steps.
    config = with_training(tiny_config, epochs=10_000, max_minutes=0.1)
    clock = Clock()
    run = train(config, tmp_path / "run", text=text, callbacks=[Tick(clock)], clock=clock)
    rows = run.read_metrics()
    final = config.training.learning_rate * config.training.final_learning_rate_fraction
    # Six seconds have passed when the 13th call ends.
    assert [row["step"] for row in rows] == [36, 72, 108, 118]
    assert rows[-1]["seconds"] == 6.5
    assert rows[-1]["learning_rate"] == pytest.approx(final, rel=1e-6)

    clock = Clock()
    longer = replace(run.read_config().training, max_minutes=0.2)
    resume(run.path, training=longer, callbacks=[Tick(clock)], clock=clock)
    rows = run.read_metrics()
    # Another 5.5 seconds have passed when the 12th call ends; the third ends at step 144.
    assert [row["step"] for row in rows[3:]] == [118, 144, 180, 216, 226]
    assert rows[-1]["seconds"] == 12.5


def test_the_preset_of_a_run_must_be_applied(text, tmp_path):
    with pytest.raises(ConfigError, match=r"get_preset\('medium'\)"):
        train(RunConfig(preset="medium"), tmp_path / "run", text=text)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"config": "a.txt"}, r"`config` must be a RunConfig.*'a\.txt'.*sources"),
        ({"run_dir": 3}, r"`run_dir` must be a string or a Path, or None.*3 \(int\)"),
        ({"text": 3}, r"`text` must be a string, or None.*3 \(int\)"),
        ({"overwrite": "yes"}, "`overwrite` must be True or False.*'yes'"),
        ({"callbacks": keras.callbacks.Callback()}, "`callbacks` must be a list.*Callback object"),
        ({"callbacks": [print]}, r"`callbacks` must be a list.*builtin_function"),
        ({"clock": None}, "`clock` must be a function. Received: None"),
    ],
)
def test_wrong_types_are_named_before_anything_is_written(
    tiny_config, tmp_path, arguments, message
):
    accepted = {"config": tiny_config, "run_dir": tmp_path / "run", "text": "abc" * 100}
    with pytest.raises(ConfigError, match=message):
        train(**(accepted | arguments))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"run_dir": None}, "`run_dir` must be a string.*None"),
        ({"training": 5}, r"`training` must be a TrainingConfig, or None.*5 \(int\)"),
        ({"callbacks": print}, "`callbacks` must be a list"),
        ({"clock": 5}, "`clock` must be a function. Received: 5"),
    ],
)
def test_wrong_types_are_named_when_a_run_is_resumed(tiny_run, arguments, message):
    with pytest.raises(ConfigError, match=message):
        resume(**({"run_dir": tiny_run.path} | arguments))


def test_a_users_own_callback_finds_loss_and_validation_in_the_logs(tiny_config, text, tmp_path):
    seen = []

    class Own(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(dict(logs))

    path = tmp_path / "best.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(
        path, monitor="val_loss", save_best_only=True, save_weights_only=True
    )
    train(tiny_config, tmp_path / "run", text=text, callbacks=[Own(), checkpoint])
    assert len(seen) == 2
    assert {"loss", "bits_per_char", "val_loss", "val_bits_per_char"} <= set(seen[0])
    assert seen[0]["bits_per_char"] == pytest.approx(seen[0]["loss"] / np.log(2), rel=1e-5)
    assert path.exists()


def test_a_short_corpus_gets_fewer_lanes_and_a_shorter_one_an_error(tiny_config, text, tmp_path):
    run = train(tiny_config, tmp_path / "short", text=text[:100])
    assert run.read_metrics()
    with pytest.raises(CorpusError, match="seq_len"):
        train(tiny_config, tmp_path / "shorter", text=text[:20])
    assert not (tmp_path / "shorter").exists()


def test_a_subword_model_trains_scores_in_characters_and_generates(tiny_config, text, tmp_path):
    config = replace(
        tiny_config, tokenizer=textgen.TokenizerConfig(tokenizer="subword", vocab_size=300)
    )
    run = train(config, tmp_path / "run", text=text)
    model = textgen.load(run.path)
    score = model.score_split("validation")
    assert score.tokens < score.characters
    assert score.characters == len(text) - int(len(text) * 0.9)
    request = Request(prompt="green 🐸 ", sampling=SamplingConfig(max_new_tokens=30, seed=1))
    (generated,) = model.generate_batch([request])
    assert generated.num_tokens == 30
    assert len(generated.text) > 30


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_no_run(tiny_config, text, tmp_path):
    config = with_training(tiny_config, learning_rate=1e30, clip_norm=None)
    with pytest.raises(TrainingError, match="`learning_rate`"):
        train(config, tmp_path / "run", text=text)
    assert not (tmp_path / "run").exists()


def test_resuming_a_complete_run_changes_nothing(tiny_run, tmp_path):
    copy = textgen.RunDirectory(shutil.copytree(tiny_run.path, tmp_path / "copy"))
    resume(copy.path)
    assert_bitwise_equal(read_checkpoint(copy), read_checkpoint(tiny_run))
    assert copy.read_metrics() == tiny_run.read_metrics()


def test_a_model_larger_than_the_memory_is_refused_before_anything_is_written(
    tiny_config, text, tmp_path
):
    config = replace(tiny_config, model=textgen.ModelConfig(hidden_size=999_999_999))
    with pytest.raises(DeviceError, match=r"GiB.*`hidden_size`"):
        train(config, tmp_path / "run", text=text)
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_its_events_and_the_environment_is_recorded(tiny_run):
    assert list((tiny_run.path / "tensorboard").rglob("events*"))
    environment = tiny_run.read_environment()
    assert environment["kernel"] in ("fused", "cudnn")
    assert environment["kernel_reason"]
    json.dumps(environment)

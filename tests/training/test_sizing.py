"""The rule of `--preset auto`, against settings computed by hand."""

from dataclasses import replace

import pytest

from textgen.config import RunConfig, TokenizerConfig, TrainingConfig
from textgen.training import throughput
from textgen.training.sizing import CHOSEN_SETTINGS, choose_settings, size_to_fit


def choose(**changes):
    arguments = {
        "num_tokens": 1_000_000,
        "vocab_size": 65,
        "minutes": 3.0,
        "tokens_per_second": 40_000.0,
    }
    return choose_settings(**(arguments | changes))


def test_settings_for_a_million_characters_and_three_minutes():
    # 172 s * 40,000 tokens/s * 4,918,272 operations per token (18 * 512^2 + 6 * 512 * 65) train
    # 576 units (6,196,608 operations per token) on 5.46 million tokens; 4.34 are enough. 640 units
    # would be trained on 4.44 million, where 5.96 are needed.
    config = choose()
    model, training = config.model, config.training
    assert (model.hidden_size, model.embedding_dim) == (576, 256)
    assert model.dropout == pytest.approx(0.2949)  # 0.05 + 0.1 * log2(5.4607 epochs)
    assert model.weight_drop == pytest.approx(0.0449)  # 0.1 * log2(5.4607 / 4)
    assert training.learning_rate == pytest.approx(0.0035)  # 4e-3 * (512 / 576)^1.2 = 0.003473
    assert training.ema_decay == pytest.approx(0.997)  # 1 - 8 / 2,666 steps
    assert training.validate_every == 488  # One epoch: 2,666 steps / 5.46.
    assert (training.schedule, training.epochs, training.max_minutes) == ("cosine", None, 3.0)
    assert (training.batch_size, training.seq_len) == (32, 64)


@pytest.mark.parametrize(
    "change",
    [
        {"minutes": 60.0},
        {"tokens_per_second": 800_000.0},
        {"num_tokens": 50_000_000, "minutes": 60.0},
    ],
)
def test_more_time_and_a_faster_machine_train_more_units(change):
    assert choose(**change).model.hidden_size > choose().model.hidden_size


def test_a_large_vocabulary_leaves_fewer_operations_for_the_units():
    # The same operations per second train 384 units (16,478,208 operations per token) on 2.05
    # million tokens, where 1.29 are enough, and 448 units on 1.71, where 2.04 are needed.
    rate = 40_000.0 * (18 * 512**2 + 6 * 512 * 65) / (18 * 512**2 + 6 * 512 * 6000)
    assert choose(vocab_size=6000, tokens_per_second=rate).model.hidden_size == 384
    assert choose().model.hidden_size == 576


@pytest.mark.parametrize(
    "num_tokens, dropout, weight_drop",
    [
        (50_000_000, 0.1, 0.0),  # less than an epoch
        (1_000_000, 0.2949, 0.0449),
        (100_000, 0.5, 0.3),  # 40 epochs: 0.58 and 0.33, above the limits
    ],
)
def test_more_epochs_need_more_dropout_up_to_a_limit(num_tokens, dropout, weight_drop):
    model = choose(num_tokens=num_tokens).model
    assert (model.dropout, model.weight_drop) == pytest.approx((dropout, weight_drop))


def test_only_a_training_of_many_epochs_lowers_its_rate():
    assert choose(num_tokens=50_000_000).training.schedule == "constant"
    assert choose(num_tokens=100_000).training.schedule == "cosine"


def test_a_small_text_gets_no_more_units_for_more_time():
    sizes = {choose(num_tokens=50_000, minutes=m).model.hidden_size for m in (5.0, 50.0, 500.0)}
    # 40 epochs are two million tokens: 448 units would need 2.04 million.
    assert sizes == {384}
    assert choose(minutes=500.0).model.hidden_size > 384


def test_a_small_text_is_read_for_forty_epochs_at_most():
    limited = choose(num_tokens=20_000, minutes=30.0).training
    assert limited.epochs == 40
    assert choose(num_tokens=1_000_000, minutes=30.0).training.epochs is None


@pytest.mark.parametrize("minutes", [0.01, 0.1, 10_000.0])
@pytest.mark.parametrize("num_tokens", [10, 10**10])
def test_extreme_arguments_give_valid_settings(minutes, num_tokens):
    config = choose(minutes=minutes, num_tokens=num_tokens)
    assert RunConfig.from_dict(config.to_dict()) == config
    assert config.preset == "auto"
    assert 128 <= config.model.hidden_size <= 2048


@pytest.fixture
def measured(monkeypatch):
    """The vocabulary sizes with which the machine was measured, at 40,000 tokens/s."""
    sizes = []

    def measure(model, vocab_size, training, execution):
        sizes.append(vocab_size)
        return 40_000.0

    monkeypatch.setattr(throughput, "measure_tokens_per_second", measure)
    return sizes


def test_sizes_fit_the_text_and_the_machine_and_other_settings_stay(measured, text):
    training = TrainingConfig(seed=7, matmul_dtype="float32", max_minutes=2, batch_size=5)
    config = size_to_fit(RunConfig(preset="auto", training=training), text)
    expected = choose_settings(
        num_tokens=int(0.9 * len(text)),
        vocab_size=len(set(text)),
        minutes=2,
        tokens_per_second=40_000.0,
    )
    assert config.model == expected.model
    for name in vars(training):
        source = expected.training if name in CHOSEN_SETTINGS else training
        assert getattr(config.training, name) == getattr(source, name), name
    assert config.training.batch_size == 32
    assert measured == [len(set(text))]


def test_subwords_are_counted_as_three_characters_and_minutes_default_to_three(measured, text):
    config = RunConfig(tokenizer=TokenizerConfig(tokenizer="subword", vocab_size=300))
    sized = size_to_fit(config, text)
    expected = choose_settings(
        num_tokens=round(int(0.9 * len(text)) / 3),
        vocab_size=300,
        minutes=3,
        tokens_per_second=40_000.0,
    )
    assert sized == replace(config, model=expected.model, training=expected.training)
    assert measured == [300]

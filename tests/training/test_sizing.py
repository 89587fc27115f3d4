"""The rule behind `--preset auto`, and what it stands for on this machine."""

from dataclasses import replace

import pytest

from textgen.config import RunConfig, TokenizerConfig
from textgen.training import throughput
from textgen.training.sizing import choose_settings


def _chosen(**changes):
    asked = {"tokens": 1_000_000, "vocab_size": 65, "minutes": 3.0, "tokens_per_second": 40_000.0}
    return choose_settings(**(asked | changes))


@pytest.mark.parametrize(
    "change",
    [{"minutes": 60.0}, {"tokens_per_second": 800_000.0}, {"tokens": 50_000_000, "minutes": 60.0}],
)
def test_more_time_and_a_faster_machine_train_more_units(change):
    assert _chosen(**change).model.hidden_size > _chosen().model.hidden_size


def test_a_large_vocabulary_leaves_less_for_units():
    rate = 40_000.0 * 4.9e6 / (4.9e6 + 6 * 512 * 6000)  # what the reference reaches with it
    large = _chosen(vocab_size=6000, tokens_per_second=rate)
    assert large.model.hidden_size <= _chosen().model.hidden_size


def test_more_passes_over_a_text_ask_for_more_dropout():
    dropouts = [_chosen(tokens=t).model.dropout for t in (50_000_000, 1_000_000, 100_000)]
    assert dropouts == sorted(dropouts)
    assert dropouts[0] < dropouts[-1] <= 0.6


def test_only_a_training_of_many_passes_lowers_its_rate():
    assert _chosen(tokens=50_000_000).training.schedule == "constant"
    assert _chosen(tokens=100_000).training.schedule == "cosine"


def test_a_small_text_gets_no_more_units_for_more_time():
    sizes = {_chosen(tokens=50_000, minutes=m).model.hidden_size for m in (5.0, 50.0, 500.0)}
    assert len(sizes) == 1
    assert sizes.pop() < _chosen(minutes=500.0).model.hidden_size


def test_a_small_text_is_not_read_for_ever():
    limited = _chosen(tokens=20_000, minutes=30.0).training
    assert limited.epochs is not None
    assert limited.epochs * 20_000 < 0.5 * 30 * 60 * 40_000


@pytest.mark.parametrize("minutes", [0.01, 0.1, 10_000.0])
@pytest.mark.parametrize("tokens", [10, 10**10])
def test_whatever_is_asked_the_settings_are_valid(minutes, tokens):
    config = _chosen(minutes=minutes, tokens=tokens)
    assert RunConfig.from_dict(config.to_dict()) == config
    assert config.preset == "auto"


def test_the_machine_is_measured_and_other_settings_stay(monkeypatch, text):
    seen = []

    def measured(model, vocab_size, training, execution):
        seen.append(vocab_size)
        return 40_000.0

    monkeypatch.setattr(throughput, "measure_tokens_per_second", measured)
    asked = RunConfig(preset="auto")
    asked = replace(asked, training=replace(asked.training, seed=7, matmul_dtype="float32"))
    config = throughput.size_to_fit(asked, text)
    assert (config.training.seed, config.training.matmul_dtype) == (7, "float32")
    assert config.training.batch_size != asked.training.batch_size or config.training.ema_decay
    subwords = replace(asked, tokenizer=TokenizerConfig(tokenizer="subword", vocab_size=300))
    throughput.size_to_fit(subwords, text)
    assert seen == [len(set(text)), 300]

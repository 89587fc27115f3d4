"""The estimate of memory: hand-computed values, counts of real models, and the error."""

import re

import pytest

from textgen.config import ModelConfig
from textgen.errors import DeviceError
from textgen.models.language_model import build_language_model
from textgen.models.memory import num_parameters, require_memory, training_bytes


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"num_layers": 3},
        {"cell": "lstm", "num_layers": 2, "residual": True, "layer_norm": True},
        {"cell": "rnn", "output_gate": True, "initial_state": "learned"},
        {"hidden_size": 5, "tie_weights": True},
    ],
    ids=str,
)
def test_parameters_are_counted_as_in_the_model(parts):
    config = ModelConfig(**{"embedding_dim": 5, "hidden_size": 7} | parts)
    model = build_language_model(config, 11)
    trained = sum(variable.shape.num_elements() for variable in model.trainable_variables)
    assert num_parameters(config, 11) == trained


# Sizes for values worked by hand: 10 tokens, embeddings of 4, 8 units.
SMALL = {"embedding_dim": 4, "hidden_size": 8}
EMBEDDING, DENSE = 10 * 4, 8 * 10 + 10


@pytest.mark.parametrize(
    ("parts", "recurrent"),
    [
        ({}, (4 + 8 + 2) * 24),
        ({"cell": "lstm", "num_layers": 2}, (4 + 8 + 1) * 32 + (8 + 8 + 1) * 32),
        ({"cell": "rnn", "num_layers": 2, "layer_norm": True}, 13 * 8 + 17 * 8 + 2 * 8),
        ({"cell": "lstm", "output_gate": True}, 13 * 32 + 13 * 8),
        ({"cell": "lstm", "initial_state": "learned"}, 13 * 32 + 16),
    ],
    ids=str,
)
def test_parameters_are_those_counted_by_hand(parts, recurrent):
    assert num_parameters(ModelConfig(**SMALL | parts), 10) == EMBEDDING + recurrent + DENSE


@pytest.mark.parametrize(
    ("parts", "per_token"),
    [
        ({}, 72 * 8),
        ({"num_layers": 3}, 72 * 8 * 3),
        ({"cell": "lstm", "num_layers": 2}, 84 * 8 * 2),
        ({"cell": "rnn"}, 30 * 8),
    ],
    ids=str,
)
@pytest.mark.parametrize("tokens", [0, 1, 640])
def test_bytes_are_five_copies_of_the_weights_and_those_of_each_token(parts, per_token, tokens):
    config = ModelConfig(**SMALL | parts)
    weights = 5 * 4 * num_parameters(config, 10)
    assert training_bytes(config, 10, tokens) == weights + tokens * (per_token + 16 * 10)


def test_a_model_is_accepted_up_to_the_last_byte_of_its_estimate():
    config = ModelConfig(**SMALL)
    needed = training_bytes(config, 10, 32 * 64)
    require_memory(config, 10, batch_size=32, seq_len=64, available=needed)
    with pytest.raises(DeviceError):
        require_memory(config, 10, batch_size=32, seq_len=64, available=needed - 1)


@pytest.mark.parametrize(
    ("hidden_size", "batch_size", "settings"),
    [(8, 10_000_000, "`batch_size` or `seq_len`"), (99_999, 1, "`hidden_size`")],
)
def test_the_error_gives_both_sizes_and_the_setting_to_lower(hidden_size, batch_size, settings):
    config = ModelConfig(hidden_size=hidden_size)
    gib = training_bytes(config, 66, batch_size * 100) / 2**30
    expected = (
        "Training must fit in the free memory, 8.0 GiB. Received: "
        f"`batch_size` {batch_size} and `seq_len` 100, which need about {gib:.1f} GiB. "
        f"Lower {settings}."
    )
    with pytest.raises(DeviceError, match=f"^{re.escape(expected)}$"):
        require_memory(config, 66, batch_size=batch_size, seq_len=100, available=2**33)

"""The estimate of memory, against counts and against its own message."""

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
)
def test_parameters_are_counted_as_the_model_has_them(parts):
    config = ModelConfig(**{"embedding_dim": 5, "hidden_size": 7} | parts)
    model = build_language_model(config, 11)
    trained = sum(variable.shape.num_elements() for variable in model.trainable_variables)
    assert num_parameters(config, 11) == trained


def test_the_estimate_grows_with_the_batch_and_with_the_model():
    small, large = ModelConfig(hidden_size=64), ModelConfig(hidden_size=128)
    assert training_bytes(small, 66, 100) < training_bytes(small, 66, 200)
    assert training_bytes(small, 66, 100) < training_bytes(large, 66, 100)


@pytest.mark.parametrize(
    "hidden_size, batch_size, flag", [(8, 10_000_000, "--batch-size"), (99_999, 1, "--hidden-size")]
)
def test_what_is_too_large_is_refused_with_the_setting_to_lower(hidden_size, batch_size, flag):
    config = ModelConfig(hidden_size=hidden_size)
    sizes = {"batch_size": batch_size, "seq_len": 100, "available": 2**33}
    with pytest.raises(DeviceError, match=f"batch_size {batch_size}.*GiB.*{flag}"):
        require_memory(config, 66, **sizes)
    require_memory(ModelConfig(), 66, batch_size=64, seq_len=100, available=2**33)

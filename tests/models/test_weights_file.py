"""The file of the weights: round trips bit for bit, and refusal of damaged or foreign files."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from tests.builders import make_weights
from textgen.errors import RunError
from textgen.models.weights import ModelWeights
from textgen.models.weights_file import load_weights, serialize_weights

TOKENIZER = "f" * 64


@pytest.fixture
def weights():
    return make_weights(7, 5, 4, 2)


@pytest.fixture
def file(tmp_path, weights):
    path = tmp_path / "model.safetensors"
    path.write_bytes(serialize_weights(weights, TOKENIZER))
    return path


@pytest.mark.parametrize("num_layers", [1, 3])
def test_stored_weights_are_loaded_bit_for_bit(tmp_path, num_layers):
    weights = make_weights(7, 5, 4, num_layers)
    path = tmp_path / "model.safetensors"
    path.write_bytes(serialize_weights(weights, TOKENIZER))
    loaded = load_weights(path, TOKENIZER).to_tensors()
    assert list(loaded) == list(weights.to_tensors())
    for name, array in weights.to_tensors().items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == np.float32


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_every_part_of_a_model_is_loaded(tmp_path, cell):
    parts = {"output_gate": True, "residual": True, "layer_norm": True, "initial_state": True}
    weights = make_weights(7, 5, 4, 2, cell=cell, **parts)
    path = tmp_path / "model.safetensors"
    path.write_bytes(serialize_weights(weights, TOKENIZER))
    loaded = load_weights(path, TOKENIZER)
    assert (loaded.cell, loaded.residual, loaded.is_plain) == (cell, True, False)
    assert loaded.layers[0].norm is None
    tensors = loaded.to_tensors()
    assert list(tensors) == list(weights.to_tensors())
    for name, array in weights.to_tensors().items():
        np.testing.assert_array_equal(tensors[name], array)


def test_the_metadata_of_a_plain_model_are_schema_and_hashes(file):
    with safe_open(file, framework="numpy") as opened:
        assert set(opened.metadata()) == {"schema_version", "tokenizer_sha256", "tensors_sha256"}
        assert opened.metadata()["schema_version"] == "1"


def test_header_keys_are_sorted_and_tensors_begin_at_a_multiple_of_eight_bytes(file):
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    keys = list(json.loads(content[8 : 8 + size]))
    assert keys == sorted(keys)


def test_equal_weights_give_equal_bytes(weights):
    again = make_weights(7, 5, 4, 2)
    assert serialize_weights(weights, TOKENIZER) == serialize_weights(again, TOKENIZER)


def test_a_flipped_bit_is_detected_anywhere_in_the_file(file):
    content = file.read_bytes()
    for position in range(0, len(content), 13):
        damaged = bytearray(content)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(RunError):
            load_weights(file, TOKENIZER)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, -1])
def test_a_truncated_file_is_refused(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(RunError, match="damaged"):
        load_weights(file, TOKENIZER)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RunError, match=r"No weights at .*nothing\.safetensors"):
        load_weights(tmp_path / "nothing.safetensors", TOKENIZER)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(RunError, match="a regular file, not a directory"):
        load_weights(tmp_path, TOKENIZER)


def test_weights_of_another_tokenizer_are_refused(file):
    with pytest.raises(RunError, match=r"sha256 ffffffffffff….* Received: sha256 000000000000…"):
        load_weights(file, "0" * 64)


def rewrite_metadata(file, **changes):
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def test_a_newer_schema_is_refused_with_the_way_out(file):
    rewrite_metadata(file, schema_version="2")
    with pytest.raises(RunError, match=r"at most 1\. Received: 2\. .*upgrade"):
        load_weights(file, TOKENIZER)


def test_a_file_of_another_program_is_refused(tmp_path, weights):
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(weights.to_tensors()))
    with pytest.raises(RunError, match="no schema_version"):
        load_weights(path, TOKENIZER)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_stored_nor_loaded(
    weights, value, tmp_path, monkeypatch
):
    bias = weights.layers[1].bias.copy()
    bias[0, 3] = value
    tensors = weights.to_tensors() | {"gru_1.bias": bias}
    broken = ModelWeights.from_tensors(tensors)
    with pytest.raises(RunError, match=r"NaN or infinity in gru_1\.bias"):
        serialize_weights(broken, TOKENIZER)
    path = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("textgen.models.weights_file._require_finite", lambda tensors: None)
        path.write_bytes(serialize_weights(broken, TOKENIZER))
    with pytest.raises(RunError, match=r"NaN or infinity in gru_1\.bias"):
        load_weights(path, TOKENIZER)

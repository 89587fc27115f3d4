import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save

from textgen.errors import RunError
from textgen.models.weights import GruWeights, ModelWeights, load_weights, serialize_weights

TOKENIZER = "f" * 64


def make_tensors(vocab_size=7, embedding_dim=5, hidden_size=4, num_layers=2):
    shapes = {"embedding": (vocab_size, embedding_dim)}
    for index in range(num_layers):
        inputs = hidden_size if index else embedding_dim
        shapes[f"gru_{index}.kernel"] = (inputs, 3 * hidden_size)
        shapes[f"gru_{index}.recurrent_kernel"] = (hidden_size, 3 * hidden_size)
        shapes[f"gru_{index}.bias"] = (2, 3 * hidden_size)
    shapes |= {"dense.kernel": (hidden_size, vocab_size), "dense.bias": (vocab_size,)}
    draw = np.random.default_rng(0).standard_normal
    return {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def weights():
    return ModelWeights.from_tensors(make_tensors())


@pytest.fixture
def file(tmp_path, weights):
    path = tmp_path / "model.safetensors"
    path.write_bytes(serialize_weights(weights, TOKENIZER))
    return path


@pytest.mark.parametrize("num_layers", [1, 3])
def test_what_is_stored_comes_back_bit_for_bit(tmp_path, num_layers):
    weights = ModelWeights.from_tensors(make_tensors(num_layers=num_layers))
    path = tmp_path / "model.safetensors"
    path.write_bytes(serialize_weights(weights, TOKENIZER))
    loaded = load_weights(path, TOKENIZER).to_tensors()
    assert list(loaded) == list(weights.to_tensors())
    for name, array in weights.to_tensors().items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == np.float32


def test_equal_weights_give_equal_bytes(weights):
    again = ModelWeights.from_tensors(make_tensors())
    assert serialize_weights(weights, TOKENIZER) == serialize_weights(again, TOKENIZER)


def test_sizes_are_read_off_the_shapes(weights):
    assert (weights.vocab_size, weights.embedding_dim) == (7, 5)
    assert (weights.hidden_size, weights.num_layers) == (4, 2)
    first = 5 * 12 + 4 * 12 + 2 * 12
    second = 4 * 12 + 4 * 12 + 2 * 12
    assert weights.num_parameters == 7 * 5 + first + second + 4 * 7 + 7


def test_weights_cannot_be_written_into(weights):
    with pytest.raises(ValueError, match="read-only"):
        weights.gru[0].kernel[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        weights.embedding = weights.embedding


def test_every_flipped_byte_is_noticed(file):
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
    with pytest.raises(RunError, match="No weights at"):
        load_weights(tmp_path, TOKENIZER)


def test_weights_of_another_tokenizer_are_refused(file):
    with pytest.raises(RunError, match="belong to the tokenizer"):
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


def test_a_file_of_another_program_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(make_tensors()))
    with pytest.raises(RunError, match="no schema version"):
        load_weights(path, TOKENIZER)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_stored_nor_loaded(
    weights, value, tmp_path, monkeypatch
):
    tensors = make_tensors()
    tensors["gru_1.bias"][0, 3] = value
    broken = ModelWeights.from_tensors(tensors)
    with pytest.raises(RunError, match=r"NaN or infinity in gru_1\.bias"):
        serialize_weights(broken, TOKENIZER)
    path = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("textgen.models.weights._require_finite", lambda tensors: None)
        path.write_bytes(serialize_weights(broken, TOKENIZER))
    with pytest.raises(RunError, match=r"NaN or infinity in gru_1\.bias"):
        load_weights(path, TOKENIZER)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("embedding", np.zeros((7, 6), np.float32)),
        ("embedding", np.zeros((8, 5), np.float32)),
        ("embedding", np.zeros((7, 5), np.float64)),
        ("embedding", np.zeros(7, np.float32)),
        ("gru_0.bias", np.zeros((1, 12), np.float32)),
        ("gru_1.kernel", np.zeros((5, 12), np.float32)),
        ("gru_0.recurrent_kernel", np.zeros((4, 11), np.float32)),
        ("dense.kernel", np.zeros((5, 7), np.float32)),
        ("dense.bias", np.zeros(6, np.float32)),
        ("gru_7.bias", np.zeros((2, 12), np.float32)),
        ("dense.bias", None),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(name, array):
    tensors = make_tensors() | {name: array}
    with pytest.raises(RunError, match="Received"):
        ModelWeights.from_tensors(
            {key: value for key, value in tensors.items() if value is not None}
        )


def test_a_model_without_layers_is_refused(weights):
    with pytest.raises(RunError, match="at least 1 GRU layer"):
        dataclasses.replace(weights, gru=())


def test_layers_of_different_sizes_are_refused(weights):
    wide = GruWeights(
        kernel=np.zeros((4, 15), np.float32),
        recurrent_kernel=np.zeros((5, 15), np.float32),
        bias=np.zeros((2, 15), np.float32),
    )
    with pytest.raises(RunError, match=r"gru_1\.kernel"):
        dataclasses.replace(weights, gru=(weights.gru[0], wide))

"""Weights as arrays: shapes, names, what they contradict in a configuration, and their file."""

import dataclasses
import json
import re

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from textgen.config import ModelConfig
from textgen.errors import RunError
from textgen.models.weights import (
    GATES,
    LayerWeights,
    ModelWeights,
    NormWeights,
    OutputGateWeights,
)
from textgen.models.weights_file import load_weights, serialize_weights

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


def make_full_weights(cell="lstm", hidden_size=4, num_layers=2):
    """A model with every part that a model can have."""
    draw = np.random.default_rng(1).standard_normal

    def array(*shape):
        return draw(shape).astype(np.float32)

    width, layers = len(GATES[cell]) * hidden_size, []
    for index in range(num_layers):
        inputs = hidden_size if index else 5
        gate = OutputGateWeights(
            input_kernel=array(inputs, hidden_size),
            recurrent_kernel=array(hidden_size, hidden_size),
            bias=array(hidden_size),
        )
        layer = LayerWeights(
            input_kernel=array(inputs, width),
            recurrent_kernel=array(hidden_size, width),
            bias=array(2 if cell == "gru" else 1, width),
            output_gate=gate,
            norm=NormWeights(scale=array(inputs), offset=array(inputs)) if index else None,
        )
        layers.append(layer)
    return ModelWeights(
        embedding=array(7, 5),
        layers=tuple(layers),
        dense_kernel=array(hidden_size, 7),
        dense_bias=array(7),
        residual=True,
        learned_initial_state=array(num_layers, layers[0].state_size),
    )


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


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_every_part_of_a_model_comes_back(tmp_path, cell):
    weights = make_full_weights(cell)
    path = tmp_path / "model.safetensors"
    path.write_bytes(serialize_weights(weights, TOKENIZER))
    loaded = load_weights(path, TOKENIZER)
    assert (loaded.cell, loaded.residual, loaded.is_plain) == (cell, True, False)
    assert loaded.layers[0].norm is None
    np.testing.assert_array_equal(
        loaded.layers[1].output_gate.input_kernel, weights.layers[1].output_gate.input_kernel
    )
    np.testing.assert_array_equal(loaded.layers[1].norm.offset, weights.layers[1].norm.offset)
    np.testing.assert_array_equal(loaded.learned_initial_state, weights.learned_initial_state)
    tensors = loaded.to_tensors()
    assert list(tensors) == list(weights.to_tensors())
    for name, array in weights.to_tensors().items():
        np.testing.assert_array_equal(tensors[name], array)


def test_a_gru_of_before_has_the_names_and_metadata_of_before(file, weights):
    assert set(weights.to_tensors()) == set(make_tensors())
    with safe_open(file, framework="numpy") as opened:
        assert set(opened.metadata()) == {"schema_version", "tokenizer_sha256", "tensors_sha256"}
        assert opened.metadata()["schema_version"] == "1"
    loaded = load_weights(file, TOKENIZER)
    assert (loaded.cell, loaded.state_size, loaded.is_plain) == ("gru", 4, True)
    np.testing.assert_array_equal(loaded.initial_state(3), np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    "name",
    [
        "lstm_0.output_gate.kernel",
        "lstm_1.output_gate.recurrent_kernel",
        "lstm_1.output_gate.bias",
        "lstm_1.norm.scale",
        "lstm_1.norm.offset",
        "lstm_1.recurrent_kernel",
    ],
)
def test_a_missing_part_of_a_group_is_refused_by_its_name(name):
    tensors = make_full_weights().to_tensors()
    del tensors[name]
    with pytest.raises(RunError, match=rf"Received: {re.escape(name)} missing or unknown"):
        ModelWeights.from_tensors(tensors)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lstm_1.output_gate.kernel", (5, 4)),
        ("lstm_0.output_gate.recurrent_kernel", (4, 5)),
        ("lstm_0.output_gate.bias", (5,)),
        ("lstm_1.norm.scale", (5,)),
        ("lstm_1.norm.offset", (5,)),
        ("first_state", (2, 4)),
        ("first_state", (1, 8)),
        ("lstm_1.bias", (2, 16)),
    ],
)
def test_parts_of_another_shape_are_refused(name, shape):
    tensors = make_full_weights().to_tensors() | {name: np.zeros(shape, np.float32)}
    with pytest.raises(RunError, match="Received"):
        ModelWeights.from_tensors(tensors)


@pytest.mark.parametrize(("cell", "state_size"), [("gru", 4), ("lstm", 8), ("rnn", 4)])
def test_a_text_begins_with_the_learnt_state_in_every_row(cell, state_size):
    weights = make_full_weights(cell)
    state = weights.initial_state(3)
    assert state.shape == (2, 3, state_size)
    for row in range(3):
        np.testing.assert_array_equal(state[:, row], weights.learned_initial_state)
    assert weights.state_size == weights.layers[0].state_size == state_size


@pytest.mark.parametrize(
    ("change", "is_plain"),
    [
        ({"learned_initial_state": None}, False),
        ({"residual": False}, False),
        ({"output_gate": None}, False),
        ({"residual": False, "output_gate": None}, False),
        ({"residual": False, "output_gate": None, "norm": None}, True),
    ],
)
def test_a_model_is_plain_where_every_layer_reads_the_h_below_it(change, is_plain):
    weights = make_full_weights()
    of_layers = {name: change[name] for name in ("output_gate", "norm") if name in change}
    layers = tuple(dataclasses.replace(layer, **of_layers) for layer in weights.layers)
    others = {name: value for name, value in change.items() if name not in of_layers}
    assert dataclasses.replace(weights, layers=layers, **others).is_plain == is_plain


FULL_CONFIG = ModelConfig(
    embedding_dim=5,
    hidden_size=4,
    num_layers=2,
    cell="lstm",
    output_gate=True,
    residual=True,
    layer_norm=True,
    initial_state="learned",
    dropout=0.0,
)


def test_the_configuration_is_read_off_the_weights(weights):
    assert make_full_weights().to_config() == FULL_CONFIG
    plain = ModelConfig(embedding_dim=5, hidden_size=4, num_layers=2, dropout=0.0)
    assert weights.to_config() == plain
    # `ModelConfig` rejects a residual connection in a model of a single layer.
    single = ModelWeights.from_tensors(make_tensors(num_layers=1), residual=True)
    assert single.to_config() == dataclasses.replace(plain, num_layers=1)


def test_weights_match_a_configuration_whatever_its_dropout_and_ties():
    assert make_full_weights().mismatches(FULL_CONFIG) == []
    config = dataclasses.replace(FULL_CONFIG, dropout=0.5, weight_drop=0.2, forget_bias=1.0)
    assert make_full_weights().mismatches(config) == []
    square = ModelWeights.from_tensors(make_tensors(embedding_dim=4))
    for tied in (False, True):
        tied_config = ModelConfig(
            embedding_dim=4, hidden_size=4, num_layers=2, tie_weights=tied, dropout=0.3
        )
        assert square.mismatches(tied_config) == []


@pytest.mark.parametrize(
    ("change", "phrases"),
    [
        ({"cell": "gru"}, ["`cell` is gru in the configuration, lstm in the weights"]),
        (
            {"embedding_dim": 6, "hidden_size": 8},
            [
                "`embedding_dim` is 6 in the configuration, 5 in the weights",
                "`hidden_size` is 8 in the configuration, 4 in the weights",
            ],
        ),
        ({"num_layers": 3}, ["`num_layers` is 3 in the configuration, 2 in the weights"]),
        ({"residual": False}, ["`residual` is False in the configuration, True in the weights"]),
        (
            {"initial_state": "zeros"},
            ["`initial_state` is zeros in the configuration, learned in the weights"],
        ),
        (
            {"output_gate": False},
            [
                f"`output_gate` of layer {i} is False in the configuration, True in the weights"
                for i in (0, 1)
            ],
        ),
        (
            {"layer_norm": False},
            ["`layer_norm` of layer 1 is False in the configuration, True in the weights"],
        ),
    ],
    ids=str,
)
def test_each_setting_that_the_weights_contradict_is_named(change, phrases):
    assert make_full_weights().mismatches(dataclasses.replace(FULL_CONFIG, **change)) == phrases


def test_a_part_that_only_some_layers_have_is_a_mismatch():
    weights = make_full_weights()
    first, last = weights.layers
    bare = dataclasses.replace(first, output_gate=None)
    half = dataclasses.replace(weights, layers=(bare, last))
    assert half.mismatches(FULL_CONFIG) == [
        "`output_gate` of layer 0 is True in the configuration, False in the weights"
    ]


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
        weights.layers[0].input_kernel[0, 0] = 1.0
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
        patch.setattr("textgen.models.weights_file._require_finite", lambda tensors: None)
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
    with pytest.raises(RunError, match="at least 1 recurrent layer"):
        dataclasses.replace(weights, layers=())


def test_layers_of_different_sizes_are_refused(weights):
    wide = LayerWeights(
        input_kernel=np.zeros((4, 15), np.float32),
        recurrent_kernel=np.zeros((5, 15), np.float32),
        bias=np.zeros((2, 15), np.float32),
    )
    with pytest.raises(RunError, match=r"gru_1\.kernel"):
        dataclasses.replace(weights, layers=(weights.layers[0], wide))

"""Weights as arrays: shapes, names, sizes, and mismatches with a configuration."""

import dataclasses
import re

import numpy as np
import pytest

from tests.builders import make_weights
from textgen.config import ModelConfig
from textgen.errors import RunError
from textgen.models.weights import LayerWeights, ModelWeights


def make_plain_weights(embedding_dim=5, num_layers=2):
    """A GRU with a vocabulary of 7 and 4 units."""
    return make_weights(7, embedding_dim, 4, num_layers)


def make_full_weights(cell="lstm"):
    """A model with every part that a model can have."""
    return make_weights(
        7, 5, 4, 2, cell=cell, output_gate=True, residual=True, layer_norm=True, initial_state=True
    )


@pytest.fixture
def weights():
    return make_plain_weights()


def test_tensors_have_the_names_and_shapes_of_keras(weights):
    shapes = {name: array.shape for name, array in weights.to_tensors().items()}
    assert shapes == {
        "embedding": (7, 5),
        "gru_0.kernel": (5, 12),
        "gru_0.recurrent_kernel": (4, 12),
        "gru_0.bias": (2, 12),
        "gru_1.kernel": (4, 12),
        "gru_1.recurrent_kernel": (4, 12),
        "gru_1.bias": (2, 12),
        "dense.kernel": (4, 7),
        "dense.bias": (7,),
    }


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_from_tensors_is_the_inverse_of_to_tensors(cell):
    weights = make_full_weights(cell)
    tensors = weights.to_tensors()
    again = ModelWeights.from_tensors(tensors, residual=True)
    assert list(again.to_tensors()) == list(tensors)
    for name, array in again.to_tensors().items():
        np.testing.assert_array_equal(array, tensors[name])
    assert (again.cell, again.residual, again.is_plain) == (cell, True, False)


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
def test_the_initial_state_is_the_learned_one_in_every_row(cell, state_size):
    weights = make_full_weights(cell)
    state = weights.initial_state(3)
    assert state.shape == (2, 3, state_size)
    for row in range(3):
        np.testing.assert_array_equal(state[:, row], weights.learned_initial_state)
    assert weights.state_size == weights.layers[0].state_size == state_size


def test_the_initial_state_is_zero_unless_it_is_learned(weights):
    np.testing.assert_array_equal(weights.initial_state(3), np.zeros((2, 3, 4), np.float32))
    assert weights.initial_state(3).dtype == np.float32


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
def test_a_model_is_plain_if_every_layer_reads_the_h_below_it(change, is_plain):
    weights = make_full_weights()
    layer_parts = {name: change[name] for name in ("output_gate", "norm") if name in change}
    layers = tuple(dataclasses.replace(layer, **layer_parts) for layer in weights.layers)
    others = {name: value for name, value in change.items() if name not in layer_parts}
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


def test_the_configuration_follows_from_the_weights(weights):
    assert make_full_weights().to_config() == FULL_CONFIG
    plain = ModelConfig(embedding_dim=5, hidden_size=4, num_layers=2, dropout=0.0)
    assert weights.to_config() == plain
    # `ModelConfig` rejects a residual connection in a model of a single layer.
    single = dataclasses.replace(make_plain_weights(num_layers=1), residual=True)
    assert single.to_config() == dataclasses.replace(plain, num_layers=1)


def test_weights_match_a_configuration_with_any_dropout_and_ties():
    assert make_full_weights().mismatches(FULL_CONFIG) == []
    config = dataclasses.replace(FULL_CONFIG, dropout=0.5, weight_drop=0.2, forget_bias=1.0)
    assert make_full_weights().mismatches(config) == []
    square = make_plain_weights(embedding_dim=4)
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


def test_sizes_follow_from_the_shapes(weights):
    assert (weights.vocab_size, weights.embedding_dim) == (7, 5)
    assert (weights.hidden_size, weights.num_layers) == (4, 2)
    first = 5 * 12 + 4 * 12 + 2 * 12
    second = 4 * 12 + 4 * 12 + 2 * 12
    assert weights.num_parameters == 7 * 5 + first + second + 4 * 7 + 7


def test_weights_are_read_only(weights):
    with pytest.raises(ValueError, match="read-only"):
        weights.layers[0].input_kernel[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        weights.embedding = weights.embedding


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
    tensors = make_plain_weights().to_tensors() | {name: array}
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

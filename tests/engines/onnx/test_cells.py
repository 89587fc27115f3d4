"""One step of every cell as ONNX nodes, against the reference equations."""

import numpy as np
import pytest

from tests.builders import assert_close, run_block
from textgen.engines.onnx.blocks import Block, Constants
from textgen.engines.onnx.cells import (
    input_matrix,
    layer_step,
    part_widths,
    recurrent_matrix,
    state_widths,
)
from textgen.engines.reference_engine import layer_step as reference_step


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("output_gate", [False, True])
def test_a_step_equals_the_reference(random_weights, cell, output_gate):
    layer = random_weights(cell=cell, output_gate=output_gate).layers[0]
    random = np.random.default_rng(1)
    x = random.uniform(-1, 1, (3, 5)).astype(np.float32)
    state = random.uniform(-0.9, 0.9, (3, layer.state_size)).astype(np.float32)
    kernel, bias = input_matrix(layer)
    recurrent_kernel, recurrent_bias = recurrent_matrix(layer)
    products = {
        "inputs": x @ kernel + bias,
        "recurrent": state[:, :6] @ recurrent_kernel + recurrent_bias,
        "state": state,
    }
    block = Block(Constants())
    output, next_state = layer_step(
        block,
        layer,
        block.split("inputs", part_widths(layer)),
        block.split("recurrent", part_widths(layer)),
        block.split("state", state_widths(layer)),
    )
    names = list(dict.fromkeys([output, *next_state]))
    arrays = dict(zip(names, run_block(block, products, names), strict=True))
    expected, expected_state = reference_step(layer, x, state)
    assert_close(arrays[output], expected)
    assert_close(np.concatenate([arrays[name] for name in next_state], axis=-1), expected_state)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("output_gate", [False, True])
def test_widths_add_up_to_those_of_matrices_and_state(random_weights, cell, output_gate):
    layer = random_weights(cell=cell, output_gate=output_gate).layers[0]
    (kernel, bias), (recurrent, recurrent_bias) = input_matrix(layer), recurrent_matrix(layer)
    width = sum(part_widths(layer))
    assert kernel.shape == (5, width)
    assert recurrent.shape == (6, width)
    assert bias.shape == recurrent_bias.shape == (width,)
    assert sum(state_widths(layer)) == layer.state_size

"""The NumPy engine: chunks, table and memory. `test_base` tests the contract of an engine."""

import tracemalloc

import numpy as np
import pytest

from tests.builders import assert_close
from textgen.engines import common
from textgen.engines.numpy_engine import NumpyEngine

TOKENS = np.random.default_rng(7).integers(0, 9, (3, 11)).astype(np.int32)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("more", [{}, {"output_gate": True, "residual": True}], ids=str)
def test_prefill_in_chunks_equals_one_pass(random_weights, monkeypatch, cell, more):
    engine = NumpyEngine(random_weights(num_layers=2, cell=cell, **more))
    whole = engine.forward(TOKENS, engine.initial_state(3))
    monkeypatch.setattr(common, "MAX_CHUNK_VALUES", 4 * 3 * 18)
    chunked = engine.forward(TOKENS, engine.initial_state(3))
    assert_close(chunked[0], whole[0])
    assert_close(chunked[1], whole[1])
    assert_close(engine.prefill(TOKENS, engine.initial_state(3))[0], whole[0][:, -1])


def test_a_vocabulary_too_large_for_a_table_gives_the_same_logits(random_weights, monkeypatch):
    weights = random_weights()
    with_table = NumpyEngine(weights)
    monkeypatch.setattr(common, "MAX_TABLE_FLOPS", 0)
    without = NumpyEngine(weights)
    assert_close(
        without.forward(TOKENS, without.initial_state(3))[0],
        with_table.forward(TOKENS, with_table.initial_state(3))[0],
    )


def test_prefill_needs_no_more_memory_for_a_longer_prompt(random_weights, monkeypatch):
    monkeypatch.setattr(common, "MAX_CHUNK_VALUES", 18 * 256)
    engine = NumpyEngine(random_weights(num_layers=2))
    peaks = []
    for length in (1_000, 1_000, 8_000):
        prompt, state = np.ones((1, length), np.int32), engine.initial_state(1)
        tracemalloc.start()
        engine.prefill(prompt, state)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 8_192

"""The TensorFlow engine: prompts in chunks. `test_base` tests the contract of an engine."""

import numpy as np

from tests.builders import assert_close
from textgen.engines import tensorflow_engine
from textgen.engines.tensorflow_engine import TensorFlowEngine


def test_prefill_in_chunks_equals_one_pass(random_weights, monkeypatch):
    tokens = np.random.default_rng(7).integers(0, 9, (2, 11)).astype(np.int32)
    engine = TensorFlowEngine(random_weights(num_layers=2, cell="lstm"))
    logits, state = engine.forward(tokens, engine.initial_state(2))
    monkeypatch.setattr(tensorflow_engine, "_PREFILL_STEPS", 4)
    last_logits, last_state = engine.prefill(tokens, engine.initial_state(2))
    assert_close(last_logits, logits[:, -1])
    assert_close(last_state, state)

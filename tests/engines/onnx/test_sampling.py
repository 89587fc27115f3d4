"""The draw of a token as ONNX nodes, against the processors and `pick` in NumPy."""

from dataclasses import replace

import numpy as np
import pytest

from tests.builders import draw, run_block
from textgen.config import SamplingConfig
from textgen.engines.onnx.blocks import Block, Constants
from textgen.engines.onnx.sampling import LoopGraphInputs, draw_token, sampling_values

VOCAB = 40


def draw_in_graph(logits, uniforms, sampling):
    values = sampling_values(sampling, VOCAB)
    graph_inputs = LoopGraphInputs.of(values)
    block = Block(Constants())
    name = draw_token(block, "logits", "uniform", graph_inputs)
    inputs = {"logits": logits, "uniform": uniforms[:, None], **values}
    (token_ids,) = run_block(block, inputs, [name])
    return token_ids


def are_safe(logits, uniforms, sampling):
    """Return the mask of the draws that small changes of `top_p` do not change.

    The mass is a sum of float32 exponentials, which CPUs round differently, by up to 1e-6.
    """
    if sampling.top_p is None:
        return np.ones(len(logits), bool)
    limits = [replace(sampling, top_p=sampling.top_p * (1 + move)) for move in (-1e-5, 1e-5)]
    low, high = (draw(logits, uniforms, limit) for limit in limits)
    return low == high


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {},
        {"temperature": 0.3},
        {"top_k": 7},
        {"top_p": 0.6},
        {"top_p": 1e-9},
        {"min_p": 0.2},
        {"top_k": 9, "top_p": 0.7},
        {"top_k": 30, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=str,
)
def test_every_kind_of_graph_draws_the_tokens_of_numpy(settings):
    random = np.random.default_rng(0)
    # Multiples of a 64th, so that subtractions are exact and ties are common.
    logits = (np.rint(64 * random.normal(0, 2, (500, VOCAB))) / 64).astype(np.float32)
    uniforms = random.random(500)
    sampling = SamplingConfig(**{"temperature": 1.0, **settings})
    token_ids = draw_in_graph(logits, uniforms, sampling)
    safe = are_safe(logits, uniforms, sampling)
    assert safe.sum() >= 495
    np.testing.assert_array_equal(token_ids[safe], draw(logits, uniforms, sampling)[safe])
    if settings != {"temperature": 0.0} and settings.get("top_p") != 1e-9:
        assert len(np.unique(token_ids)) > VOCAB / 2


def test_draws_follow_the_probabilities():
    # With 10,000 evenly spaced uniforms, counts are probabilities.
    probs = np.array([0.1, 0.2, 0.3, 0.4])
    logits = np.full((10_000, VOCAB), -np.inf, np.float32)
    logits[:, [3, 8, 20, 39]] = np.log(probs)
    uniforms = (np.arange(10_000) + 0.5) / 10_000
    token_ids = draw_in_graph(logits, uniforms, SamplingConfig(temperature=1.0))
    counts = np.bincount(token_ids, minlength=VOCAB)
    assert np.abs(counts[[3, 8, 20, 39]] - 10_000 * probs).max() <= 1
    assert counts.sum() == counts[[3, 8, 20, 39]].sum()


def test_filters_that_keep_every_token_need_no_input():
    sampling = SamplingConfig(temperature=0.8, top_k=VOCAB, top_p=1.0)
    assert set(sampling_values(sampling, VOCAB)) == {"temperature"}
    assert set(sampling_values(sampling, VOCAB + 1)) == {"temperature", "top_k"}


@pytest.mark.parametrize("temperature", [1e-300, 1e300])
def test_extreme_temperatures_stay_within_float32(temperature):
    values = sampling_values(SamplingConfig(temperature=temperature), VOCAB)
    assert 0 < values["temperature"] < np.inf

"""Scoring windows and their data set, compared with the tokens of the text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.corpora import scoring_dataset, scoring_windows
from textgen.errors import CorpusError

SCORED = st.tuples(
    st.integers(1, 12_000), st.integers(1, 8), st.integers(0, 300), st.integers(1, 200)
)


@settings(max_examples=40)
@given(SCORED)
def test_every_token_is_predicted_once_from_the_one_before(case):
    num_tokens, max_lanes, warmup, seq_len = case
    tokens = np.arange(num_tokens) + 7
    windows = scoring_windows(tokens, 3, max_lanes, warmup, seq_len)
    counted = windows.weights == 1
    assert sorted(windows.targets[counted].tolist()) == tokens.tolist()
    before = np.concatenate([[3], tokens[:-1]])
    assert np.array_equal(windows.token_ids[counted], before[windows.targets[counted] - 7])
    assert windows.weights.sum() == num_tokens
    assert set(np.unique(windows.weights)) <= {0.0, 1.0}
    assert windows.restart.tolist() == [True] + [False] * (len(windows.restart) - 1)


@settings(max_examples=40)
@given(SCORED)
def test_every_scored_token_is_read_after_its_context(case):
    num_tokens, max_lanes, warmup, seq_len = case
    tokens = np.arange(num_tokens)
    windows = scoring_windows(tokens, -1, max_lanes, warmup, seq_len)
    lanes = windows.token_ids.swapaxes(0, 1).reshape(windows.num_lanes, -1)
    weights = windows.weights.swapaxes(0, 1).reshape(windows.num_lanes, -1)
    assert windows.num_lanes == max(1, min(num_tokens // 2048, max_lanes))
    for lane, weight in zip(lanes, weights, strict=True):
        counted = np.flatnonzero(weight)
        first, last = counted[0], counted[-1]
        assert np.array_equal(lane[: last + 1], lane[0] + np.arange(last + 1))
        assert lane[0] == -1 or first >= warmup
        assert weight[first : last + 1].all()


def test_a_short_text_is_one_exact_pass():
    tokens = np.arange(300)
    windows = scoring_windows(tokens, -1)
    assert windows.token_ids.shape == (3, 1, 128)
    assert np.array_equal(windows.token_ids.ravel()[:300], tokens - 1)
    assert np.array_equal(windows.targets.ravel()[:300], tokens)
    assert np.array_equal(windows.weights.ravel(), np.arange(384) < 300)


def test_a_text_without_tokens_is_an_error():
    with pytest.raises(CorpusError, match="at least 1 token"):
        scoring_windows(np.array([], np.uint8), 0)


def test_the_dataset_contains_the_scoring_windows():
    tokens = np.random.default_rng(1).integers(0, 99, 9_000).astype(np.uint8)
    windows = scoring_windows(tokens, 5)
    dataset, lanes = scoring_dataset(tokens, 5)
    elements = list(dataset.as_numpy_iterator())
    assert lanes == windows.num_lanes == 4
    assert len(elements) == len(windows.restart)
    for i, (inputs, targets, weights) in enumerate(elements):
        assert np.array_equal(inputs["token_ids"], windows.token_ids[i])
        assert inputs["restart"] == windows.restart[i]
        assert np.array_equal(targets, windows.targets[i])
        assert np.array_equal(weights, windows.weights[i])

"""Processors, compared with those of Hugging Face transformers (`requirements-bench.txt`)."""

import numpy as np
import pytest

from textgen.sampling import (
    forbid_repeated_ngrams,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    penalize_repetition,
)

torch = pytest.importorskip("torch", reason="pip install -r requirements-bench.txt")
transformers = pytest.importorskip("transformers", reason="pip install -r requirements-bench.txt")

ROWS = 1000
VOCAB = 50


@pytest.fixture(scope="module")
def logits():
    """Rows from almost flat to almost certain, without equal logits in a row."""
    rng = np.random.default_rng(7)
    rows = rng.normal(0, 1, (ROWS, VOCAB)) * rng.uniform(0.2, 5, (ROWS, 1))
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def history():
    """Full windows of few tokens, so that n-grams repeat; transformers has no "none"."""
    return np.random.default_rng(8).integers(0, 6, (ROWS, 30)).astype(np.int32)


def theirs(processor, logits, history=None):
    history = np.zeros((len(logits), 1), np.int32) if history is None else history
    token_ids = torch.from_numpy(history.astype(np.int64))
    return processor(token_ids, torch.from_numpy(logits.copy())).numpy()


def assert_same_mass_filter(ours, other, logits, p, rank):
    """Assert that the kept sets are equal, except for a mass that float32 cannot tell from `p`.

    A mass of `p * (1 - 1e-6)` counts as `p` here; transformers has no tolerance. If the mass
    before a token, in float64, is that near to `p`, transformers may keep one token more.
    """
    probs = np.exp(logits.astype(np.float64))
    probs /= probs.sum(axis=-1, keepdims=True)
    order = np.argsort(rank(probs), axis=-1)
    ordered = np.take_along_axis(probs, order, axis=-1)
    mass_before = ordered.cumsum(axis=-1) - ordered
    near = (np.abs(mass_before - p) <= 2e-6).any(axis=-1)
    assert near.sum() <= ROWS // 200
    np.testing.assert_array_equal(ours[~near], other[~near])
    kept, kept_there = np.isfinite(ours[near]), np.isfinite(other[near])
    assert np.all(kept <= kept_there)
    assert np.all((kept_there ^ kept).sum(axis=-1) <= 1)


def by_probability(probs):
    return -probs


def by_distance_to_entropy(probs):
    return np.abs(np.log(probs) - (probs * np.log(probs)).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("k", [1, 7, 40, 50, 60])
def test_top_k_agrees(logits, k):
    processor = transformers.TopKLogitsWarper(k)
    np.testing.assert_array_equal(keep_top_k(logits, k), theirs(processor, logits))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.99])
def test_top_p_agrees(logits, p):
    ours, other = keep_top_p(logits, p), theirs(transformers.TopPLogitsWarper(p), logits)
    assert_same_mass_filter(ours, other, logits, p, by_probability)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 1.0])
def test_min_p_agrees(logits, p):
    processor = transformers.MinPLogitsWarper(p)
    np.testing.assert_array_equal(keep_min_p(logits, p), theirs(processor, logits))


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9, 0.99])
def test_typical_agrees(logits, p):
    ours, other = keep_typical(logits, p), theirs(transformers.TypicalLogitsWarper(p), logits)
    assert_same_mass_filter(ours, other, logits, p, by_distance_to_entropy)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.2, 3.0])
def test_repetition_penalty_agrees(logits, history, penalty):
    processor = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    ours = penalize_repetition(logits, history, penalty)
    np.testing.assert_allclose(ours, theirs(processor, logits, history), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 30, 31])
def test_no_repeat_ngram_agrees(logits, history, n):
    processor = transformers.NoRepeatNGramLogitsProcessor(n)
    ours = forbid_repeated_ngrams(logits, history, n)
    np.testing.assert_array_equal(ours, theirs(processor, logits, history))
    assert n > 4 or not np.array_equal(ours, logits)


# Further differences: ties at a boundary, a rounded ratio, a row without a token left.


def test_ties_at_the_boundary_of_top_k_go_to_the_lower_ids_and_transformers_keeps_all():
    logits = np.array([[1.0, 2.0, 1.0, 1.0]], np.float32)
    assert theirs(transformers.TopKLogitsWarper(2), logits).tolist() == logits.tolist()
    assert keep_top_k(logits, 2).tolist() == [[1.0, 2.0, -np.inf, -np.inf]]


def test_ties_at_the_boundary_of_top_p_go_to_the_lower_ids_and_transformers_keeps_as_many():
    rows = np.random.default_rng(9).integers(-3, 4, (ROWS, 8)).astype(np.float32)
    ours, other = keep_top_p(rows, 0.77), theirs(transformers.TopPLogitsWarper(0.77), rows)
    np.testing.assert_array_equal(np.sort(ours, axis=-1), np.sort(other, axis=-1))
    order = np.argsort(-rows, axis=-1, kind="stable")
    kept = np.isfinite(np.take_along_axis(ours, order, axis=-1))
    assert np.all(kept[:, :-1] >= kept[:, 1:])


def test_equally_typical_ties_go_to_the_lower_ids_and_transformers_keeps_all():
    logits = np.zeros((1, 4), np.float32)
    processor = transformers.TypicalLogitsWarper(0.5)
    assert theirs(processor, logits).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert keep_typical(logits, 0.5).tolist() == [[0.0, 0.0, -np.inf, -np.inf]]


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_transformers_keeps_the_typical_tokens_and_all_their_ties(p):
    rows = np.random.default_rng(10).normal(0, 2, (ROWS, 4)).astype(np.float32)
    rows = np.repeat(rows, 2, axis=-1)  # every logit twice, adjacent
    ours, other = keep_typical(rows, p), theirs(transformers.TypicalLogitsWarper(p), rows)
    twins = np.isfinite(ours).reshape(ROWS, 4, 2)
    np.testing.assert_array_equal(
        np.isfinite(other).reshape(ROWS, 4, 2), twins[..., :1] | [False] * 2
    )
    assert np.all(twins[..., 0] >= twins[..., 1])
    assert (twins[..., 0] > twins[..., 1]).sum(axis=-1).max() == 1


def test_a_ratio_of_exactly_min_p_is_kept_however_float32_rounds_it():
    logits = np.log(np.array([[0.1, 0.3, 0.6]])).astype(np.float32)
    assert np.isfinite(keep_min_p(logits, 0.5)).tolist() == [[False, True, True]]
    assert np.isfinite(keep_min_p(logits, 0.1 / 0.6)).all()
    # transformers compares rounded probabilities: both agree on ratios outside the tolerance.
    for p in (0.5 + 1e-5, 0.5 - 1e-5):
        other = theirs(transformers.MinPLogitsWarper(p), logits)
        np.testing.assert_array_equal(keep_min_p(logits, p), other)


def test_a_row_without_a_token_left_does_not_change_and_is_all_inf_in_transformers():
    logits = np.array([[1.0, 2.0]], np.float32)
    history = np.array([[0, 1]], np.int32)
    processor = transformers.NoRepeatNGramLogitsProcessor(1)
    assert theirs(processor, logits, history).tolist() == [[-np.inf, -np.inf]]
    assert forbid_repeated_ngrams(logits, history, 1).tolist() == [[1.0, 2.0]]

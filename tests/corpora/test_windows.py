"""Lanes, windows and their data sets, against slices of the corpus."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.corpora import (
    LanePlan,
    plan_lanes,
    scoring_dataset,
    scoring_windows,
    training_dataset,
)
from textgen.errors import CorpusError

PLANS = st.builds(
    lambda batch_size, seq_len, lane_len, rest, seed, jitter: LanePlan(
        batch_size * (seq_len + 1 + lane_len) + rest % batch_size,
        batch_size,
        seq_len,
        seed,
        jitter if 4 * jitter < seq_len else 0,
    ),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(0, 60),
    st.integers(0, 5),
    st.integers(0, 2**70),
    st.integers(0, 2),
)


@settings(deadline=None)
@given(PLANS)
def test_every_window_lies_in_its_lane(plan):
    for step in range(3 * plan.steps_per_epoch):
        starts, length, _ = plan.window(step)
        in_lane = starts - np.arange(plan.batch_size) * plan.lane_len
        assert len(starts) == plan.batch_size
        assert (in_lane == in_lane[0]).all()
        assert in_lane[0] >= 0
        assert in_lane[0] + length + 1 <= plan.lane_len
        assert abs(length - plan.seq_len) <= 2 * plan.jitter


@settings(deadline=None)
@given(PLANS)
def test_windows_of_an_epoch_touch_and_only_the_first_restarts(plan):
    per_epoch = plan.steps_per_epoch
    for step in range(2 * per_epoch):
        starts, _, restart = plan.window(step)
        assert restart == (step % per_epoch == 0)
        if not restart:
            before, length, _ = plan.window(step - 1)
            assert (starts - before == length).all()


@settings(deadline=None)
@given(PLANS)
def test_an_epoch_leaves_less_than_two_windows_of_a_lane_unread(plan):
    assert plan.lane_len - plan.steps_per_epoch * plan.seq_len < 2 * plan.seq_len + 1


def test_offsets_vary_with_epoch_and_seed_and_cover_their_range():
    plan = LanePlan(10_000, 4, 10, seed=3)
    offsets = plan.offsets(0, 500)
    assert set(offsets.tolist()) == set(range(plan.max_offset + 1)) == set(range(10))
    counts = np.bincount(offsets)
    assert ((counts - 50.0) ** 2 / 50).sum() < 27.9  # chi-square, 9 degrees, p = 0.001
    assert offsets.tolist() != LanePlan(10_000, 4, 10, seed=4).offsets(0, 500).tolist()


def test_an_offset_depends_on_its_epoch_alone():
    plan = LanePlan(10_000, 4, 10, seed=3)
    whole = plan.offsets(0, 50)
    assert plan.offsets(17, 20).tolist() == whole[17:37].tolist()
    assert [int(plan.offsets(epoch, 1)[0]) for epoch in range(50)] == whole.tolist()


def test_a_short_corpus_gets_fewer_lanes_and_too_short_a_one_an_error():
    assert plan_lanes(1000, 8, 99, 0).batch_size == 8
    assert plan_lanes(799, 8, 99, 0).batch_size == 7
    assert plan_lanes(100, 8, 99, 0).batch_size == 1
    message = r"has 99 tokens.*seq_len \+ 1 = 100.*--seq-len"
    with pytest.raises(CorpusError, match=message):
        plan_lanes(99, 8, 99, 0)
    with pytest.raises(CorpusError, match="--batch-size"):
        LanePlan(799, 8, 99, 0)


def test_jitter_gives_windows_of_every_length_around_the_usual_one():
    plan = LanePlan(100_000, 2, 20, seed=5, jitter=3)
    lengths = [plan.window(step)[1] for step in range(1, 600)]
    assert set(lengths) == set(range(20 - 6, 20 + 7))
    assert np.mean(lengths) == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("jitter", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_the_dataset_gives_the_windows_of_the_plan(dtype, jitter):
    tokens = np.random.default_rng(0).integers(0, 200, 1003).astype(dtype)
    plan = LanePlan(len(tokens), 5, 7, seed=2, jitter=jitter)
    dataset = training_dataset(tokens, plan, 0, 3 * plan.steps_per_epoch)
    elements = list(dataset.as_numpy_iterator())
    assert len(elements) == 3 * plan.steps_per_epoch
    for step, (inputs, targets) in enumerate(elements):
        starts, length, restart = plan.window(step)
        windows = np.stack([tokens[start : start + length + 1] for start in starts])
        assert np.array_equal(inputs["token_ids"], windows[:, :-1])
        assert np.array_equal(targets, windows[:, 1:])
        assert inputs["restart"] == restart
        assert inputs["token_ids"].dtype == targets.dtype == np.int32


def test_the_dataset_has_static_shapes():
    dataset = training_dataset(np.arange(100), LanePlan(100, 4, 5, 0), 0, 10)
    inputs, targets = dataset.element_spec
    assert inputs["token_ids"].shape == targets.shape == (4, 5)
    assert inputs["restart"].shape == ()
    assert dataset.cardinality().numpy() == 10


def test_a_dataset_begun_later_goes_on_as_the_uninterrupted_one():
    tokens = np.arange(500, dtype=np.uint16)
    plan = LanePlan(500, 4, 6, seed=9)
    whole = list(training_dataset(tokens, plan, 0, 60).as_numpy_iterator())
    for first in (0, 1, plan.steps_per_epoch, 37, 59):
        rest = list(training_dataset(tokens, plan, first, 60).as_numpy_iterator())
        assert len(rest) == 60 - first
        for (x, y), (x_whole, y_whole) in zip(rest, whole[first:], strict=True):
            assert np.array_equal(x["token_ids"], x_whole["token_ids"])
            assert x["restart"] == x_whole["restart"]
            assert np.array_equal(y, y_whole)


def test_a_dataset_without_steps_is_empty_and_a_foreign_corpus_an_error():
    plan = LanePlan(100, 4, 5, 0)
    assert list(training_dataset(np.arange(100), plan, 7, 7)) == []
    with pytest.raises(CorpusError, match=r"100 tokens\. Received: 99"):
        training_dataset(np.arange(99), plan, 0, 1)


SCORED = st.tuples(
    st.integers(1, 12_000), st.integers(1, 8), st.integers(0, 300), st.integers(1, 200)
)


@settings(deadline=None, max_examples=40)
@given(SCORED)
def test_scoring_predicts_every_token_once_from_the_one_before(case):
    num_tokens, max_lanes, warm_up, seq_len = case
    tokens = np.arange(num_tokens) + 7
    windows = scoring_windows(tokens, 3, max_lanes, warm_up, seq_len)
    counted = windows.weights == 1
    assert sorted(windows.targets[counted].tolist()) == tokens.tolist()
    before = np.concatenate([[3], tokens[:-1]])
    assert np.array_equal(windows.token_ids[counted], before[windows.targets[counted] - 7])
    assert windows.weights.sum() == num_tokens
    assert set(np.unique(windows.weights)) <= {0.0, 1.0}
    assert windows.restart.tolist() == [True] + [False] * (len(windows.restart) - 1)


@settings(deadline=None, max_examples=40)
@given(SCORED)
def test_scoring_gives_every_token_its_context(case):
    num_tokens, max_lanes, warm_up, seq_len = case
    tokens = np.arange(num_tokens)
    windows = scoring_windows(tokens, -1, max_lanes, warm_up, seq_len)
    lanes = windows.token_ids.swapaxes(0, 1).reshape(windows.lanes, -1)
    weights = windows.weights.swapaxes(0, 1).reshape(windows.lanes, -1)
    assert windows.lanes == max(1, min(num_tokens // 2048, max_lanes))
    for lane, weight in zip(lanes, weights, strict=True):
        counted = np.flatnonzero(weight)
        first, last = counted[0], counted[-1]
        assert np.array_equal(lane[: last + 1], lane[0] + np.arange(last + 1))
        assert lane[0] == -1 or first >= warm_up
        assert weight[first : last + 1].all()


def test_a_short_text_is_one_exact_pass():
    tokens = np.arange(300)
    windows = scoring_windows(tokens, -1)
    assert windows.token_ids.shape == (3, 1, 128)
    assert np.array_equal(windows.token_ids.ravel()[:300], tokens - 1)
    assert np.array_equal(windows.targets.ravel()[:300], tokens)
    assert np.array_equal(windows.weights.ravel(), np.arange(384) < 300)


def test_scoring_nothing_is_an_error():
    with pytest.raises(CorpusError, match="at least 1 token"):
        scoring_windows(np.array([], np.uint8), 0)


def test_the_scoring_dataset_gives_the_scoring_windows():
    tokens = np.random.default_rng(1).integers(0, 99, 9_000).astype(np.uint8)
    windows = scoring_windows(tokens, 5)
    dataset, lanes = scoring_dataset(tokens, 5)
    elements = list(dataset.as_numpy_iterator())
    assert lanes == windows.lanes == 4
    assert len(elements) == len(windows.restart)
    for i, (inputs, targets, weights) in enumerate(elements):
        assert np.array_equal(inputs["token_ids"], windows.token_ids[i])
        assert inputs["restart"] == windows.restart[i]
        assert np.array_equal(targets, windows.targets[i])
        assert np.array_equal(weights, windows.weights[i])

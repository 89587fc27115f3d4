"""Training lanes and their data set, compared with slices of the corpus."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.corpora import LanePlan, plan_lanes, training_dataset
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


@given(PLANS)
def test_every_window_is_inside_its_lane(plan):
    for step in range(3 * plan.steps_per_epoch):
        starts, length, _ = plan.window(step)
        in_lane = starts - np.arange(plan.batch_size) * plan.lane_len
        assert len(starts) == plan.batch_size
        assert (in_lane == in_lane[0]).all()
        assert in_lane[0] >= 0
        assert in_lane[0] + length + 1 <= plan.lane_len
        assert abs(length - plan.seq_len) <= 2 * plan.jitter


@given(PLANS)
def test_windows_of_an_epoch_are_adjacent_and_only_the_first_restarts(plan):
    per_epoch = plan.steps_per_epoch
    for step in range(2 * per_epoch):
        starts, _, restart = plan.window(step)
        assert restart == (step % per_epoch == 0)
        if not restart:
            before, length, _ = plan.window(step - 1)
            assert (starts - before == length).all()


@given(PLANS)
def test_an_epoch_reads_all_but_at_most_two_windows_of_a_lane(plan):
    assert plan.lane_len - plan.steps_per_epoch * plan.seq_len < 2 * plan.seq_len + 1


def test_offsets_vary_with_epoch_and_seed_and_cover_their_range():
    plan = LanePlan(10_000, 4, 10, seed=3)
    offsets = plan.offsets(0, 500)
    assert set(offsets.tolist()) == set(range(plan.max_offset + 1)) == set(range(10))
    counts = np.bincount(offsets)
    assert ((counts - 50.0) ** 2 / 50).sum() < 27.9  # chi-square, 9 degrees, p = 0.001
    assert offsets.tolist() != LanePlan(10_000, 4, 10, seed=4).offsets(0, 500).tolist()


def test_an_offset_depends_only_on_its_epoch():
    plan = LanePlan(10_000, 4, 10, seed=3)
    whole = plan.offsets(0, 50)
    assert plan.offsets(17, 20).tolist() == whole[17:37].tolist()
    assert [int(plan.offsets(epoch, 1)[0]) for epoch in range(50)] == whole.tolist()


def test_a_short_corpus_has_fewer_lanes_and_one_shorter_than_a_window_is_an_error():
    assert plan_lanes(1000, 8, 99, 0).batch_size == 8
    assert plan_lanes(799, 8, 99, 0).batch_size == 7
    assert plan_lanes(100, 8, 99, 0).batch_size == 1
    message = r"`seq_len` \+ 1 = 100 tokens\. Received: 99\. Lower `seq_len`"
    with pytest.raises(CorpusError, match=message):
        plan_lanes(99, 8, 99, 0)
    with pytest.raises(CorpusError, match="Lower `batch_size`"):
        LanePlan(799, 8, 99, 0)


def test_jitter_gives_windows_of_every_length_around_seq_len():
    plan = LanePlan(100_000, 2, 20, seed=5, jitter=3)
    lengths = [plan.window(step)[1] for step in range(1, 600)]
    assert set(lengths) == set(range(20 - 6, 20 + 7))
    assert np.mean(lengths) == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("jitter", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_the_dataset_contains_the_windows_of_the_reference(dtype, jitter):
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


def test_a_dataset_that_begins_later_is_the_rest_of_the_whole_one():
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


def test_no_steps_give_no_elements_and_another_corpus_is_an_error():
    plan = LanePlan(100, 4, 5, 0)
    assert list(training_dataset(np.arange(100), plan, 7, 7)) == []
    with pytest.raises(CorpusError, match=r"100 tokens\. Received: 99"):
        training_dataset(np.arange(99), plan, 0, 1)

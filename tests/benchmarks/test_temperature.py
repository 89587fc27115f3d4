"""The measures of repetition, compared with values computed by hand."""

import pytest

from benchmarks.temperature import repetition


def test_shares_equal_those_counted_by_hand():
    shares = repetition(["a b a b", "abcdefghijkl"])
    assert shares == {
        # 2 of 4 words, and 1 of 1
        "distinct word 1-grams": pytest.approx((1 / 2 + 1) / 2),
        # "a b" twice and "b a" once; the second text has no pair
        "distinct word 2-grams": pytest.approx((2 / 3 + 0) / 2),
        # "a b a" and "b a b"
        "distinct word 3-grams": pytest.approx((1 + 0) / 2),
        # the first text is shorter than a span: no span, and none distinct
        "repeated spans of 10 characters": pytest.approx((1 + 0) / 2),
    }


def test_spans_that_occurred_before_are_repeated():
    # 20 equal characters have 11 spans, one of them distinct.
    shares = repetition(["a" * 20])
    assert shares["repeated spans of 10 characters"] == pytest.approx(10 / 11)


def test_a_text_without_repetition_has_a_share_whose_logarithm_exists():
    assert repetition(["abcdefghijklmno"])["repeated spans of 10 characters"] == 1e-4

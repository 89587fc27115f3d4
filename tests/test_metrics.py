"""Units of loss, against figures worked out by hand."""

import math

import pytest

from textgen.metrics import TextScore, score_from_loss


def test_units_agree_with_figures_worked_out_by_hand():
    # 4 tokens at 2 bits each stand for 8 characters of 2 bytes
    score = TextScore(total_nats=8 * math.log(2), tokens=4, characters=8, bytes=16)
    assert score.loss == pytest.approx(2 * math.log(2))
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_char == pytest.approx(1)
    assert score.bits_per_byte == pytest.approx(0.5)
    assert score.nats_per_char == pytest.approx(math.log(2))


def test_a_score_from_a_mean_loss_has_that_loss():
    score = score_from_loss(1.25, tokens=10, characters=30, bytes_=40)
    assert score.loss == pytest.approx(1.25)
    assert score.nats_per_char == pytest.approx(12.5 / 30)


def test_a_hopeless_loss_does_not_overflow():
    assert math.isfinite(score_from_loss(1e6, 1, 1, 1).perplexity)


def test_json_has_the_promised_names():
    names = {"nats_per_char", "bits_per_char", "bits_per_byte", "perplexity", "tokens"}
    assert names | {"characters"} <= set(score_from_loss(1.0, 1, 1, 1).as_dict())

"""Units of loss, compared with values computed by hand."""

import math

import pytest

from textgen.metrics import TextScore, score_from_loss


def test_units_equal_values_computed_by_hand():
    # 4 tokens of 2 bits each encode 8 characters of 2 bytes.
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


def test_the_perplexity_of_a_huge_loss_is_finite():
    assert math.isfinite(score_from_loss(1e6, 1, 1, 1).perplexity)


def test_json_has_every_figure_by_its_name():
    score = TextScore(total_nats=8 * math.log(2), tokens=4, characters=8, bytes=16)
    assert score.as_dict() == pytest.approx(
        {
            "nats_per_char": math.log(2),
            "bits_per_char": 1,
            "bits_per_byte": 0.5,
            "perplexity": 4,
            "loss": 2 * math.log(2),
            "tokens": 4,
            "characters": 8,
            "bytes": 16,
        }
    )

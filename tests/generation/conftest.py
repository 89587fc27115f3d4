"""A guard of the tests that compare drawn tokens."""

import numpy as np
import pytest

from textgen.generation import token_loop

# Engines, and batches of different sizes, differ by float32 rounding: 1e-7 in a probability, and
# 1e-6 in a logit.
MIN_MARGIN = 5e-6


@pytest.fixture
def no_near_ties(monkeypatch):
    """Fail a test if one of its draws is so near to another token that rounding could change it.

    So the outcome of a test with a fixed seed does not depend on the machine. The distance of a
    draw is that of its uniform from the nearest edge of the CDF; without a uniform it is that of
    the two largest logits.
    """
    margins = []

    def pick(logits, uniforms):
        shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
        cumulative = np.exp(shifted).cumsum(axis=-1)
        edges = cumulative[:, :-1] / cumulative[:, -1:]
        is_edge = (edges > 0) & (edges < 1)
        distances = np.where(is_edge, np.abs(edges - uniforms[:, None]), 1)
        margins.append(float(distances.min(initial=1)))
        return draw(logits, uniforms)

    def pick_greedy(logits):
        largest = np.sort(logits, axis=-1)[:, -2:]
        margins.append(float((largest[:, 1] - largest[:, 0]).min()))
        return draw_greedy(logits)

    draw, draw_greedy = token_loop.pick, token_loop.pick_greedy
    monkeypatch.setattr(token_loop, "pick", pick)
    monkeypatch.setattr(token_loop, "pick_greedy", pick_greedy)
    yield
    assert min(margins, default=1) > MIN_MARGIN, "a near tie: choose another seed"

"""Code shared by the fast engines: the limits of table and chunk, and layer normalization."""

import numpy as np
import pytest

from tests.builders import assert_close
from textgen.engines import common
from textgen.engines.common import chunk_steps, fits_table, normalize
from textgen.engines.reference_engine import layer_norm
from textgen.models.weights import NormWeights


def test_a_table_fits_up_to_the_limit(monkeypatch):
    embedding = np.zeros((10, 4), np.float32)
    monkeypatch.setattr(common, "MAX_TABLE_FLOPS", 2 * 10 * 4 * 6)
    assert fits_table(embedding, 6)
    assert not fits_table(embedding, 7)


@pytest.mark.parametrize(("batch", "width", "steps"), [(1, 10, 12), (4, 10, 3), (7, 100, 1)])
def test_a_chunk_has_all_steps_that_fit_and_at_least_one(monkeypatch, batch, width, steps):
    monkeypatch.setattr(common, "MAX_CHUNK_VALUES", 120)
    assert chunk_steps(batch, width) == steps


def test_the_layer_norm_equals_the_reference():
    random = np.random.default_rng(0)
    scale, offset = random.standard_normal((2, 8)).astype(np.float32)
    norm = NormWeights(scale=scale, offset=offset)
    x = random.standard_normal((3, 5, 8)).astype(np.float32) * 3 + 1
    kept = x.copy()
    normalized = normalize(norm, x)
    assert_close(normalized, layer_norm(norm, x))
    assert normalized.dtype == np.float32
    np.testing.assert_array_equal(x, kept)

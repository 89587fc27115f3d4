"""Random weights and text: the same at every call, of the sizes of the workload."""

import numpy as np

from benchmarks.random_inputs import random_text, random_weights
from benchmarks.workload import ALPHABET, EMBEDDING_DIM, VOCAB_SIZE, Sizes


def test_weights_are_those_of_the_sizes_and_the_same_at_every_call():
    weights, again = (random_weights(Sizes(12, num_layers=2)) for _ in range(2))
    assert weights.embedding.shape == (VOCAB_SIZE, EMBEDDING_DIM)
    assert [layer.input_kernel.shape for layer in weights.layers] == [(EMBEDDING_DIM, 36), (12, 36)]
    assert weights.dense_kernel.shape == (12, VOCAB_SIZE)
    expected = again.to_tensors()
    for name, array in weights.to_tensors().items():
        np.testing.assert_array_equal(array, expected[name])


def test_text_has_every_character_about_equally_often():
    text = random_text(66_000)
    assert text == random_text(66_000)
    # The standard deviation of a count of mean 1,000 is 31.
    assert all(abs(text.count(character) - 1_000) < 5 * 31 for character in ALPHABET)

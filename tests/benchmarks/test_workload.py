"""The sizes of a case, and their way through a worker's command line."""

import sys

import pytest

from benchmarks.workload import ALPHABET, PROMPT, VOCAB_SIZE, Sizes, parse_worker


def test_the_alphabet_has_distinct_characters_and_those_of_the_prompt():
    assert len(set(ALPHABET)) == len(ALPHABET) == VOCAB_SIZE
    assert set(PROMPT) <= set(ALPHABET[:-1])


@pytest.mark.parametrize("sizes", [Sizes(256), Sizes(512, num_layers=2, dropout=0.3)])
def test_a_worker_receives_the_sizes_of_its_case(sizes, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["worker", "--variant", "int8", *sizes.flags().split()])
    assert parse_worker() == (sizes, "int8")


def test_training_operations_equal_those_counted_by_hand():
    # One layer of 2 units: a recurrent kernel of 2 x 6 and a dense kernel of 2 x 66 weights.
    assert Sizes(2).training_operations() == 6 * (12 + 132)
    # The second layer adds a recurrent kernel and an input kernel of the same size.
    assert Sizes(2, num_layers=2).training_operations() == 6 * (3 * 12 + 132)

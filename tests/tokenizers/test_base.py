"""The functions that tokenizers share: checks of arguments, header and fingerprint."""

import hashlib
import json

import numpy as np
import pytest

from textgen.errors import ConfigError, TokenizerError
from textgen.tokenizers.base import (
    check_encoding,
    check_text,
    check_token_ids,
    fingerprint_files,
    header_file,
)


def test_a_fingerprint_depends_on_names_and_contents_but_not_on_order():
    files = {"a": b"1", "b": b"2"}
    assert fingerprint_files(files) == fingerprint_files({"b": b"2", "a": b"1"})
    others = [{"a": b"1"}, {"a": b"2", "b": b"1"}, {"a": b"12"}, {"a": b"", "b": b"12"}]
    assert len({fingerprint_files(f) for f in [files, *others]}) == 5


def test_a_fingerprint_is_the_sha256_of_names_lengths_and_contents():
    expected = hashlib.sha256(b"a\x002\x00xyb\x000\x00").hexdigest()
    assert fingerprint_files({"b": b"", "a": b"xy"}) == expected


def test_the_header_begins_with_schema_and_kind():
    content = header_file("char", {"alphabet": "é"})
    assert list(json.loads(content).items()) == [
        ("schema_version", 1),
        ("kind", "char"),
        ("alphabet", "é"),
    ]
    assert "é" in content.decode()


@pytest.mark.parametrize("text", [5, None, b"bytes", ["a"], np.array("a")])
def test_a_value_that_is_not_a_string_is_refused_with_its_type(text):
    with pytest.raises(TokenizerError, match=rf"`title` must be a string.*{type(text).__name__}"):
        check_text(text, "title")
    with pytest.raises(TokenizerError, match=r"`text` must be a string"):
        check_encoding(text, "error")


def test_numpy_strings_and_empty_strings_are_accepted():
    check_text(np.str_("numpy"))
    check_encoding("", "skip")


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match=r"`unknown` must be error, skip or unk.*'ignore'"):
        check_encoding("a", "ignore")


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_ids_of_any_integer_dtype_are_accepted(dtype):
    ids = check_token_ids(np.array([0, 8], dtype), 9)
    assert (ids.tolist(), ids.dtype) == ([0, 8], np.int64)


def test_lists_and_empty_arrays_are_accepted():
    assert check_token_ids([3, 1], 9).tolist() == [3, 1]
    assert check_token_ids([], 9).tolist() == check_token_ids(np.array([]), 9).tolist() == []


@pytest.mark.parametrize(
    "token_ids",
    ["12", None, 3, [1.5], [True], ["a"], [[1], [2, 3]], np.zeros((1, 2), int), [2**70]],
)
def test_ids_that_are_not_integers_in_one_axis_are_refused(token_ids):
    with pytest.raises(TokenizerError, match="must be integers in one axis") as caught:
        check_token_ids(token_ids, 9)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("token_id", [-1, 9, 2**63])
def test_an_id_outside_the_vocabulary_is_refused(token_id):
    with pytest.raises(TokenizerError, match=rf"in \[0, 9\)\. Received: {token_id}"):
        check_token_ids([token_id], 9)

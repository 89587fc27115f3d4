"""Joining documents into one text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.corpora.documents import join_documents

DOCUMENTS = st.lists(st.text("ab\n", max_size=4), max_size=6)


@pytest.mark.parametrize(
    ("documents", "document_end", "text"),
    [
        ([], None, ""),
        (["a"], None, "a"),
        (["a", "b\n", "c"], None, "a\nb\nc"),
        (["", "a", "", "b"], None, "a\nb"),
        (["a\n\n", "b"], None, "a\n\nb"),
        (["a", "b\n"], "<end>", "a<end>\nb\n<end>\n"),
        ([""], "<end>", "<end>\n"),
    ],
)
def test_documents_are_joined_as_worked_by_hand(documents, document_end, text):
    assert join_documents(documents, document_end) == text


@given(DOCUMENTS)
def test_every_document_begins_a_line(documents):
    lines = join_documents(documents).split("\n")
    expected = [line for document in documents for line in document.removesuffix("\n").split("\n")]
    assert [line for line in lines if line] == [line for line in expected if line]


@given(DOCUMENTS)
def test_every_document_is_followed_by_its_end(documents):
    parts = join_documents(documents, "<end>").split("<end>\n")
    assert parts == [*documents, ""]


def test_any_iterable_is_read_once():
    assert join_documents(iter("abc")) == "a\nb\nc"

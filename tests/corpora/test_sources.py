"""Reading text from files, standard input and the built-in source."""

import io
import os
import sys

import pytest

from textgen.config import CorpusConfig
from textgen.corpora import read_corpus
from textgen.errors import CorpusError


def _read(*sources, stdin=b""):
    return read_corpus(CorpusConfig(sources=tuple(map(str, sources))), io.BytesIO(stdin))


def _error(*sources, stdin=b""):
    with pytest.raises(CorpusError) as caught:
        _read(*sources, stdin=stdin)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def write(tmp_path):
    def write_file(name, data):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write_file


def test_a_file_is_read_as_it_is(write):
    text = "tab\t  two spaces\n\n漢字 😀 \x0b\x0c\x85\u2028end"
    assert _read(write("a", text)) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\r\nb\r\n", "a\nb\n"),
        (b"a\rb\r\rc", "a\nb\n\nc"),
        (b"a\n\rb\r\n\r\n", "a\n\nb\n\n"),
        (b"\xef\xbb\xbfa\n", "a\n"),
        (b"a\xef\xbb\xbfb", "a\ufeffb"),
    ],
)
def test_newlines_and_the_byte_order_mark_are_made_plain(write, data, text):
    path = write("a", data)
    assert _read(path) == text == path.read_text("utf-8-sig")
    assert _read("-", stdin=data) == text


def test_sources_are_joined_in_order_with_a_newline_where_one_lacks(write):
    a, b, empty = write("a", "a"), write("b", "b\n"), write("empty", "")
    assert _read(a, b, a) == "a\nb\na"
    assert _read(empty, a, "-", stdin=b"s") == "a\ns"
    assert _read(b, empty, b) == "b\nb\n"


def test_each_source_loses_its_own_byte_order_mark(write):
    assert _read(write("a", b"\xef\xbb\xbfa"), write("b", b"\xef\xbb\xbfb")) == "a\nb"


def test_standard_input_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\r\n".encode())))
    assert read_corpus(CorpusConfig(sources=("-",))) == "é\n"


def test_the_python_documentation_is_long_and_plain():
    text = _read("builtin:python-docs")
    assert 350_000 < len(text) < 800_000
    assert 'The "assert" statement' in text
    assert "\r" not in text
    assert text == read_corpus(CorpusConfig())


def test_an_unknown_builtin_lists_the_known_ones():
    message = _error("builtin:shakespeare")
    assert "builtin:python-docs" in message and "'builtin:shakespeare'" in message


def test_a_python_without_its_documentation_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    message = _error("builtin:python-docs")
    assert "pydoc_data" in message and "Give a text file" in message


def test_the_first_byte_that_is_no_utf8_is_named_with_a_way_out(write):
    message = _error(write("old", b"\xef\xbb\xbfcaf\xe9 \xff"))
    assert "offset 6 (0xE9)" in message and "iconv" in message and "old'" in message
    assert "offset 1" in _error("-", stdin=b"a\x80") and "standard input" in _error(
        "-", stdin=b"\x80"
    )
    assert "UTF-16" in _error(write("wide", "wide".encode("utf-16")))


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    assert "folder" in _error(tmp_path) and str(tmp_path) in _error(tmp_path)
    missing = tmp_path / "no such file"
    assert "exists" in _error(missing) and str(missing) in _error(missing)
    assert "no\\nfile" in _error("no\nfile")


def test_a_path_that_the_system_refuses_is_an_error(write):
    assert "cannot be read" in _error("x" * 5000)
    assert "cannot be read" in _error("a\0b")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_an_error(write):
    path = write("secret", "secret")
    path.chmod(0)
    assert "permissions" in _error(path)


@pytest.mark.parametrize("text", ["", "\n\n", " \t\r\n\u3000"])
def test_a_blank_corpus_is_an_error(write, text):
    path = write("blank", text)
    message = _error(path, path)
    assert "not blank" in message and "blank'" in message


def test_every_document_is_followed_by_its_end_where_one_is_named(write):
    sources = (str(write("a", "a")), str(write("b", "b\n")))
    config = CorpusConfig(sources=sources, document_end="<end>")
    assert read_corpus(config) == "a<end>\nb\n<end>\n"

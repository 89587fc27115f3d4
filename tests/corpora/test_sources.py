"""Text from files, standard input and the built-in source, and the errors of each."""

import io
import os
import sys

import pytest

from textgen.config import CorpusConfig
from textgen.corpora import decode_text, read_corpus
from textgen.errors import ConfigError, CorpusError


def read(*sources, stdin=b""):
    return read_corpus(CorpusConfig(sources=tuple(map(str, sources))), io.BytesIO(stdin))


def error_of(*sources, stdin=b""):
    with pytest.raises(CorpusError) as caught:
        read(*sources, stdin=stdin)
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


def test_a_file_is_read_unchanged(write):
    text = "tab\t  two spaces\n\n漢字 😀 \x0b\x0c\x85\u2028end"
    assert read(write("a", text)) == text


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
def test_newlines_are_normalized_and_the_byte_order_mark_is_removed(write, data, text):
    path = write("a", data)
    assert read(path) == text == path.read_text("utf-8-sig")
    assert read("-", stdin=data) == text


def test_sources_are_joined_in_order_and_begin_lines(write):
    a, b, empty = write("a", "a"), write("b", "b\n"), write("empty", "")
    assert read(a, b, a) == "a\nb\na"
    assert read(empty, a, "-", stdin=b"s") == "a\ns"
    assert read(b, empty, b) == "b\nb\n"


def test_the_byte_order_mark_of_each_source_is_removed(write):
    assert read(write("a", b"\xef\xbb\xbfa"), write("b", b"\xef\xbb\xbfb")) == "a\nb"


def test_standard_input_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\r\n".encode())))
    assert read_corpus(CorpusConfig(sources=("-",))) == "é\n"


def test_the_python_documentation_is_the_default_source():
    text = read("builtin:python-docs")
    assert 350_000 < len(text) < 800_000
    assert 'The "assert" statement' in text
    assert "\r" not in text
    assert text == read_corpus(CorpusConfig())


def test_an_unknown_builtin_lists_the_known_ones():
    message = error_of("builtin:shakespeare")
    assert "builtin:python-docs" in message and "'builtin:shakespeare'" in message


def test_a_python_without_its_documentation_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    message = error_of("builtin:python-docs")
    assert "pydoc_data" in message and "Pass a text file" in message


def test_the_error_names_the_first_byte_that_is_not_utf8_and_a_remedy(write):
    message = error_of(write("old", b"\xef\xbb\xbfcaf\xe9 \xff"))
    assert "offset 6 (0xE9)" in message and "iconv" in message and "old'" in message
    assert "offset 1" in error_of("-", stdin=b"a\x80") and "standard input" in error_of(
        "-", stdin=b"\x80"
    )
    assert "UTF-16" in error_of(write("wide", "wide".encode("utf-16")))


def test_the_error_names_a_folder_or_a_missing_file(tmp_path):
    assert "folder" in error_of(tmp_path) and str(tmp_path) in error_of(tmp_path)
    missing = tmp_path / "no such file"
    assert "exists" in error_of(missing) and str(missing) in error_of(missing)
    assert "no\\nfile" in error_of("no\nfile")


def test_an_invalid_path_is_an_error(write):
    assert "cannot be read" in error_of("x" * 5000)
    assert "cannot be read" in error_of("a\0b")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_an_error(write):
    path = write("secret", "secret")
    path.chmod(0)
    assert "permissions" in error_of(path)


@pytest.mark.parametrize("text", ["", "\n\n", " \t\r\n\u3000"])
def test_a_blank_corpus_is_an_error(write, text):
    path = write("blank", text)
    message = error_of(path, path)
    assert "not blank" in message and "blank'" in message


def test_document_end_is_added_to_every_file(write):
    sources = (str(write("a", "a")), str(write("b", "b\n")))
    config = CorpusConfig(sources=sources, document_end="<end>")
    assert read_corpus(config) == "a<end>\nb\n<end>\n"


@pytest.mark.parametrize("config", ["a.txt", ("a.txt",), 5, None])
def test_a_value_that_is_not_a_configuration_is_refused(config):
    with pytest.raises(CorpusError, match=r"`config` must be a CorpusConfig\. Received: .*Pass"):
        read_corpus(config)


@pytest.mark.parametrize("sources", [5, (5,), (b"a.txt",), "a.txt"])
def test_sources_that_are_not_strings_are_refused(sources):
    with pytest.raises(ConfigError, match="`sources` must be a list, each entry a string"):
        CorpusConfig(sources=sources)


def test_only_bytes_are_decoded():
    assert decode_text(bytearray(b"\xef\xbb\xbfa\r"), "name") == "a\n"
    for data in ("text", 5, None):
        with pytest.raises(CorpusError, match=r"`data` must be bytes\. Received: "):
            decode_text(data, "name")

"""Files are replaced completely or not at all, and odd files are refused in one line."""

import json
import os
import socket
import stat
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from textgen.errors import RunError
from textgen.storage import (
    MAX_JSON_BYTES,
    damaged_file,
    read_json_object,
    read_regular_file,
    read_safetensors,
    require_known_schema,
    tensors_sha256,
    write_atomically,
    write_json_atomically,
)

MISSING = "No such run. Train one first."
TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.uint16)}


def read_json(path):
    return read_json_object(path, missing=MISSING)


def read_tensors(path):
    return read_safetensors(path, missing=MISSING)


def read_bytes(path):
    return read_regular_file(path, max_bytes=100, missing=MISSING)


READERS = [read_json, read_tensors, read_bytes]


def message_of(reader, path):
    with pytest.raises(RunError) as caught:
        reader(path)
    (line,) = str(caught.value).splitlines()
    return line


def sparse_file(path, size):
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_a_failed_write_leaves_the_old_content_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_):
        raise OSError("the machine failed")

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="failed"):
        write_atomically(path, b"new content")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_a_written_file_has_the_permissions_of_any_other(tmp_path):
    mask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "folder" / "file", b"")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "folder" / "file").stat().st_mode) == 0o640


def test_json_is_read_as_it_was_written(tmp_path):
    values = {"é漢🐸": [1, 2.5, None, True, {"nested": "\n\x1b"}], "": {}}
    write_json_atomically(tmp_path / "values.json", values)
    assert read_json(tmp_path / "values.json") == values


def test_tensors_and_metadata_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "tensors.safetensors"
    write_atomically(path, safetensors.numpy.save(TENSORS, {"key": "value"}))
    metadata, tensors = read_tensors(path)
    assert metadata == {"key": "value"}
    assert tensors.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], expected, strict=True)
    path.write_bytes(safetensors.numpy.save(TENSORS))
    assert read_tensors(path)[0] == {}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["nothing", "file/nothing"])
def test_a_missing_file_has_the_message_of_the_caller(tmp_path, reader, name):
    (tmp_path / "file").touch()
    assert message_of(reader, tmp_path / name) == MISSING


@pytest.mark.parametrize("reader", READERS)
def test_a_directory_is_refused(tmp_path, reader):
    assert message_of(reader, tmp_path) == (
        f"{tmp_path} is damaged: it must be a regular file, not a directory. "
        "Restore it from a copy."
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("reader", READERS)
def test_a_named_pipe_is_refused_without_waiting_for_its_writer(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe")
    assert "not a named pipe." in message_of(reader, tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no socket files here")
@pytest.mark.parametrize("reader", READERS)
def test_a_socket_is_refused(tmp_path, monkeypatch, reader):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert "not a socket." in message_of(reader, tmp_path / "socket")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device files here")
@pytest.mark.parametrize("reader", READERS)
def test_a_link_to_a_device_is_refused(tmp_path, reader):
    (tmp_path / "link").symlink_to("/dev/zero")
    assert "not a device." in message_of(reader, tmp_path / "link")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_somebody_else_is_refused(tmp_path, reader):
    (tmp_path / "file").touch(mode=0o000)
    assert "cannot be read: Permission denied." in message_of(reader, tmp_path / "file")


@pytest.mark.parametrize("reader", [read_json, read_bytes])
def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path, reader):
    path = sparse_file(tmp_path / "large", 2**42)
    assert "bytes, not 4,398,046,511,104." in message_of(reader, path)


def test_the_limit_itself_is_accepted(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert read_bytes(tmp_path / "file") == b"x" * 100
    (tmp_path / "file").write_bytes(b"x" * 101)
    assert "at most 100 bytes, not 101." in message_of(read_bytes, tmp_path / "file")
    padding = MAX_JSON_BYTES - len('{"a": 1}')
    (tmp_path / "file").write_bytes(b'{"a": 1}' + b" " * padding)
    assert read_json(tmp_path / "file") == {"a": 1}


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "Expecting value"),
        (b"{torn", "Expecting property name"),
        (b"\xff\xfe{}", "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"[1]", "it must contain a JSON object"),
        (b"null", "it must contain a JSON object"),
        (b"{}{}", "Extra data"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "it contains the key 'c' twice"),
        (b'{"\\u001b]0;x\\u0007": 1, "\\u001b]0;x\\u0007": 1}', r"'\x1b]0;x\x07' twice"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "integer string conversion"),
        (b'{"%b": 1, "%b": 1}' % (b"k" * 5_000, b"k" * 5_000), "kkk…"),
    ],
)
def test_damaged_json_is_refused(tmp_path, content, reason):
    path = tmp_path / "values.json"
    path.write_bytes(content)
    message = message_of(read_json, path)
    assert message.startswith(f"{path} is damaged: ")
    assert reason in message
    assert message.endswith(". Restore it from a copy.")
    assert len(message) < 500 + len(str(path))


def safetensors_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one_tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        bytes(8),
        (2**63).to_bytes(8, "little") + b"{}",
        (10).to_bytes(8, "little") + b"{}",
        safetensors_file(b"{torn"),
        safetensors_file(b"[]"),
        safetensors_file(b'{"a":' * 5_000),
        safetensors_file(one_tensor()),
        safetensors_file(one_tensor(), bytes(7)),
        safetensors_file(one_tensor(), bytes(9)),
        safetensors_file(one_tensor(shape=(2**40,)), bytes(8)),
        safetensors_file(one_tensor(shape=(2**40,), offsets=(0, 2**42)), bytes(8)),
        safetensors_file(one_tensor(shape=(-1,)), bytes(8)),
        safetensors_file(one_tensor(dtype="F31"), bytes(8)),
        safetensors_file({"__metadata__": {"schema_version": 1}}),
        safetensors_file({"__metadata__": []}),
    ],
)
def test_damaged_tensors_are_refused(tmp_path, content):
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(content)
    message = message_of(read_tensors, path)
    assert message.startswith(f"{path} is damaged: ")
    assert message.endswith(". Restore it from a copy.")


def test_tensors_larger_than_their_header_says_are_refused_without_reading(tmp_path):
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(safetensors_file(one_tensor(), bytes(8)))
    os.truncate(path, 2**40)
    assert "is damaged" in message_of(read_tensors, path)


def test_the_remedy_of_a_damaged_file_is_the_one_of_the_caller(tmp_path):
    (tmp_path / "file").write_bytes(b"?")
    for reader in (read_json_object, read_safetensors):
        with pytest.raises(RunError, match=r"\. Delete it\.$"):
            reader(tmp_path / "file", missing=MISSING, remedy="Delete it.")
    with pytest.raises(RunError, match=r"schema_version\. Delete it\.$"):
        require_known_schema("x.json", None, newest=3, remedy="Delete it.")


@pytest.mark.parametrize("received, version", [(1, 1), ("2", 2), ("03", 3), (-1, -1)])
def test_a_known_schema_is_returned(received, version):
    assert require_known_schema("x.json", received, newest=3) == version


@pytest.mark.parametrize("received", [4, "4", 10**30])
def test_a_later_schema_is_refused(received):
    with pytest.raises(RunError, match=r"x\.json must be at most 3.*upgrade"):
        require_known_schema("x.json", received, newest=3)


@pytest.mark.parametrize("received", [None, "", "-1", "²", "1" * 5_000, 1.0, True, [], {}])
def test_a_file_without_a_schema_is_refused(received):
    with pytest.raises(RunError, match=r"x\.json is damaged: it has no schema_version\."):
        require_known_schema("x.json", received, newest=3)


def test_a_reason_becomes_one_line():
    assert str(damaged_file("f", " two\nlines.\n")) == (
        "f is damaged: two lines. Restore it from a copy."
    )


def test_a_hash_depends_on_everything_but_the_order():
    original = tensors_sha256(TENSORS)
    assert tensors_sha256(dict(reversed(TENSORS.items()))) == original
    others = [
        {"a": TENSORS["a"]},
        {**TENSORS, "c": TENSORS["a"]},
        {"a": TENSORS["a"].astype(np.float64), "b": TENSORS["b"]},
        {"a": TENSORS["a"].reshape(3, 2), "b": TENSORS["b"]},
        {"a": TENSORS["a"] + 1, "b": TENSORS["b"]},
        {"b": TENSORS["a"], "a": TENSORS["b"]},
    ]
    assert len({original, *map(tensors_sha256, others)}) == 1 + len(others)
    transposed = np.asfortranarray(TENSORS["a"])
    assert tensors_sha256({**TENSORS, "a": transposed}) == original

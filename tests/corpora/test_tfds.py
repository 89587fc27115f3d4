"""Reading TFDS through its real loader, without a network."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textgen.config import CorpusConfig
from textgen.corpora import read_corpus
from textgen.corpora.tfds import read_tfds
from textgen.errors import CorpusError

REPOSITORY = Path(__file__).parents[2]
TEXT = "".join(f"Line {i} of a small text, é and 漢.\n" for i in range(200))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder in which `tiny_shakespeare` is prepared, with a text of our own."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")
    source = folder / "input.txt"
    source.write_text(TEXT, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds.download.DownloadManager, "download", lambda *_: str(source))
        read_tfds("tiny_shakespeare", "text", str(folder))
    return str(folder)


def _error(*arguments):
    with pytest.raises(CorpusError) as caught:
        read_tfds(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def test_a_prepared_data_set_is_read_split_by_split(data_dir, capfd):
    parts = [
        read_tfds(f"tiny_shakespeare{suffix}", "text", data_dir)
        for suffix in ("", ":validation", ":1.0.0:test")
    ]
    assert "".join(parts) == TEXT
    assert len(parts[0]) == int(len(TEXT) * 0.9)
    assert capfd.readouterr().out == ""


def test_examples_are_joined_by_a_newline_where_one_lacks(data_dir):
    both = read_tfds("tiny_shakespeare:train+validation", "text", data_dir)
    boundary = int(len(TEXT) * 0.9)
    assert TEXT[boundary - 1] != "\n"
    assert both == TEXT[:boundary] + "\n" + TEXT[boundary:][: len(both) - boundary - 1]


def test_a_tfds_source_is_read_as_part_of_a_corpus(data_dir):
    config = CorpusConfig(sources=("tfds:tiny_shakespeare:test",), tfds_data_dir=data_dir)
    assert TEXT.endswith(read_corpus(config))


def test_an_unknown_split_or_feature_lists_the_known_ones(data_dir):
    message = _error("tiny_shakespeare:trian", "text", data_dir)
    assert "test, train, validation" in message and "'trian'" in message
    message = _error("tiny_shakespeare:train[:x]", "text", data_dir)
    assert "train[:x]" in message
    message = _error("tiny_shakespeare", "book_text", data_dir)
    assert "one of: text" in message and "--text-feature" in message
    assert "not text: image, label" in _error("mnist", "image", data_dir)


def test_an_unknown_name_suggests_close_ones_and_lists_no_others(data_dir):
    message = _error("tiny_shakespear:train", "text", data_dir)
    assert "Did you mean tiny_shakespeare?" in message and "mnist" not in message
    assert "tiny_shakespeare:9.9.9" in _error("tiny_shakespeare:9.9.9", "text", data_dir)
    for spec in ("", ":train", "a b c"):
        assert repr(spec)[1:] in _error(spec, "text", data_dir)


def test_a_missing_library_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "pip install tensorflow-datasets" in _error("tiny_shakespeare", "text", None)


def test_without_a_network_it_fails_within_five_seconds(tmp_path):
    script = (
        "import sys\n"
        "from textgen.corpora.tfds import read_tfds\n"
        "from textgen.errors import CorpusError\n"
        "try:\n"
        "    read_tfds('tiny_shakespeare', 'text', sys.argv[1])\n"
        "except CorpusError as error:\n"
        "    print(error)\n"
    )
    # A proxy that refuses every connection: as good as no network, wherever the test runs.
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=REPOSITORY,
        check=False,
        env={**os.environ, **proxies, "no_proxy": "", "NO_PROXY": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert time.monotonic() - began < 5
    assert "could not be downloaded" in result.stdout and "--tfds-data-dir" in result.stdout
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""

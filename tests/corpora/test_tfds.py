"""TFDS sources, read by the real loader without a network."""

import os
import socketserver
import subprocess
import sys
import threading
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
    """A folder in which `tiny_shakespeare` is prepared from `TEXT`."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")
    source = folder / "input.txt"
    source.write_text(TEXT, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds.download.DownloadManager, "download", lambda *_: str(source))
        read_tfds("tiny_shakespeare", "text", str(folder))
    return str(folder)


def error_of(*arguments):
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


def test_examples_without_a_final_newline_are_joined_by_one(data_dir):
    both = read_tfds("tiny_shakespeare:train+validation", "text", data_dir)
    boundary = int(len(TEXT) * 0.9)
    assert TEXT[boundary - 1] != "\n"
    assert both == TEXT[:boundary] + "\n" + TEXT[boundary:][: len(both) - boundary - 1]


def test_a_corpus_can_have_a_tfds_source(data_dir):
    config = CorpusConfig(sources=("tfds:tiny_shakespeare:test",), tfds_data_dir=data_dir)
    assert TEXT.endswith(read_corpus(config))


def test_an_unknown_split_or_feature_lists_the_known_ones(data_dir):
    message = error_of("tiny_shakespeare:trian", "text", data_dir)
    assert "test, train, validation" in message and "'trian'" in message
    message = error_of("tiny_shakespeare:train[:x]", "text", data_dir)
    assert "train[:x]" in message
    message = error_of("tiny_shakespeare", "book_text", data_dir)
    assert "`text_feature`" in message and "one of: text" in message and "'book_text'" in message
    assert "not text: image, label" in error_of("mnist", "image", data_dir)


def test_the_error_about_an_unknown_name_suggests_only_similar_ones(data_dir):
    message = error_of("tiny_shakespear:train", "text", data_dir)
    assert "Did you mean tiny_shakespeare?" in message and "mnist" not in message
    assert "tiny_shakespeare:9.9.9" in error_of("tiny_shakespeare:9.9.9", "text", data_dir)
    for spec in ("", ":train", "a b c"):
        assert repr(spec)[1:] in error_of(spec, "text", data_dir)


@pytest.mark.parametrize(
    ("package", "extra"), [("tensorflow_datasets", "tfds"), ("tensorflow", "train")]
)
def test_a_missing_package_is_an_error(package, extra):
    script = (
        "import sys\n"
        "from textgen.corpora.tfds import read_tfds\n"
        "from textgen.errors import DependencyError\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == sys.argv[1]:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "try:\n"
        "    read_tfds('tiny_shakespeare', 'text', '/nowhere')\n"
        "except DependencyError as error:\n"
        "    print(error)\n"
    )
    result = run_script(script, package)
    assert result.stdout.startswith(f"This needs {package}, which is not installed.")
    assert f'pip install "textgen[{extra}]"' in result.stdout


def run_script(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=REPOSITORY,
        check=False,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def proxy_environment(port):
    """Environment variables by which every download uses a proxy on this machine."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "https_proxy")
    return {**dict.fromkeys(names, f"http://127.0.0.1:{port}"), "no_proxy": "", "NO_PROXY": ""}


@pytest.fixture
def refused(monkeypatch):
    """Connections to a proxy that refuses all of them, and the waits between retries."""
    connections, waits = [], []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            connections.append(self.client_address)

    def sleep(retry, response=None):
        waits.append(retry.get_backoff_time())

    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", sleep)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        for name, value in proxy_environment(server.server_address[1]).items():
            monkeypatch.setenv(name, value)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield connections, waits
        server.shutdown()
        thread.join()


def test_a_download_is_tried_four_times_with_short_waits(refused, tmp_path):
    downloader = pytest.importorskip("tensorflow_datasets.core.download.downloader")
    default = downloader.MAX_RETRIES
    connections, waits = refused
    assert "could not be downloaded" in error_of("tiny_shakespeare", "text", str(tmp_path))
    assert len(connections) == 4
    assert waits == pytest.approx([0, 0.4, 0.8])
    assert default == downloader.MAX_RETRIES


def test_without_a_network_the_error_is_one_line(tmp_path):
    script = (
        "import sys\n"
        "from textgen.corpora.tfds import read_tfds\n"
        "from textgen.errors import CorpusError\n"
        "try:\n"
        "    read_tfds('tiny_shakespeare', 'text', sys.argv[1])\n"
        "except CorpusError as error:\n"
        "    print(error)\n"
    )
    # A proxy at a port where nothing listens is equivalent to no network.
    result = run_script(script, str(tmp_path), **proxy_environment(9))
    assert "could not be downloaded" in result.stdout and "`tfds_data_dir`" in result.stdout
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""

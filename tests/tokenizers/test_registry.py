"""Building, saving and loading tokenizers of both kinds."""

import json
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from textgen.config import TokenizerConfig
from textgen.errors import DependencyError, RunError, TokenizerError
from textgen.tokenizers import build_tokenizer, load_tokenizer

TEXT = topics["lambda"] + topics["assert"] + topics["while"]

CONFIGS = [
    TokenizerConfig(),
    TokenizerConfig(min_count=30, unknown="unk"),
    TokenizerConfig(tokenizer="subword", vocab_size=400),
    TokenizerConfig(tokenizer="subword", vocab_size=400, subword_algorithm="unigram"),
]


def save(tokenizer, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("config", CONFIGS, ids=["char", "unk", "bpe", "unigram"])
def test_a_saved_tokenizer_is_loaded_unchanged(config, tmp_path):
    built = build_tokenizer(config, TEXT, TEXT)
    loaded = load_tokenizer(save(built, tmp_path))
    assert loaded.fingerprint() == built.fingerprint()
    assert loaded.files() == built.files()
    assert (loaded.kind, loaded.vocab_size) == (built.kind, built.vocab_size)
    assert (loaded.banned_ids, loaded.start_id) == (built.banned_ids, built.start_id)
    token_ids = built.encode(TEXT, config.unknown)
    assert loaded.encode(TEXT, config.unknown).tolist() == token_ids.tolist()
    assert loaded.decode(token_ids) == built.decode(token_ids)


def test_the_alphabet_is_of_the_whole_text_and_subwords_are_of_the_training_text():
    char = build_tokenizer(TokenizerConfig(), "ab", "abxyz")
    assert char.vocab_size == 5
    config = TokenizerConfig(tokenizer="subword", vocab_size=400)
    one = build_tokenizer(config, TEXT, TEXT + "other")
    assert one.fingerprint() == build_tokenizer(config, TEXT, TEXT).fingerprint()


def test_all_kinds_have_different_fingerprints():
    built = [build_tokenizer(config, TEXT, TEXT) for config in CONFIGS]
    assert len({tokenizer.fingerprint() for tokenizer in built}) == len(CONFIGS)


def test_a_missing_folder_or_model_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"tokenizer\.json, which does not exist"):
        load_tokenizer(tmp_path / "nowhere")
    folder = save(build_tokenizer(CONFIGS[2], TEXT, TEXT), tmp_path)
    (folder / "spm.model").unlink()
    with pytest.raises(RunError, match=r"spm\.model, which does not exist"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"schema_version": 1, "schema_version": 1}', "twice"),
        ("[" * 100_000, "nested too deeply"),
        ("\ud800", "damaged"),
        ('{"kind": "char"}', "schema_version"),
        ('{"schema_version": 2, "kind": "char"}', "at most 1.*Received: 2.*upgrade"),
        ('{"schema_version": 1, "kind": "word"}', "Received: 'word'"),
        ('{"schema_version": 1, "kind": "char"}', "lacks 'alphabet'"),
        ('{"schema_version": 1, "kind": "char", "alphabet": 5, "unk": false}', "must be a string"),
        ('{"schema_version": 1, "kind": "char", "alphabet": "ba", "unk": false}', "not sorted"),
        ('{"schema_version": 1, "kind": "char", "alphabet": "", "unk": false}', "at least one"),
    ],
)
def test_a_damaged_or_unknown_header_is_an_error(header, message, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(header.encode("utf-8", "surrogatepass"))
    with pytest.raises(RunError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_truncated_model_is_an_error(tmp_path):
    folder = save(build_tokenizer(CONFIGS[2], TEXT, TEXT), tmp_path)
    model = (folder / "spm.model").read_bytes()
    (folder / "spm.model").write_bytes(model[: len(model) // 2])
    with pytest.raises(RunError, match="damaged"):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "spm.model"])
def test_a_directory_in_place_of_a_file_is_an_error(name, tmp_path):
    folder = save(build_tokenizer(CONFIGS[2], TEXT, TEXT), tmp_path)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(RunError, match="must be a regular file"):
        load_tokenizer(folder)


def test_a_path_may_be_a_string(tmp_path):
    built = build_tokenizer(TokenizerConfig(), TEXT, TEXT)
    folder = save(built, tmp_path)
    assert load_tokenizer(str(folder)).fingerprint() == built.fingerprint()


def test_wrong_types_are_refused():
    for call in (
        lambda: load_tokenizer(5),
        lambda: build_tokenizer(TokenizerConfig(), 5, TEXT),
        lambda: build_tokenizer(TokenizerConfig(), TEXT, None),
    ):
        with pytest.raises(TokenizerError, match=r"must be .*Received: "):
            call()


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[2]], ids=["char", "subword"])
def test_without_sentencepiece_only_subwords_are_unavailable(config, tmp_path, monkeypatch):
    folder = save(build_tokenizer(config, TEXT, TEXT), tmp_path)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    if config.tokenizer == "char":
        assert load_tokenizer(folder).fingerprint()
        assert build_tokenizer(config, TEXT, TEXT).fingerprint()
        return
    for call in (lambda: load_tokenizer(folder), lambda: build_tokenizer(config, TEXT, TEXT)):
        with pytest.raises(DependencyError, match=r'pip install "textgen\[subword\]"'):
            call()


def test_a_character_tokenizer_imports_neither_sentencepiece_nor_tensorflow(tmp_path):
    folder = save(build_tokenizer(TokenizerConfig(), TEXT, TEXT), tmp_path)
    script = (
        "import sys, pathlib, textgen.corpora\n"
        "from textgen.tokenizers import load_tokenizer\n"
        "tokenizer = load_tokenizer(pathlib.Path(sys.argv[1]))\n"
        "print(json.dumps([tokenizer.vocab_size, sorted(sys.modules)]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", "import json\n" + script, str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    vocab_size, modules = json.loads(result.stdout)
    assert vocab_size == len(set(TEXT))
    assert not {"sentencepiece", "tensorflow", "keras", "tensorflow_datasets"} & set(modules)

"""Building, storing and loading tokenizers of either kind."""

import json
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from textgen.config import TokenizerConfig
from textgen.errors import RunError
from textgen.tokenizers import build_tokenizer, load_tokenizer
from textgen.tokenizers.base import fingerprint_files

TEXT = topics["lambda"] + topics["assert"] + topics["while"]

CONFIGS = [
    TokenizerConfig(),
    TokenizerConfig(min_count=30, unknown="unk"),
    TokenizerConfig(tokenizer="subword", vocab_size=400),
    TokenizerConfig(tokenizer="subword", vocab_size=400, subword_algorithm="unigram"),
]


def _save(tokenizer, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("config", CONFIGS, ids=["char", "unk", "bpe", "unigram"])
def test_a_saved_tokenizer_loads_as_the_same(config, tmp_path):
    built = build_tokenizer(config, TEXT, TEXT)
    loaded = load_tokenizer(_save(built, tmp_path))
    assert loaded.fingerprint() == built.fingerprint()
    assert loaded.files() == built.files()
    assert (loaded.kind, loaded.vocab_size) == (built.kind, built.vocab_size)
    assert (loaded.banned_ids, loaded.start_id) == (built.banned_ids, built.start_id)
    token_ids = built.encode(TEXT, config.unknown)
    assert loaded.encode(TEXT, config.unknown).tolist() == token_ids.tolist()
    assert loaded.decode(token_ids) == built.decode(token_ids)


def test_characters_come_from_the_whole_text_and_subwords_from_training_alone():
    char = build_tokenizer(TokenizerConfig(), "ab", "abxyz")
    assert char.vocab_size == 5
    config = TokenizerConfig(tokenizer="subword", vocab_size=400)
    one = build_tokenizer(config, TEXT, TEXT + "other")
    assert one.fingerprint() == build_tokenizer(config, TEXT, TEXT).fingerprint()


def test_all_kinds_have_different_fingerprints():
    built = [build_tokenizer(config, TEXT, TEXT) for config in CONFIGS]
    assert len({tokenizer.fingerprint() for tokenizer in built}) == len(CONFIGS)


def test_a_fingerprint_depends_on_names_and_contents_but_not_on_order():
    files = {"a": b"1", "b": b"2"}
    assert fingerprint_files(files) == fingerprint_files({"b": b"2", "a": b"1"})
    others = [{"a": b"1"}, {"a": b"2", "b": b"1"}, {"a": b"12"}, {"a": b"", "b": b"12"}]
    assert len({fingerprint_files(f) for f in [files, *others]}) == 5


def test_a_missing_folder_or_model_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"tokenizer\.json.*cannot be read"):
        load_tokenizer(tmp_path / "nowhere")
    folder = _save(build_tokenizer(CONFIGS[2], TEXT, TEXT), tmp_path)
    (folder / "spm.model").unlink()
    with pytest.raises(RunError, match=r"spm\.model.*cannot be read"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ("\ud800", "damaged"),
        ('{"kind": "char"}', "schema_version"),
        ('{"schema_version": 2, "kind": "char"}', "at most 1.*Received: 2.*upgrade"),
        ('{"schema_version": 1, "kind": "word"}', "Received: 'word'"),
        ('{"schema_version": 1, "kind": "char"}', "alphabet"),
        ('{"schema_version": 1, "kind": "char", "alphabet": "ba", "unk": false}', "not sorted"),
        ('{"schema_version": 1, "kind": "char", "alphabet": "", "unk": false}', "at least one"),
    ],
)
def test_a_damaged_or_foreign_header_is_an_error(header, message, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(header.encode("utf-8", "surrogatepass"))
    with pytest.raises(RunError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_truncated_model_is_an_error(tmp_path):
    folder = _save(build_tokenizer(CONFIGS[2], TEXT, TEXT), tmp_path)
    model = (folder / "spm.model").read_bytes()
    (folder / "spm.model").write_bytes(model[: len(model) // 2])
    with pytest.raises(RunError, match="damaged"):
        load_tokenizer(folder)


def test_a_character_tokenizer_imports_neither_sentencepiece_nor_tensorflow(tmp_path):
    folder = _save(build_tokenizer(TokenizerConfig(), TEXT, TEXT), tmp_path)
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

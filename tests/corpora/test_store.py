"""The tokenized corpus, in memory and in its file."""

import dataclasses

import numpy as np
import pytest

from textgen.config import TokenizerConfig
from textgen.corpora import CORPUS_FILE, TokenizedCorpus, tokenize_corpus
from textgen.errors import RunError, TokenizerError
from textgen.storage import read_safetensors
from textgen.tokenizers import build_tokenizer
from textgen.tokenizers.char import CharTokenizer

TRAIN, VALIDATION = "aab é 漢 " * 20 + "q", "b é a" * 5


def make_corpus(config=None, train=TRAIN, validation=VALIDATION):
    config = config or TokenizerConfig()
    tokenizer = build_tokenizer(config, train, train + validation)
    return tokenizer, tokenize_corpus(train, validation, tokenizer, config)


@pytest.mark.parametrize("kind", ["char", "subword"])
def test_ids_decode_to_the_texts_and_counts_are_those_of_the_texts(kind):
    tokenizer, corpus = make_corpus(TokenizerConfig(tokenizer=kind, vocab_size=270))
    assert tokenizer.decode(corpus.train) == TRAIN
    assert tokenizer.decode(corpus.validation) == VALIDATION
    assert (corpus.train_characters, corpus.train_bytes) == (len(TRAIN), len(TRAIN.encode()))
    assert corpus.validation_characters == len(VALIDATION)
    assert corpus.validation_bytes == len(VALIDATION.encode())


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.int32)],
)
def test_the_dtype_is_the_smallest_for_the_vocabulary(size, dtype):
    points = [p for p in range(size + 0x800) if not 0xD800 <= p < 0xE000]
    text = "".join(map(chr, points[:size]))
    tokenizer = CharTokenizer(text)
    assert tokenizer.vocab_size == size
    corpus = tokenize_corpus(text, text[-1], tokenizer, TokenizerConfig())
    assert corpus.train.dtype == corpus.validation.dtype == dtype
    assert corpus.validation.tolist() == [size - 1]


def test_rare_characters_are_left_out_under_skip_and_become_unk_otherwise():
    for policy in ("error", "unk"):
        tokenizer, corpus = make_corpus(TokenizerConfig(min_count=2, unknown=policy))
        assert tokenizer.decode(corpus.train) == TRAIN.replace("q", "\ufffd")
        assert (corpus.train_characters, corpus.train_bytes) == (len(TRAIN), len(TRAIN.encode()))
    tokenizer, corpus = make_corpus(TokenizerConfig(min_count=2, unknown="skip"))
    assert tokenizer.decode(corpus.train) == TRAIN.replace("q", "")
    assert corpus.train_characters == len(corpus.train) == len(TRAIN) - 1
    assert corpus.train_bytes == len(TRAIN.encode()) - 1


def test_an_unknown_character_is_an_error_without_min_count():
    with pytest.raises(TokenizerError, match="'q'"):
        tokenize_corpus(TRAIN, VALIDATION, CharTokenizer("ab é漢"), TokenizerConfig())


def save(corpus, folder):
    path = folder / CORPUS_FILE
    path.write_bytes(corpus.to_bytes())
    return path


def test_a_saved_corpus_is_loaded_unchanged(tmp_path):
    _, corpus = make_corpus()
    loaded = TokenizedCorpus.load(save(corpus, tmp_path))
    for field in dataclasses.fields(corpus):
        before, after = getattr(corpus, field.name), getattr(loaded, field.name)
        assert np.array_equal(before, after)
        assert np.asarray(before).dtype == np.asarray(after).dtype


def test_the_file_format_is_that_of_the_first_version(tmp_path):
    _, corpus = make_corpus(train="aé漢", validation="éa")
    metadata, arrays = read_safetensors(save(corpus, tmp_path), missing="")
    assert arrays["train"].tolist() == [0, 1, 2]
    assert arrays["validation"].tolist() == [1, 0]
    assert {array.dtype.name for array in arrays.values()} == {"uint8"}
    # Written by the first version of textgen.
    assert metadata == {
        "schema_version": "1",
        "train_characters": "3",
        "train_bytes": "6",
        "validation_characters": "2",
        "validation_bytes": "3",
        "sha256": "c901e771df281d650e3b466f64fe58acee67106024f362b1dd977c1cace68062",
    }


def test_every_damage_is_detected(tmp_path):
    path = save(make_corpus()[1], tmp_path)
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[-3] ^= 1
    recounted = data.replace(b'"train_characters":"161"', b'"train_characters":"160"')
    renamed = data.replace(b'"train":', b'"trick":')
    uncounted = data.replace(b'"train_characters":"161"', b'"train_chapters??":"161"')
    no_number = data.replace(b'"train_characters":"161"', b'"train_characters":"one"')
    assert data not in (recounted, renamed, uncounted, no_number)
    contents = [b"", b"x" * 100, data[:-1], data[:50], bytes(flipped)]
    for damaged in (*contents, recounted, renamed, uncounted, no_number):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"damaged.*train again") as caught:
            TokenizedCorpus.load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("train", [np.zeros((2, 3), np.uint8), np.zeros(6), np.array(3, np.uint8)])
def test_arrays_that_are_not_token_ids_are_refused_although_their_hash_matches(train, tmp_path):
    corpus = dataclasses.replace(make_corpus()[1], train=train)
    with pytest.raises(RunError, match="must contain token ids"):
        TokenizedCorpus.load(save(corpus, tmp_path))


def test_a_newer_schema_and_a_missing_file_are_errors(tmp_path):
    path = save(make_corpus()[1], tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"schema_version":"1"', b'"schema_version":"2"'))
    with pytest.raises(RunError, match=r"at most 1\. Received: 2"):
        TokenizedCorpus.load(path)
    with pytest.raises(RunError, match="does not exist"):
        TokenizedCorpus.load(tmp_path / "nothing")

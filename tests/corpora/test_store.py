"""A tokenized corpus in memory and on disk."""

import dataclasses

import numpy as np
import pytest

from textgen.config import TokenizerConfig
from textgen.corpora import TokenizedCorpus, tokenize_corpus
from textgen.errors import RunError, TokenizerError
from textgen.tokenizers import build_tokenizer
from textgen.tokenizers.char import CharTokenizer

TRAIN, VALIDATION = "aab é 漢 " * 20 + "q", "b é a" * 5


def _corpus(config=None, train=TRAIN, validation=VALIDATION):
    config = config or TokenizerConfig()
    tokenizer = build_tokenizer(config, train, train + validation)
    return tokenizer, tokenize_corpus(train, validation, tokenizer, config)


@pytest.mark.parametrize("kind", ["char", "subword"])
def test_ids_decode_to_the_texts_and_counts_are_theirs(kind):
    tokenizer, corpus = _corpus(TokenizerConfig(tokenizer=kind, vocab_size=270))
    assert tokenizer.decode(corpus.train) == TRAIN
    assert tokenizer.decode(corpus.validation) == VALIDATION
    assert (corpus.train_characters, corpus.train_bytes) == (len(TRAIN), len(TRAIN.encode()))
    assert corpus.validation_characters == len(VALIDATION)
    assert corpus.validation_bytes == len(VALIDATION.encode())


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.int32)],
)
def test_the_dtype_is_the_smallest_that_holds_the_vocabulary(size, dtype):
    points = [p for p in range(size + 0x800) if not 0xD800 <= p < 0xE000]
    text = "".join(map(chr, points[:size]))
    tokenizer = CharTokenizer(text)
    assert tokenizer.vocab_size == size
    corpus = tokenize_corpus(text, text[-1], tokenizer, TokenizerConfig())
    assert corpus.train.dtype == corpus.validation.dtype == dtype
    assert corpus.validation.tolist() == [size - 1]


def test_rare_characters_are_left_out_under_skip_and_become_unk_otherwise():
    for policy in ("error", "unk"):
        tokenizer, corpus = _corpus(TokenizerConfig(min_count=2, unknown=policy))
        assert tokenizer.decode(corpus.train) == TRAIN.replace("q", "\ufffd")
        assert (corpus.train_characters, corpus.train_bytes) == (len(TRAIN), len(TRAIN.encode()))
    tokenizer, corpus = _corpus(TokenizerConfig(min_count=2, unknown="skip"))
    assert tokenizer.decode(corpus.train) == TRAIN.replace("q", "")
    assert corpus.train_characters == len(corpus.train) == len(TRAIN) - 1
    assert corpus.train_bytes == len(TRAIN.encode()) - 1


def test_an_unknown_character_is_an_error_without_min_count():
    with pytest.raises(TokenizerError, match="'q'"):
        tokenize_corpus(TRAIN, VALIDATION, CharTokenizer("ab é漢"), TokenizerConfig())


def test_what_is_stored_comes_back(tmp_path):
    _, corpus = _corpus()
    path = tmp_path / "corpus.safetensors"
    path.write_bytes(corpus.to_bytes())
    loaded = TokenizedCorpus.load(path)
    for field in dataclasses.fields(corpus):
        before, after = getattr(corpus, field.name), getattr(loaded, field.name)
        assert np.array_equal(before, after)
        assert np.asarray(before).dtype == np.asarray(after).dtype


def test_every_damage_is_noticed():
    data = _corpus()[1].to_bytes()
    flipped = bytearray(data)
    flipped[-3] ^= 1
    recounted = data.replace(b'"train_characters":"161"', b'"train_characters":"160"')
    assert recounted != data
    for damaged in (b"", b"x" * 100, data[:-1], data[:50], bytes(flipped), recounted):
        with pytest.raises(RunError, match="damaged") as caught:
            TokenizedCorpus.from_bytes(damaged)
        assert "\n" not in str(caught.value)


def test_a_newer_schema_and_a_missing_file_are_errors(tmp_path):
    data = _corpus()[1].to_bytes()
    newer = data.replace(b'"schema_version":"1"', b'"schema_version":"2"')
    with pytest.raises(RunError, match=r"at most 1\. Received: 2"):
        TokenizedCorpus.from_bytes(newer)
    with pytest.raises(RunError, match="cannot be read"):
        TokenizedCorpus.load(tmp_path / "nothing")

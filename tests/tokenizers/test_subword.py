"""The subword tokenizer: round trips, streams, training, and an old SentencePiece."""

import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.errors import ConfigError, DependencyError, TokenizerError
from textgen.tokenizers import subword
from textgen.tokenizers.subword import SubwordTokenizer, train_subwords

REPOSITORY = Path(__file__).parents[2]

TRAINING_TEXT = topics["lambda"] + topics["assert"] + topics["while"] + "\tthe end\n"
NO_SPACES = "春眠不覺曉\n處處聞啼鳥\n夜來風雨聲\n花落知多少\n" * 4


class TrainerCalled(Exception):
    """The trainer was called."""


def call_trainer(*arguments):
    raise TrainerCalled


SPECIAL = "▁▅ \t\n\r\0\x1b\x85\u2028\ufeff\ufffd\U0010ffff"
TEXTS = st.text(st.one_of(st.sampled_from(SPECIAL), st.characters(exclude_categories=["Cs"])))


@pytest.fixture(
    scope="module",
    params=[("bpe", TRAINING_TEXT, 400), ("unigram", TRAINING_TEXT, 400), ("bpe", NO_SPACES, 300)],
    ids=["bpe", "unigram", "no-spaces"],
)
def tokenizer(request):
    algorithm, text, vocab_size = request.param
    return train_subwords(text, vocab_size, algorithm)


@settings(max_examples=150)
@given(text=TEXTS)
def test_decoding_inverts_encoding(tokenizer, text):
    token_ids = tokenizer.encode(text)
    assert token_ids.dtype == np.int32
    assert tokenizer.decode(token_ids) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  a   b  ",
        "▁",
        "a▁b ▁ ▁▁",
        "\n\n",
        "\t\ttab",
        "😀👩‍👩‍👧 e\u0301",
        "漢字かな",
        "<unk><s></s><0x41>",
        "\0\x01\x7f",
        "crlf\r\n",
        "▅",
    ],
)
def test_difficult_texts_are_decoded_unchanged(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=60)
@given(lines=st.lists(TEXTS, max_size=5))
def test_chunks_that_end_at_newlines_have_the_ids_of_the_whole_text(tokenizer, lines):
    chunks = [line + "\n" for line in lines]
    apart = [i for chunk in chunks for i in tokenizer.encode(chunk).tolist()]
    assert tokenizer.encode("".join(chunks)).tolist() == apart


@settings(max_examples=60)
@given(text=TEXTS)
def test_a_stream_never_splits_a_character(tokenizer, text):
    decoder = tokenizer.decoder()
    fed = [decoder.feed(i) for i in tokenizer.encode(text)]
    assert "".join(fed) == text
    assert sum(part.count("\ufffd") for part in fed) == text.count("\ufffd")
    assert decoder.flush() == ""


@settings(max_examples=60)
@given(token_ids=st.lists(st.integers(0, 299)))
def test_streaming_any_ids_equals_decoding_them(tokenizer, token_ids):
    decoder = tokenizer.decoder()
    streamed = "".join(decoder.feed(i) for i in token_ids) + decoder.flush()
    assert streamed == tokenizer.decode(token_ids)


def test_an_incomplete_character_is_flushed_once(tokenizer):
    token_ids = tokenizer.encode("😀")
    decoder = tokenizer.decoder()
    assert [decoder.feed(i) for i in token_ids[:-1]] == ["", "", ""]
    assert decoder.flush() == "\ufffd"
    assert decoder.flush() == ""


def test_the_newline_is_one_token_and_starts_a_text(tokenizer):
    assert tokenizer.encode("\n").tolist() == [tokenizer.start_id]


def test_unk_is_banned_and_never_encoded(tokenizer):
    (unk,) = tokenizer.banned_ids
    assert tokenizer.decode([unk]) == "\ufffd"
    assert unk not in tokenizer.encode(SPECIAL + "the 春 ☃")


def test_a_text_has_less_than_half_as_many_subwords_as_characters():
    tokenizer = train_subwords(TRAINING_TEXT, 500, "bpe")
    assert len(tokenizer.encode(TRAINING_TEXT)) < len(TRAINING_TEXT) / 2


def test_training_is_deterministic_and_fingerprints_differ():
    bpe = train_subwords(TRAINING_TEXT, 400, "bpe")
    assert bpe.files() == train_subwords(TRAINING_TEXT, 400, "bpe").files()
    unigram = train_subwords(TRAINING_TEXT, 400, "unigram")
    smaller = train_subwords(TRAINING_TEXT, 399, "bpe")
    assert len({t.fingerprint() for t in (bpe, unigram, smaller)}) == 3


def test_a_long_line_is_not_ignored_in_training():
    long_line = "".join(f"word{i % 7} " for i in range(2_000))
    assert len(train_subwords(long_line, 278, "bpe").encode("word5 word6 ")) < 12


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_a_vocabulary_larger_than_the_text_allows_is_lowered(algorithm):
    largest = train_subwords(TRAINING_TEXT, 4000, algorithm).vocab_size
    assert 260 < largest < 4000
    assert train_subwords(TRAINING_TEXT, largest + 1, algorithm).vocab_size == largest


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("vocab_size", [262, 300, 400])
def test_rare_characters_are_bytes_if_there_are_more_characters_than_pieces(algorithm, vocab_size):
    many = "".join(chr(0x4E00 + i) * (1 + 600 // (i + 1)) for i in range(500))
    tokenizer = train_subwords(many, vocab_size, algorithm)
    assert tokenizer.vocab_size <= vocab_size
    assert tokenizer.decode(tokenizer.encode(many)) == many
    frequent, rare = chr(0x4E00), chr(0x4E00 + 499)
    assert len(tokenizer.encode(frequent)) < len(tokenizer.encode(rare)) == 3


def test_a_text_of_empty_lines_is_refused():
    with pytest.raises(TokenizerError, match="not empty"):
        train_subwords("\n▁\n", 300, "bpe")


@pytest.mark.parametrize("version", ["0.2.1", "0.2.2", "0.1.99.post1"])
@pytest.mark.parametrize(
    "text", [NO_SPACES, "a b\n" + "c" * 65_536], ids=["no-spaces", "long-word"]
)
def test_a_text_that_an_old_sentencepiece_aborts_on_is_refused(text, version, monkeypatch):
    monkeypatch.setattr(subword, "installed_version", {"sentencepiece": version}.get)
    monkeypatch.setattr(subword, "_run_trainer", call_trainer)
    with pytest.raises(DependencyError, match=rf"at least 0\.2\.3.*Received: {version}.*textgen\["):
        train_subwords(text, 300, "bpe")


@pytest.mark.parametrize(
    ("text", "algorithm", "version"),
    [
        (TRAINING_TEXT, "bpe", "0.2.1"),
        ("a b\n" + "c" * 65_535 + " d", "bpe", "0.2.1"),
        (NO_SPACES, "unigram", "0.2.1"),
        (NO_SPACES, "bpe", "0.2.3"),
        (NO_SPACES, "bpe", "0.10.0"),
        (NO_SPACES, "bpe", "1.0"),
    ],
)
def test_all_other_texts_reach_the_trainer(text, algorithm, version, monkeypatch):
    monkeypatch.setattr(subword, "installed_version", {"sentencepiece": version}.get)
    monkeypatch.setattr(subword, "_run_trainer", call_trainer)
    with pytest.raises(TrainerCalled):
        train_subwords(text, 300, algorithm)


def test_wrong_types_and_settings_are_refused(tokenizer):
    for call in (
        lambda: tokenizer.encode(5),
        lambda: tokenizer.decode("abc"),
        lambda: tokenizer.decode([[1]]),
        lambda: train_subwords(5, 300, "bpe"),
    ):
        with pytest.raises(TokenizerError, match=r"must be .*Received: "):
            call()
    for call in (
        lambda: tokenizer.encode("a", "ignore"),
        lambda: train_subwords(TRAINING_TEXT, 259, "bpe"),
        lambda: train_subwords(TRAINING_TEXT, "300", "bpe"),
        lambda: train_subwords(TRAINING_TEXT, 300, "word"),
    ):
        with pytest.raises(ConfigError, match=r"must be .*Received: "):
            call()


def test_a_lone_surrogate_is_refused_skipped_or_replaced(tokenizer):
    with pytest.raises(TokenizerError, match=r"U\+DC80 at position 1\."):
        tokenizer.encode("a\udc80b")
    assert tokenizer.decode(tokenizer.encode("a\udc80b", "skip")) == "ab"
    assert tokenizer.decode(tokenizer.encode("a\udc80b", "unk")) == "a\ufffdb"


def test_an_id_outside_the_vocabulary_is_refused(tokenizer):
    for token_id in (-1, tokenizer.vocab_size):
        with pytest.raises(TokenizerError, match=f"Received: {token_id}"):
            tokenizer.decode([token_id])


@pytest.mark.parametrize("model", [b"", b"not a model"])
def test_bytes_that_are_not_a_model_are_refused(model):
    with pytest.raises(TokenizerError, match=r"A subword model must .*Received: "):
        SubwordTokenizer(model, "bpe")


def test_a_text_of_thousands_of_distinct_characters_has_fewer_tokens_than_characters():
    # Lines of seven characters whose frequencies fall like 1 / rank, as in Chinese poems.
    ranks = np.arange(1, 4001)
    probs = 1 / ranks / (1 / ranks).sum()
    codes = 0x4E00 + np.random.default_rng(0).choice(4000, (8_000, 7), p=probs)
    text = "".join("".join(map(chr, line)) + "\n" for line in codes.tolist())
    tokenizer = train_subwords(text, 5_000, "unigram")
    token_ids = tokenizer.encode(text)
    assert tokenizer.decode(token_ids) == text
    assert len(token_ids) < len(text)


@pytest.mark.parametrize(
    "imports", ["sentencepiece, tensorflow", "tensorflow, sentencepiece"], ids=["before", "after"]
)
def test_sentencepiece_works_before_and_after_tensorflow(imports):
    script = (
        f"import {imports}\n"
        "from textgen.tokenizers.subword import train_subwords\n"
        "tokenizer = train_subwords('the cat sat on the mat ' * 9, 275, 'bpe')\n"
        "total = int(tensorflow.reduce_sum(tensorflow.constant([1, 2])))\n"
        "print(tokenizer.decode(tokenizer.encode('the cat')), total)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stdout) == (0, "the cat 3\n"), result.stderr[-2000:]

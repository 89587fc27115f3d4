"""The copy guard, compared with a look-up of every token in the corpus."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textgen.corpora.passages import PassageIndex
from textgen.errors import ConfigError
from textgen.generation.restraints.copy_guard import CopyGuard, longest_copies
from textgen.sampling.draw import pick_greedy
from textgen.tokenizers.char import CharTokenizer
from textgen.tokenizers.subword import train_subwords

TALE = (
    "Es war einmal ein König, der hatte eine Tochter; die hatte einen Ball.\n"
    "Und der Ball fiel in den Brunnen, und der Frosch holte ihn: 漢字 漢語 😀😃.\n"
    "Es war einmal ein Frosch, der hatte einen Brunnen, und der Brunnen war tief.\n"
)
CHAR = CharTokenizer(TALE + "xyz")
SUBWORD = train_subwords(TALE * 3 + "Da kam der Wolf und sprach mit der Großmutter.\n", 340, "bpe")
TOKENIZERS = {"char": CHAR, "subword": SUBWORD}


def pieces_of(tokenizer):
    return [tokenizer.decode([token_id]) for token_id in range(tokenizer.vocab_size)]


def has_copy(corpus, text, max_copy):
    spans = (text[b : b + max_copy + 1] for b in range(len(text) - max_copy))
    return any(span in corpus for span in spans)


def forbidden_tokens(corpus, tokenizer, generated_ids, max_copy):
    """Which tokens complete a copied span, or would if the text ended after them."""
    forbidden = []
    for token_id in range(tokenizer.vocab_size):
        decoder = tokenizer.decoder()
        before = "".join(decoder.feed(i) for i in generated_ids)
        after = before + decoder.feed(token_id) + decoder.flush()
        # Only spans that end in the piece: earlier ones were already generated.
        spans = after[max(0, len(before) - max_copy) :]
        forbidden.append(has_copy(corpus, spans, max_copy))
    return np.array(forbidden)


def mask_of(guard, vocab_size):
    return np.isinf(guard.allow(np.zeros((1, vocab_size), np.float32))[0])


def generate_checked(corpus, tokenizer, max_copy, choose, steps):
    """Generate up to `steps` tokens that `choose` picks, and check the mask before each."""
    guard = CopyGuard(PassageIndex.build(corpus), tokenizer, max_copy).start()
    generated = []
    for _ in range(steps):
        expected = forbidden_tokens(corpus, tokenizer, generated, max_copy)
        if expected.all():
            with pytest.raises(ConfigError, match="max_copy"):
                mask_of(guard, tokenizer.vocab_size)
            break
        assert np.array_equal(mask_of(guard, tokenizer.vocab_size), expected)
        generated.append(int(choose(np.flatnonzero(~expected))))
        guard.advance(generated[-1])
    return tokenizer.decode(generated)


@settings(max_examples=150)
@given(st.data(), st.text("aab", max_size=40), st.integers(1, 6))
def test_exactly_the_copying_characters_are_forbidden(data, corpus, max_copy):
    def choose(allowed):
        return data.draw(st.sampled_from(allowed.tolist()))

    generated = generate_checked(corpus, CharTokenizer("abc"), max_copy, choose, 12)
    assert not has_copy(corpus, generated, max_copy)


# Its pieces: nothing, "a", "b ", both halves of é and of 😀, "z" with the first half of é, newline.
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.data(),
    st.lists(st.sampled_from(["a", "b ", "é", "😀", "zé", "\n", "\ufffd"]), max_size=25),
    st.integers(1, 5),
)
def test_exactly_the_copying_parts_of_characters_are_forbidden(tokenizer, data, corpus, max_copy):
    def choose(allowed):
        return data.draw(st.sampled_from(allowed.tolist()))

    text = "".join(corpus)
    generated = generate_checked(text, tokenizer, max_copy, choose, 12)
    assert not has_copy(text, generated, max_copy)


@pytest.mark.parametrize("max_copy", [1, 2, 3, 5, 8, 13, 30])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_exactly_the_copying_tokens_are_forbidden_while_the_corpus_is_copied(kind, max_copy):
    tokenizer = TOKENIZERS[kind]
    wanted = iter(tokenizer.encode(TALE[20:]).tolist())

    def choose(allowed):
        token_id = next(wanted)
        return token_id if token_id in allowed else allowed[len(allowed) // 2]

    generated = generate_checked(TALE, tokenizer, max_copy, choose, 60)
    assert not has_copy(TALE, generated, max_copy)


def copy_corpus(index, tokenizer, max_copy, batch=1, steps=300):
    """Generate greedily with a model that always predicts the next token of the corpus."""
    shared = None if max_copy is None else CopyGuard(index, tokenizer, max_copy)
    script = tokenizer.encode(TALE * 3)
    texts = []
    for row in range(batch):
        guard = shared and shared.start()
        generated = []
        for step in range(steps):
            logits = np.linspace(0, 1, tokenizer.vocab_size, dtype=np.float32)[None].copy()
            logits[:, list(tokenizer.banned_ids)] = -np.inf
            logits[0, script[step + 7 * row]] = 5
            token_id = int(pick_greedy(guard.allow(logits) if guard else logits)[0])
            if guard:
                guard.advance(token_id)
            generated.append(token_id)
        texts.append(tokenizer.decode(generated))
    return texts


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_model_that_copies_is_limited_and_copies_everything_without_the_guard(kind):
    tokenizer = TOKENIZERS[kind]
    index = PassageIndex.build(TALE)
    steps = min(300, len(tokenizer.encode(TALE)))
    (copied,) = copy_corpus(index, tokenizer, None, steps=steps)
    assert TALE.startswith(copied) or copied.startswith(TALE)
    (guarded,) = copy_corpus(index, tokenizer, 30, steps=steps)
    assert guarded != copied
    copies = longest_copies(index, [copied, guarded])
    assert copies[0].length > 100
    assert copies[1].length <= 30
    # It may copy up to the limit: the first forbidden piece would have exceeded it.
    assert copies[1].length > 30 - max(map(len, pieces_of(tokenizer)))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_rows_are_independent(kind):
    index = PassageIndex.build(TALE)
    alone = copy_corpus(index, TOKENIZERS[kind], 10, steps=60)
    assert copy_corpus(index, TOKENIZERS[kind], 10, batch=3, steps=60)[:1] == alone


def test_only_generated_text_counts():
    guard = CopyGuard(PassageIndex.build(TALE), CHAR, 5).start()
    for character in TALE[30:35]:
        assert not mask_of(guard, CHAR.vocab_size).any()
        guard.advance(int(CHAR.encode(character)[0]))
    assert CHAR.decode(np.flatnonzero(mask_of(guard, CHAR.vocab_size))) == TALE[35]


def test_only_the_logits_of_forbidden_tokens_change():
    guard = CopyGuard(PassageIndex.build("abcabd"), CharTokenizer("abcd"), 2).start()
    logits = np.arange(4, dtype=np.float32)[None]
    assert guard.allow(logits) is logits
    guard.advance(0)
    guard.advance(1)
    before = logits.copy()
    kept = guard.allow(logits)
    assert np.array_equal(logits, before)
    assert kept.dtype == np.float32
    assert kept.tolist() == [[0, 1, -np.inf, -np.inf]]


def test_no_token_left_and_a_limit_of_0_are_errors():
    tokenizer = CharTokenizer("ab")
    guard = CopyGuard(PassageIndex.build("aabb"), tokenizer, 1).start()
    guard.advance(0)
    with pytest.raises(ConfigError, match=r"`max_copy`.*Received: 1,") as caught:
        guard.allow(np.zeros((1, 2), np.float32))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"`max_copy` must be at least 1\. Received: 0"):
        CopyGuard(PassageIndex.build(TALE), CHAR, 0)


def test_a_copied_piece_longer_than_the_limit_is_always_forbidden():
    mask = mask_of(CopyGuard(PassageIndex.build(TALE), SUBWORD, 2).start(), SUBWORD.vocab_size)
    assert mask.any()
    assert mask.tolist() == [has_copy(TALE, piece, 2) for piece in pieces_of(SUBWORD)]


@pytest.mark.parametrize("character", ["漢", "😀"])
def test_a_character_is_forbidden_at_the_byte_that_completes_it(character):
    guard = CopyGuard(PassageIndex.build(TALE), SUBWORD, 2).start()
    start = TALE.index(character)
    for before in TALE[start - 2 : start]:
        guard.advance(int(SUBWORD.encode(before)[-1]))
    *first, last = (SUBWORD.pieces().index(bytes([byte])) for byte in character.encode())
    for token_id in first:
        assert not mask_of(guard, SUBWORD.vocab_size)[token_id]
        guard.advance(token_id)
    mask = mask_of(guard, SUBWORD.vocab_size)
    assert mask[last]
    assert not mask[last + 1]


def test_a_token_without_bytes_does_not_change_an_unfinished_character(tokenizer):
    guard = CopyGuard(PassageIndex.build("a😀"), tokenizer, 1).start()
    for token_id in (*tokenizer.encode("a😀")[:2], 0, 0, 0, 0):
        guard.advance(token_id)
    assert np.flatnonzero(mask_of(guard, tokenizer.vocab_size)).tolist() == [
        tokenizer.encode("😀")[1]
    ]


def test_a_piece_that_breaks_a_character_counts_with_its_replacement(tokenizer):
    guard = CopyGuard(PassageIndex.build("a\ufffdb "), tokenizer, 3).start()
    for token_id in (*tokenizer.encode("a"), tokenizer.encode("é")[0]):
        assert not mask_of(guard, tokenizer.vocab_size).any()
        guard.advance(token_id)
    assert np.flatnonzero(mask_of(guard, tokenizer.vocab_size)).tolist() == [
        tokenizer.encode("b ")[0]
    ]


def test_tokens_that_are_impossible_anyway_do_not_count_as_left():
    guard = CopyGuard(PassageIndex.build("ab"), CharTokenizer("abc"), 1).start()
    guard.advance(0)
    assert guard.allow(np.array([[0, 0, -np.inf]])).tolist() == [[0, -np.inf, -np.inf]]
    with pytest.raises(ConfigError, match="every possible token"):
        guard.allow(np.array([[-np.inf, 0, -np.inf]]))


def test_the_longest_copy_of_each_text_is_found():
    index = PassageIndex.build(TALE)
    found = longest_copies(index, [TALE[10:60] + "#", "", "###"])
    assert [copy.length for copy in found] == [50, 0, 0]
    assert found[0].position == 10

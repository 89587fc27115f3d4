"""The copy guard, held to asking for every token whether it completes a copied span."""

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


def _pieces(tokenizer):
    return [tokenizer.decode([token_id]) for token_id in range(tokenizer.vocab_size)]


def _has_copy(corpus, text, max_copy):
    spans = (text[b : b + max_copy + 1] for b in range(len(text) - max_copy))
    return any(span in corpus for span in spans)


def _oracle(corpus, tokenizer, written_ids, max_copy):
    """Which tokens complete a copied span, or would if the text ended after them."""
    forbidden = []
    for token_id in range(tokenizer.vocab_size):
        decoder = tokenizer.decoder()
        before = "".join(decoder.feed(i) for i in written_ids)
        after = before + decoder.feed(token_id) + decoder.flush()
        # Only spans that end in the piece: the others were written already.
        spans = after[max(0, len(before) - max_copy) :]
        forbidden.append(_has_copy(corpus, spans, max_copy))
    return np.array(forbidden)


def _mask(guard, vocab_size):
    return np.isinf(guard.allow(np.zeros((1, vocab_size), np.float32))[0])


def _follow(corpus, tokenizer, max_copy, choose, steps):
    """Write `steps` tokens that `choose` picks among those allowed, the mask checked at each."""
    guard = CopyGuard(PassageIndex.build(corpus), tokenizer, max_copy).start()
    written = []
    for _ in range(steps):
        expected = _oracle(corpus, tokenizer, written, max_copy)
        if expected.all():
            with pytest.raises(ConfigError, match="max_copy"):
                _mask(guard, tokenizer.vocab_size)
            break
        assert np.array_equal(_mask(guard, tokenizer.vocab_size), expected)
        written.append(int(choose(np.flatnonzero(~expected))))
        guard.advance(written[-1])
    return tokenizer.decode(written)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.text("aab", max_size=40), st.integers(1, 6))
def test_the_mask_is_the_oracles_over_characters(data, corpus, max_copy):
    def choose(allowed):
        return data.draw(st.sampled_from(allowed.tolist()))

    written = _follow(corpus, CharTokenizer("abc"), max_copy, choose, 12)
    assert not _has_copy(corpus, written, max_copy)


# its pieces: nothing, "a", "b ", half an é twice, half a 😀 twice, "z" with half an é, newline
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.data(),
    st.lists(st.sampled_from(["a", "b ", "é", "😀", "zé", "\n", "\ufffd"]), max_size=25),
    st.integers(1, 5),
)
def test_the_mask_is_the_oracles_over_parts_of_characters(tokenizer, data, corpus, max_copy):
    def choose(allowed):
        return data.draw(st.sampled_from(allowed.tolist()))

    text = "".join(corpus)
    written = _follow(text, tokenizer, max_copy, choose, 12)
    assert not _has_copy(text, written, max_copy)


@pytest.mark.parametrize("max_copy", [1, 2, 3, 5, 8, 13, 30])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_mask_is_the_oracles_while_reciting(kind, max_copy):
    tokenizer = TOKENIZERS[kind]
    wanted = iter(tokenizer.encode(TALE[20:]).tolist())

    def choose(allowed):
        token_id = next(wanted)
        return token_id if token_id in allowed else allowed[len(allowed) // 2]

    written = _follow(TALE, tokenizer, max_copy, choose, 60)
    assert not _has_copy(TALE, written, max_copy)


def _write(index, tokenizer, max_copy, batch=1, steps=300):
    """Write greedily with a model that always wants to go on as the tale does."""
    shared = None if max_copy is None else CopyGuard(index, tokenizer, max_copy)
    script = tokenizer.encode(TALE * 3)
    texts = []
    for row in range(batch):
        guard = shared and shared.start()
        written = []
        for step in range(steps):
            logits = np.linspace(0, 1, tokenizer.vocab_size, dtype=np.float32)[None].copy()
            logits[:, list(tokenizer.banned_ids)] = -np.inf
            logits[0, script[step + 7 * row]] = 5
            token_id = int(pick_greedy(guard.allow(logits) if guard else logits)[0])
            if guard:
                guard.advance(token_id)
            written.append(token_id)
        texts.append(tokenizer.decode(written))
    return texts


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_model_that_recites_is_stopped_and_without_the_guard_it_recites(kind):
    tokenizer = TOKENIZERS[kind]
    index = PassageIndex.build(TALE)
    steps = min(300, len(tokenizer.encode(TALE)))
    (recited,) = _write(index, tokenizer, None, steps=steps)
    assert TALE.startswith(recited) or recited.startswith(TALE)
    (guarded,) = _write(index, tokenizer, 30, steps=steps)
    assert guarded != recited
    copies = longest_copies(index, [recited, guarded])
    assert copies[0].length > 100
    assert copies[1].length <= 30
    # It may recite up to there: what stopped it was a piece that would have gone beyond.
    assert copies[1].length > 30 - max(map(len, _pieces(tokenizer)))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_rows_do_not_influence_each_other(kind):
    index = PassageIndex.build(TALE)
    alone = _write(index, TOKENIZERS[kind], 10, steps=60)
    assert _write(index, TOKENIZERS[kind], 10, batch=3, steps=60)[:1] == alone


def test_only_what_was_written_counts_not_the_prompt():
    guard = CopyGuard(PassageIndex.build(TALE), CHAR, 5).start()
    for character in TALE[30:35]:
        assert not _mask(guard, CHAR.vocab_size).any()
        guard.advance(int(CHAR.encode(character)[0]))
    assert CHAR.decode(np.flatnonzero(_mask(guard, CHAR.vocab_size))) == TALE[35]


def test_the_logits_stay_as_they_are_but_for_the_forbidden():
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


def test_no_token_left_and_no_characters_at_all_are_errors():
    tokenizer = CharTokenizer("ab")
    guard = CopyGuard(PassageIndex.build("aabb"), tokenizer, 1).start()
    guard.advance(0)
    with pytest.raises(ConfigError, match=r"`max_copy`.*Received: 1,") as caught:
        guard.allow(np.zeros((1, 2), np.float32))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"at least 1 character\. Received: 0"):
        CopyGuard(PassageIndex.build(TALE), CHAR, 0)


def test_a_piece_longer_than_the_limit_is_forbidden_from_the_start():
    mask = _mask(CopyGuard(PassageIndex.build(TALE), SUBWORD, 2).start(), SUBWORD.vocab_size)
    assert mask.any()
    assert mask.tolist() == [_has_copy(TALE, piece, 2) for piece in _pieces(SUBWORD)]


@pytest.mark.parametrize("character", ["漢", "😀"])
def test_a_character_is_forbidden_at_the_byte_that_completes_it(character):
    guard = CopyGuard(PassageIndex.build(TALE), SUBWORD, 2).start()
    start = TALE.index(character)
    for before in TALE[start - 2 : start]:
        guard.advance(int(SUBWORD.encode(before)[-1]))
    *first, last = (SUBWORD._processor.piece_to_id(f"<0x{b:02X}>") for b in character.encode())
    for token_id in first:
        assert not _mask(guard, SUBWORD.vocab_size)[token_id]
        guard.advance(token_id)
    mask = _mask(guard, SUBWORD.vocab_size)
    assert mask[last]
    assert not mask[last + 1]


def test_a_token_without_bytes_leaves_an_unfinished_character_as_it_is(tokenizer):
    guard = CopyGuard(PassageIndex.build("a😀"), tokenizer, 1).start()
    for token_id in (*tokenizer.encode("a😀")[:2], 0, 0, 0, 0):
        guard.advance(token_id)
    assert np.flatnonzero(_mask(guard, tokenizer.vocab_size)).tolist() == [
        tokenizer.encode("😀")[1]
    ]


def test_a_piece_that_breaks_a_character_counts_with_the_mark_it_leaves(tokenizer):
    guard = CopyGuard(PassageIndex.build("a\ufffdb "), tokenizer, 3).start()
    for token_id in (*tokenizer.encode("a"), tokenizer.encode("é")[0]):
        assert not _mask(guard, tokenizer.vocab_size).any()
        guard.advance(token_id)
    assert np.flatnonzero(_mask(guard, tokenizer.vocab_size)).tolist() == [
        tokenizer.encode("b ")[0]
    ]


def test_tokens_that_cannot_come_anyway_do_not_count_as_left():
    guard = CopyGuard(PassageIndex.build("ab"), CharTokenizer("abc"), 1).start()
    guard.advance(0)
    assert guard.allow(np.array([[0, 0, -np.inf]])).tolist() == [[0, -np.inf, -np.inf]]
    with pytest.raises(ConfigError, match="every token that may come"):
        guard.allow(np.array([[-np.inf, 0, -np.inf]]))


def test_the_longest_copies_are_found_in_each_text():
    index = PassageIndex.build(TALE)
    found = longest_copies(index, [TALE[10:60] + "#", "", "###"])
    assert [copy.length for copy in found] == [50, 0, 0]
    assert found[0].position == 10

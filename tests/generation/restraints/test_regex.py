"""Regular expressions, compared with Python's `re.fullmatch`."""

import re
from functools import cache
from itertools import product
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.errors import ConfigError
from textgen.generation.restraints.regex import RegexConstraint
from textgen.tokenizers.char import CharTokenizer
from textgen.tokenizers.subword import train_subwords

ENGLISH = topics["lambda"] + topics["assert"] + topics["while"] + "0123456789-"
CHINESE = "春眠不覺曉\n處處聞啼鳥\n夜來風雨聲\n花落知多少\n" * 4

PATTERNS = [
    r"[A-Z][a-z]+\.",
    r"[a-z ]+",
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    r"(a|ab)(c|bcd)*",
    r"(while|with) [a-z]{2,5}(, [a-z]+)*",
    r"a+?b??",
    r"(?i)the end",
    r"^x(y$|z)?".replace("$", ""),
    r"[^\n]{3,}",
    r"[é-ü]{2}|[а-я]+",
    r"[😀-🙏]{2,4}!?",
    r"[一-龥]{5}，[一-龥]{5}。",
    r"(?x) a b  # a comment",
]


@cache
def char_tokenizer():
    return CharTokenizer.from_text(ENGLISH + CHINESE + "😀😃🙏éü，。!", min_count=1)


@cache
def subword_tokenizer(name):
    text = ENGLISH if name == "english" else CHINESE
    return train_subwords(text, 400, "bpe")


@cache
def constraint(name, pattern, max_new_tokens=40):
    return RegexConstraint.compile(pattern, tokenizer(name), max_new_tokens)


def tokenizer(name):
    return char_tokenizer() if name == "char" else subword_tokenizer(name)


def generate(constraint, seed, limit=None):
    """Draw from random logits as generation does; return the token ids."""
    state, rng, token_ids = constraint.start(), np.random.default_rng(seed), []
    while not state.finished and len(token_ids) < (limit or constraint.max_new_tokens):
        logits = state.allow(rng.normal(0, 3, (1, constraint.vocab_size)).astype(np.float32))
        token_ids.append(int(logits[0].argmax()))
        state.advance(token_ids[-1])
    return token_ids


def fits(constraint, token_ids):
    """Whether the constraint allows these tokens, in this order."""
    state = constraint.start()
    for token_id in token_ids:
        allowed = state.allow(np.zeros((1, constraint.vocab_size), np.float32))[0]
        if state.finished or np.isneginf(allowed[token_id]):
            return False
        state.advance(token_id)
    return True


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ["char", "english", "chinese"])
def test_every_generated_text_matches_as_a_whole(name, pattern):
    if name == "char" and "а-я" in pattern:
        pattern = r"[é-ü]{2}"
    texts = [
        tokenizer(name).decode(generate(constraint(name, pattern), seed)) for seed in range(40)
    ]
    assert all(re.fullmatch(pattern, text) for text in texts)
    assert len(set(texts)) > 1 or pattern.startswith(("(?x)", "^x"))


@pytest.mark.parametrize("pattern", ["[一-龥]{3}", "[😀-🙏]{2}", r"[^a]{3}", "(a|ab|é)(c|bcd)?"])
@pytest.mark.parametrize("name", ["english", "chinese"])
@pytest.mark.parametrize("over", [0, 1])
def test_the_smallest_sufficient_number_of_tokens_is_sufficient(name, pattern, over):
    fewest = next(n for n in range(1, 30) if compiles(name, pattern, n))
    for seed in range(30):
        token_ids = generate(constraint(name, pattern, fewest + over), seed)
        assert re.fullmatch(pattern, tokenizer(name).decode(token_ids))
        assert fewest <= len(token_ids) <= fewest + over


def test_too_few_tokens_are_refused_with_the_number_that_suffices():
    with pytest.raises(ConfigError, match=r"at least 12.*`max_new_tokens` to 12") as error:
        RegexConstraint.compile("[a-z]{12}", char_tokenizer(), 11)
    assert "\n" not in str(error.value)
    token_ids = generate(RegexConstraint.compile("[a-z]{12}", char_tokenizer(), 12), 0)
    assert len(token_ids) == 12
    # An emoji that is in no piece takes four bytes.
    with pytest.raises(ConfigError, match="at least 8"):
        RegexConstraint.compile("[😀-🙏]{2}", subword_tokenizer("english"), 7)


@pytest.mark.parametrize("pattern", ["(a|ab)(c|bcd)?", "b*a{0,2}", "[^b]?c|d+", "a+?b??|cc"])
def test_exactly_the_matching_texts_are_allowed(pattern):
    letters = CharTokenizer("abcd")
    compiled = RegexConstraint.compile(pattern, letters, 4)
    for length in range(1, 5):
        for token_ids in product(range(4), repeat=length):
            text = letters.decode(list(token_ids))
            begins = any(
                re.fullmatch(pattern, text + "".join(rest))
                for more in range(5 - length)
                for rest in product("abcd", repeat=more)
            )
            assert fits(compiled, token_ids) == begins, text


@given(text=st.from_regex(r"[a-z]{1,6}( [a-z]{1,6}){0,2}[.!]", fullmatch=True))
@settings(max_examples=60)
@pytest.mark.parametrize("name", ["char", "english"])
def test_a_matching_text_is_allowed_in_its_own_tokens(name, text):
    compiled = constraint(name, r"[a-z]{1,6}( [a-z]{1,6}){0,2}[.!]")
    assert fits(compiled, tokenizer(name).encode(text).tolist())


def test_characters_are_allowed_whole_and_in_byte_pieces():
    pieces = subword_tokenizer("chinese")
    compiled = constraint("chinese", "[一-龥]{5}")
    lengths = {len(generate(compiled, seed)) for seed in range(40)}
    assert min(lengths) < 15
    assert fits(compiled, [i for c in "木火土金水" for i in pieces.encode(c).tolist()])
    assert not fits(compiled, pieces.encode("木火x").tolist())


def test_a_text_is_finished_where_nothing_can_follow_and_continues_elsewhere():
    ended = constraint("char", r"[A-Z][a-z]+\.").start()
    for token_id in char_tokenizer().encode("Ab.").tolist():
        assert not ended.finished
        ended.advance(token_id)
    assert ended.finished
    logits = np.zeros((1, char_tokenizer().vocab_size), np.float32)
    assert (ended.allow(logits) == logits).all()
    ended.advance(0)
    assert ended.finished
    assert len(generate(constraint("char", "[a-z ]+"), 3)) == 40


def test_allowed_tokens_keep_their_logits_and_the_dtype():
    state = constraint("char", "[ab]+").start()
    logits = np.random.default_rng(0).normal(size=(1, char_tokenizer().vocab_size))
    before = logits.copy()
    kept = state.allow(logits)
    allowed = char_tokenizer().encode("ab")
    assert (kept[0, allowed] == logits[0, allowed]).all()
    assert np.isneginf(np.delete(kept[0], allowed)).all()
    assert (logits == before).all()
    assert state.allow(logits.astype(np.float32)).dtype == np.float32


def test_banned_tokens_are_forbidden_and_count_as_missing():
    letters = CharTokenizer("abc", unk=True)
    assert RegexConstraint.compile("[^c]+", letters, 5).move_token.max() == 1
    a = int(letters.encode("a")[0])
    longer = RegexConstraint.compile("a|bb", letters, 5, banned_ids=[a])
    assert letters.decode(generate(longer, 0)) == "bb"
    with pytest.raises(ConfigError, match="matches none"):
        RegexConstraint.compile("a+", letters, 5, banned_ids=[a])
    state = RegexConstraint.compile("a", letters, 5).start()
    logits = np.zeros((1, 4), np.float32)
    logits[0, a] = -np.inf
    with pytest.raises(ConfigError, match="`ban`"):
        state.allow(logits)


@pytest.mark.parametrize("pattern", ["[а-я]+", "", "[a-z&&0-9]", "x😀", "\\n*é{0}"])
def test_a_pattern_that_the_tokens_cannot_match_is_refused(pattern):
    with pytest.raises(ConfigError, match="which matches none") as error:
        RegexConstraint.compile(pattern, CharTokenizer("abcdefgh"), 100)
    assert "\n" not in str(error.value)


def test_a_branch_that_the_tokens_cannot_match_leaves_the_others():
    compiled = RegexConstraint.compile("c東|c(at|é)|dog", CharTokenizer("acdgot"), 9)
    texts = {CharTokenizer("acdgot").decode(generate(compiled, seed)) for seed in range(30)}
    assert texts == {"cat", "dog"}


@pytest.mark.parametrize(
    "pattern",
    ["a{2,", "[z-a]", "(?=a)b", r"(a)\1", r"\bab", "a)(b", "(a", "[a", "a\\", "*a", "a\n(", "^*"],
)
def test_an_invalid_pattern_is_refused_in_one_line(pattern):
    with pytest.raises(ConfigError, match="`regex` must be a regular expression") as error:
        RegexConstraint.compile(pattern, CharTokenizer("ab"), 9)
    assert "\n" not in str(error.value)


def test_anchors_around_the_whole_pattern_have_no_effect():
    letters = CharTokenizer("ab$^")
    for pattern, text in [("^ab$", "ab"), (r"a\$", "a$"), (r"\^a$", "^a"), (r"ab|b$", "ab")]:
        assert fits(RegexConstraint.compile(pattern, letters, 4), letters.encode(text).tolist())


@pytest.mark.parametrize("pattern", [r"\w{1,500}", r"(\w{1,20} ){1,20}", ".{0,9000}"])
def test_a_pattern_that_would_take_minutes_is_refused_immediately(pattern):
    with pytest.raises(ConfigError, match="must stay below 35,000 states"):
        RegexConstraint.compile(pattern, CharTokenizer("ab"), 9)


def test_logits_of_another_shape_and_forbidden_tokens_are_refused():
    state = constraint("char", "[ab]+").start()
    with pytest.raises(ConfigError, match="shape"):
        state.allow(np.zeros((2, char_tokenizer().vocab_size)))
    with pytest.raises(ConfigError, match="Received: 0"):
        state.advance(0)


def compiles(name, pattern, max_new_tokens):
    try:
        return bool(constraint(name, pattern, max_new_tokens))
    except ConfigError:
        return False

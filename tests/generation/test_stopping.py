"""Stop conditions, compared with a search of the whole text."""

import re
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.config import SamplingConfig
from textgen.errors import ConfigError
from textgen.generation.stopping import REGEX_TAIL, StopRule


def stop_rule(**settings):
    return StopRule(SamplingConfig(**settings))


def run(rule, pieces, tokens_per_piece=1):
    """Feed pieces; return what is emitted, piece by piece, and the matcher."""
    matcher = rule.start()
    emitted = [matcher.feed(p, tokens_per_piece * i) for i, p in enumerate(pieces, start=1)]
    return [*emitted, matcher.flush()], matcher


def naive(rule, pieces):
    """Text and reason, by a search of the whole text after each piece."""
    text, floors = "", {"stop": -1, "regex": -1}
    alternatives = "|".join(map(re.escape, sorted(rule.sampling.stop, key=len, reverse=True)))
    for num_tokens, piece in enumerate(pieces, start=1):
        text += piece
        if num_tokens < rule.sampling.min_new_tokens:
            floors = dict.fromkeys(floors, len(text))
            continue
        found = []
        for order, (reason, pattern) in enumerate(
            [("stop", alternatives), ("regex", rule.sampling.stop_regex)]
        ):
            starts = range(len(text) + 1) if pattern and piece else ()
            matches = (re.compile(pattern).match(text, start) for start in starts)
            first = next((m for m in matches if m and m.end() > floors[reason]), None)
            found += [(first.start(), order, reason, first.end())] if first else []
        if found:
            start, _, reason, end = min(found)
            return text[: end if rule.sampling.include_stop else start], reason
    return text, None


PIECES = st.lists(st.text("abc\n", max_size=3), max_size=12)
STOPS = st.lists(st.text("abc\n", min_size=1, max_size=4), max_size=3).map(tuple)


@given(pieces=PIECES, stop=STOPS, min_new_tokens=st.integers(0, 6), include_stop=st.booleans())
@settings(max_examples=400)
def test_stop_texts_end_a_text_where_a_search_of_the_whole_text_finds_them(
    pieces, stop, min_new_tokens, include_stop
):
    rule = stop_rule(stop=stop, min_new_tokens=min_new_tokens, include_stop=include_stop)
    emitted, matcher = run(rule, pieces)
    assert ("".join(emitted), matcher.reason) == naive(rule, pieces)
    assert matcher.stopped == (matcher.reason is not None)


@given(
    pieces=PIECES,
    stop=STOPS,
    regex=st.sampled_from(["ab+", "a.c", "(?m)^b", "c$", "(?<=a)b", r"\n\s*a", r"\bab", "^a"]),
    min_new_tokens=st.integers(0, 6),
)
@settings(max_examples=400)
def test_regular_expressions_end_a_text_where_a_search_of_the_whole_text_finds_them(
    pieces, stop, regex, min_new_tokens
):
    rule = stop_rule(stop=stop, stop_regex=regex, min_new_tokens=min_new_tokens, include_stop=True)
    emitted, matcher = run(rule, pieces)
    text, reason = naive(rule, pieces)
    assert matcher.reason == reason
    assert "".join(emitted) == text


@given(pieces=PIECES, stop=STOPS.filter(bool))
@settings(max_examples=300)
def test_a_stream_never_emits_a_part_of_a_stop_text(pieces, stop):
    emitted, matcher = run(stop_rule(stop=stop), pieces)
    whole, text = "".join(pieces), "".join(emitted)
    assert whole.startswith(text)
    assert not any(part in text for part in stop)
    if matcher.stopped:
        assert any(whole.startswith(part, len(text)) for part in stop)
    else:
        assert text == whole


@given(pieces=PIECES, stop=STOPS.filter(bool))
@settings(max_examples=300)
def test_only_possible_beginnings_of_a_stop_text_are_held_back(pieces, stop):
    matcher, emitted, fed = stop_rule(stop=stop).start(), "", ""
    for number, piece in enumerate(pieces, start=1):
        emitted, fed = emitted + matcher.feed(piece, number), fed + piece
        if matcher.stopped:
            return
        held = fed[len(emitted) :]
        assert fed == emitted + held
        assert not held or any(s.startswith(held) and s != held for s in stop)
        longer = [fed[-n:] for n in range(len(held) + 1, len(fed) + 1)]
        assert not any(s.startswith(part) for s in stop for part in longer)
    assert emitted + matcher.flush() == fed
    assert matcher.flush() == ""


def test_a_stop_text_across_pieces_is_left_out_or_kept():
    pieces = ["one\n", "\nTh", "e next"]
    emitted, matcher = run(stop_rule(stop=("\n\nThe",)), pieces)
    assert emitted == ["one", "", "", ""]
    assert matcher.reason == "stop"
    assert run(stop_rule(stop=("\n\nThe",), include_stop=True), pieces)[0][:3] == [
        "one\n",
        "\nTh",
        "e",
    ]


def test_the_first_match_counts_and_the_longest_of_those_that_begin_together():
    keep = {"include_stop": True}
    assert run(stop_rule(stop=("cd", "bc", "b"), **keep), ["abcd"])[0][0] == "abc"
    assert run(stop_rule(stop=("d", "bc"), stop_regex="ab", **keep), ["abcd"])[1].reason == "regex"
    assert run(stop_rule(stop=("ab",), stop_regex="ab", **keep), ["abcd"])[1].reason == "stop"


def test_the_part_of_a_match_of_stop_regex_in_earlier_pieces_stays():
    assert run(stop_rule(stop_regex="[ab]c"), ["xa", "b", "cd"])[0] == ["xa", "b", "", ""]
    assert run(stop_rule(stop_regex="[ab]c"), ["xa", "y bcd"])[0] == ["xa", "y ", ""]


def test_nothing_is_emitted_after_the_end():
    matcher = stop_rule(stop=("b",)).start()
    assert matcher.feed("abc", 1) == "a"
    assert [matcher.feed("xyz", 2), matcher.flush(), matcher.stopped] == ["", "", True]


def test_matches_that_end_before_min_new_tokens_are_ignored():
    emitted, matcher = run(stop_rule(stop=("\n",), min_new_tokens=3), ["a\n", "b\n", "c", "\nd"])
    assert "".join(emitted) == "a\nb\nc"
    assert matcher.reason == "stop"
    # A match that begins before and ends after counts.
    assert run(stop_rule(stop=("bc",), min_new_tokens=3), ["a", "b", "c"])[1].stopped


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["He said. ", "More."], "He said."),
        (["He said.", '"', " More"], 'He said."'),
        (["He said.", '" More'], 'He said."'),
        (["What?!", ")", "\n"], "What?!)"),
        (["Pi is 3.", "14, e.g", "., 4. End"], "Pi is 3.14, e.g., 4."),
        (["Wait..", ". no"], "Wait..."),
        (["他說。", "她"], "他說。"),
        (["「來。", "」", "她"], "「來。」"),
        (["No end."], None),
    ],
)
def test_a_sentence_ends_with_its_marks_and_closing_quotes(pieces, expected):
    for include_stop in (False, True):
        rule = stop_rule(stop_at_sentence=1, include_stop=include_stop)
        emitted, matcher = run(rule, pieces)
        assert "".join(emitted) == (expected or "".join(pieces))
        assert matcher.reason == (None if expected is None else "sentence")


@given(words=st.lists(st.sampled_from(["a", "b.", 'c!"', "d?)"]), min_size=1, max_size=30))
@pytest.mark.parametrize("first", [1, 2, 5])
def test_the_text_ends_with_the_first_sentence_that_ends_after_the_given_tokens(words, first):
    emitted, matcher = run(stop_rule(stop_at_sentence=first), [" " + word for word in words])
    ends = [i for i, word in enumerate(words) if len(word) > 1 and i + 1 >= first]
    expected = words[: ends[0] + 1] if ends and ends[0] + 1 < len(words) else words
    assert "".join(emitted) == "".join(" " + word for word in expected)
    assert matcher.stopped == (len(expected) < len(words))


def test_the_sentence_does_not_depend_on_how_the_text_is_cut_into_pieces():
    text = 'Pi is 3.14. "So what?" he said.\n他說：「是。」 Then they left. '
    for first in (1, 12, 30, 50):
        results = set()
        for cuts in (list(range(len(text) + 1)), [*range(0, len(text), 3), len(text)]):
            matcher, emitted = stop_rule(stop_at_sentence=first).start(), ""
            for begin, end in pairwise(cuts):
                emitted += matcher.feed(text[begin:end], begin + 1)
            results.add(emitted + matcher.flush())
        assert len(results) == 1
        assert results != {text}


def test_a_match_of_stop_regex_begins_within_the_tail():
    for filler, reason in ((REGEX_TAIL - 1, "regex"), (REGEX_TAIL, None)):
        pieces = ["x" * 5_000, "<", *"y" * filler, ">"]
        assert run(stop_rule(stop_regex="<y*>", include_stop=True), pieces)[1].reason == reason


def test_anchors_match_the_beginning_of_the_text_and_not_of_the_tail():
    pieces = ["x"] * (3 * REGEX_TAIL)
    assert not run(stop_rule(stop_regex="^xy|^x{7}y|\\Ay"), [*pieces, "y"])[1].stopped
    assert run(stop_rule(stop_regex="(?m)^xy$"), [*pieces, "\n", "x", "y"])[1].stopped
    assert run(stop_rule(stop_regex=r"\bxx"), ["x", "x"])[1].stopped


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"stop_regex": "(a"}, "`stop_regex` must be a regular expression.*`stop`"),
        ({"stop_regex": "a{99999999999}"}, "`stop_regex` must be a regular expression"),
        ({"stop_regex": "a*"}, "`stop_regex` must not match the empty text. Received: 'a\\*'"),
    ],
)
def test_an_invalid_expression_is_refused_when_the_rule_is_made(settings_, message):
    with pytest.raises(ConfigError, match=message) as error:
        stop_rule(**settings_)
    assert "\n" not in str(error.value)


@given(pieces=PIECES, stop=STOPS, others=PIECES, include_stop=st.booleans())
@settings(max_examples=200)
def test_a_copy_continues_as_the_original_and_does_not_change_it(
    pieces, stop, others, include_stop
):
    rule = stop_rule(stop=stop, stop_regex="a.?c", stop_at_sentence=2, include_stop=include_stop)

    def outcome(matcher, more):
        emitted = [matcher.feed(p, len(pieces) + i) for i, p in enumerate(more, start=1)]
        return "".join(emitted) + matcher.flush(), matcher.reason

    original, matcher = rule.start(), rule.start()
    for number, piece in enumerate(pieces, start=1):
        assert original.feed(piece, number) == matcher.feed(piece, number)
    copied = matcher.copy()
    outcome(copied.copy(), ["ab", "c.", " a"])
    expected = outcome(original, others)
    assert outcome(copied, others) == expected
    assert outcome(matcher, others) == expected


def test_memory_does_not_grow_with_the_text():
    rule = stop_rule(stop=("\n\nThe end",), stop_regex=r"#\d+#", stop_at_sentence=10**9)
    matcher, held = rule.start(), []
    tracemalloc.start()
    for number in range(1, 20_001):
        matcher.feed("ab. \n\nT"[number % 7], number)
        if number in (5_000, 20_000):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert abs(held[1] - held[0]) < 4_096


class CountingPattern:
    """A pattern that records the lengths of the texts that it is searched for in."""

    def __init__(self):
        self.lengths = []

    def search(self, text, begin=0):
        self.lengths.append(len(text) - begin)


def test_the_number_of_characters_searched_per_piece_does_not_grow_with_the_text():
    rule, counting = stop_rule(stop_regex="never"), CountingPattern()
    (pattern,) = rule.patterns
    rule.__dict__["patterns"] = (pattern._replace(pattern=counting),)
    matcher = rule.start()
    for number in range(1, 5_001):
        matcher.feed("a", number)
    assert max(counting.lengths) == REGEX_TAIL + 1
    assert len(counting.lengths) == 5_000

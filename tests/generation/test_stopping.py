"""Properties of stop conditions, held to a search through the whole text."""

import re
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.errors import ConfigError
from textgen.config import SamplingConfig
from textgen.generation.stopping import REGEX_TAIL, StopRule


def stop_rule(**settings):
    return StopRule(SamplingConfig(**settings))


def run(rule, pieces, tokens_per_piece=1):
    """Feed pieces; return what was shown, piece by piece, and the watch."""
    watch = rule.start()
    shown = [watch.feed(p, tokens_per_piece * i) for i, p in enumerate(pieces, start=1)]
    return [*shown, watch.flush()], watch


def naive(rule, pieces):
    """The text and reason by a search through the whole text after each piece."""
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
@settings(deadline=None, max_examples=400)
def test_stop_texts_are_found_as_by_a_search_through_the_whole_text(
    pieces, stop, min_new_tokens, include_stop
):
    rule = stop_rule(stop=stop, min_new_tokens=min_new_tokens, include_stop=include_stop)
    shown, watch = run(rule, pieces)
    assert ("".join(shown), watch.reason) == naive(rule, pieces)
    assert watch.stopped == (watch.reason is not None)


@given(
    pieces=PIECES,
    stop=STOPS,
    regex=st.sampled_from(["ab+", "a.c", "(?m)^b", "c$", "(?<=a)b", r"\n\s*a", r"\bab", "^a"]),
    min_new_tokens=st.integers(0, 6),
)
@settings(deadline=None, max_examples=400)
def test_regular_expressions_are_found_as_by_a_search_through_the_whole_text(
    pieces, stop, regex, min_new_tokens
):
    rule = stop_rule(stop=stop, stop_regex=regex, min_new_tokens=min_new_tokens, include_stop=True)
    shown, watch = run(rule, pieces)
    text, reason = naive(rule, pieces)
    assert watch.reason == reason
    assert "".join(shown) == text


@given(pieces=PIECES, stop=STOPS.filter(bool))
@settings(deadline=None, max_examples=300)
def test_a_stream_never_shows_a_part_of_a_stop_text(pieces, stop):
    shown, watch = run(stop_rule(stop=stop), pieces)
    whole, text = "".join(pieces), "".join(shown)
    assert whole.startswith(text)
    assert not any(part in text for part in stop)
    if watch.stopped:
        assert any(whole.startswith(part, len(text)) for part in stop)
    else:
        assert text == whole


@given(pieces=PIECES, stop=STOPS.filter(bool))
@settings(deadline=None, max_examples=300)
def test_no_more_is_held_back_than_may_begin_a_stop_text(pieces, stop):
    watch, shown, fed = stop_rule(stop=stop).start(), "", ""
    for number, piece in enumerate(pieces, start=1):
        shown, fed = shown + watch.feed(piece, number), fed + piece
        if watch.stopped:
            return
        held = fed[len(shown) :]
        assert fed == shown + held
        assert not held or any(s.startswith(held) and s != held for s in stop)
        longer = [fed[-n:] for n in range(len(held) + 1, len(fed) + 1)]
        assert not any(s.startswith(part) for s in stop for part in longer)
    assert shown + watch.flush() == fed
    assert watch.flush() == ""


def test_a_stop_text_straddles_pieces_and_is_left_out_or_kept():
    pieces = ["one\n", "\nTh", "e next"]
    shown, watch = run(stop_rule(stop=("\n\nThe",)), pieces)
    assert shown == ["one", "", "", ""]
    assert watch.reason == "stop"
    assert run(stop_rule(stop=("\n\nThe",), include_stop=True), pieces)[0][:3] == [
        "one\n",
        "\nTh",
        "e",
    ]


def test_the_earliest_wins_and_the_longest_at_the_same_place():
    keep = {"include_stop": True}
    assert run(stop_rule(stop=("cd", "bc", "b"), **keep), ["abcd"])[0][0] == "abc"
    assert run(stop_rule(stop=("d", "bc"), stop_regex="ab", **keep), ["abcd"])[1].reason == "regex"
    assert run(stop_rule(stop=("ab",), stop_regex="ab", **keep), ["abcd"])[1].reason == "stop"


def test_what_earlier_pieces_brought_of_a_regular_expression_stays_shown():
    assert run(stop_rule(stop_regex="[ab]c"), ["xa", "b", "cd"])[0] == ["xa", "b", "", ""]
    assert run(stop_rule(stop_regex="[ab]c"), ["xa", "y bcd"])[0] == ["xa", "y ", ""]


def test_nothing_is_shown_after_the_end():
    watch = stop_rule(stop=("b",)).start()
    assert watch.feed("abc", 1) == "a"
    assert [watch.feed("xyz", 2), watch.flush(), watch.stopped] == ["", "", True]


def test_matches_that_end_before_min_new_tokens_are_ignored():
    shown, watch = run(stop_rule(stop=("\n",), min_new_tokens=3), ["a\n", "b\n", "c", "\nd"])
    assert "".join(shown) == "a\nb\nc"
    assert watch.reason == "stop"
    # one that begins before and ends after counts
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
        shown, watch = run(rule, pieces)
        assert "".join(shown) == (expected or "".join(pieces))
        assert watch.reason == (None if expected is None else "sentence")


@given(words=st.lists(st.sampled_from(["a", "b.", 'c!"', "d?)"]), min_size=1, max_size=30))
@settings(deadline=None)
@pytest.mark.parametrize("first", [0, 1, 5])
def test_a_sentence_is_the_first_that_ends_after_so_many_tokens(words, first):
    shown, watch = run(stop_rule(stop_at_sentence=first), [" " + word for word in words])
    ends = [i for i, word in enumerate(words) if len(word) > 1 and i + 1 >= first]
    expected = words[: ends[0] + 1] if ends and ends[0] + 1 < len(words) else words
    assert "".join(shown) == "".join(" " + word for word in expected)
    assert watch.stopped == (len(expected) < len(words))


def test_cutting_the_text_into_characters_or_lines_finds_the_same_sentence():
    text = 'Pi is 3.14. "So what?" he said.\n他說：「是。」 Then they left. '
    for first in (1, 12, 30, 50):
        results = set()
        for cuts in (list(range(len(text) + 1)), [*range(0, len(text), 3), len(text)]):
            watch, shown = stop_rule(stop_at_sentence=first).start(), ""
            for begin, end in pairwise(cuts):
                shown += watch.feed(text[begin:end], begin + 1)
            results.add(shown + watch.flush())
        assert len(results) == 1
        assert results != {text}


def test_a_regular_expression_reaches_back_over_the_tail_and_no_further():
    for filler, reason in ((REGEX_TAIL - 1, "regex"), (REGEX_TAIL, None)):
        pieces = ["x" * 5_000, "<", *"y" * filler, ">"]
        assert run(stop_rule(stop_regex="<y*>", include_stop=True), pieces)[1].reason == reason


def test_the_beginning_of_the_text_stays_the_beginning():
    pieces = ["x"] * (3 * REGEX_TAIL)
    assert not run(stop_rule(stop_regex="^xy|^x{7}y|\\Ay"), [*pieces, "y"])[1].stopped
    assert run(stop_rule(stop_regex="(?m)^xy$"), [*pieces, "\n", "x", "y"])[1].stopped
    assert run(stop_rule(stop_regex=r"\bxx"), ["x", "x"])[1].stopped


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"stop": ("a", "")}, "`stop` .*empty"),
        ({"stop_regex": "(a"}, "`stop_regex` must be a regular expression.*--stop"),
        ({"stop_regex": "a*"}, "empty text"),
        ({"min_new_tokens": -1}, "Received: -1"),
        ({"stop_at_sentence": -2}, "Received: -2"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_at_once(settings_, message):
    with pytest.raises(ConfigError, match=message) as error:
        stop_rule(**settings_)
    assert "\n" not in str(error.value)


def test_time_and_memory_do_not_grow_with_the_text():
    rule = stop_rule(stop=("\n\nThe end",), stop_regex=r"#\d+#", stop_at_sentence=10**9)
    watch, held = rule.start(), []
    tracemalloc.start()
    for number in range(1, 40_001):
        watch.feed("ab. \n\nT"[number % 7], number)
        if number in (10_000, 40_000):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert abs(held[1] - held[0]) < 4_096
    started = time.process_time()
    for number in range(40_001, 50_001):
        watch.feed("ab. \n\nT"[number % 7], number)
    assert time.process_time() - started < 2

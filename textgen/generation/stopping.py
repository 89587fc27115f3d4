"""When a text ends before its last token, and what of it may be shown by then.

A rule says what ends a text; a watch follows one text, piece by piece, in constant time
and memory a piece. This module knows text. It does NOT know tokens beyond their number,
logits, or what drew them.

A match counts when its end lies behind the text of the first `min_new_tokens - 1`
tokens. A text ends with the first piece that completes a match of any kind. Of several in
that piece the one that begins first counts, then a stop text before a regular expression
before a sentence; of several stop texts that begin together, the longest.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from textgen.errors import ConfigError

StopReason = Literal["stop", "regex", "sentence"]

# Characters before a new piece in which a match of `stop_regex` may begin. A search through
# so many takes 2 us where the expression begins with a letter or sign, 45 us for `\w+ zzz`.
REGEX_TAIL = 1_000

_CLOSERS = "\"'”’»›)\\]}」』）】》〉"
# Latin marks need a space behind them, so that "3.14" and "e.g.," are no ends; "。" does not.
_MARKS = ".!?…。！？"
_SENTENCE_END = re.compile(
    rf"[{_MARKS}]+[{_CLOSERS}]*(?=\s)"
    rf"|[{_MARKS}]*[。！？][{_MARKS}]*[{_CLOSERS}]*(?=[^{_MARKS}{_CLOSERS}])"
)
# Marks and closers that may stand at the end of one piece and be decided by the next.
_SENTENCE_TAIL = 32


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """What ends a text.

    Attributes:
        stop: Texts that end it, over piece borders as well.
        stop_regex: A regular expression of Python's `re`, searched for after each piece
            in the text so far. A match must begin within the 1,000 characters before the
            piece; look-behind sees no further. None: none.
        stop_at_sentence: The text ends with the first sentence that ends after so many
            tokens: one of `.!?…` before white space, or of `。！？`, with what closes
            quotes and brackets. It takes the next character to know. None: no.
        min_new_tokens: Nothing ends the text before so many tokens.
        include_stop: Whether the matched text is kept. The end of a sentence always is.

    Raises:
        ConfigError: A stop text is empty, the regular expression is invalid or matches
            the empty text, or a number is out of range.
    """

    stop: tuple[str, ...] = ()
    stop_regex: str | None = None
    stop_at_sentence: int | None = None
    min_new_tokens: int = 0
    include_stop: bool = False

    def __post_init__(self) -> None:
        if not all(self.stop):
            raise ConfigError(
                "`stop` must be texts of at least 1 character. Received: an empty one. "
                "Leave --stop out to write to the end."
            )
        if self.stop_regex is not None:
            _check_regex(self.stop_regex)
        if self.min_new_tokens < 0:
            raise ConfigError(
                f"`min_new_tokens` must be at least 0. Received: {self.min_new_tokens}. "
                "Pass --min-new-tokens."
            )
        if self.stop_at_sentence is not None and self.stop_at_sentence < 0:
            raise ConfigError(
                f"`stop_at_sentence` must be at least 0. Received: {self.stop_at_sentence}. "
                "Pass --stop-at-sentence."
            )

    def watch(self) -> "StopWatch":
        """Return a fresh watch for one text."""
        return StopWatch(self)

    @cached_property
    def tail(self) -> int:
        """Characters before a new piece in which a match that ends in it may begin."""
        regex = 0 if self.stop_regex is None else REGEX_TAIL
        sentence = 0 if self.stop_at_sentence is None else _SENTENCE_TAIL
        return max(regex, sentence, self.longest_beginning)

    @cached_property
    def patterns(self) -> tuple[tuple[StopReason, re.Pattern[str], int], ...]:
        """What is searched for: its name, the expression, and its own tail."""
        found: list[tuple[StopReason, re.Pattern[str], int]] = []
        if self.stop:
            longest_first = sorted(self.stop, key=len, reverse=True)
            texts = re.compile("|".join(map(re.escape, longest_first)))
            found.append(("stop", texts, self.longest_beginning))
        if self.stop_regex is not None:
            found.append(("regex", re.compile(self.stop_regex), REGEX_TAIL))
        if self.stop_at_sentence is not None:
            found.append(("sentence", _SENTENCE_END, _SENTENCE_TAIL))
        return tuple(found)

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """Every text that a stop text begins with and is longer than."""
        return frozenset(text[:cut] for text in self.stop for cut in range(1, len(text)))

    @cached_property
    def longest_beginning(self) -> int:
        """The length of the longest of `beginnings`."""
        return max(map(len, self.stop), default=1) - 1

    def first_token(self, reason: StopReason) -> int:
        """Return the number of the first token that may complete a match."""
        sentence = (self.stop_at_sentence or 0) if reason == "sentence" else 0
        return max(self.min_new_tokens, sentence)


class StopWatch:
    """Follows one text; made by `StopRule.watch`.

    Args:
        rule: What ends the text.

    Attributes:
        reason: What ended the text; None: nothing so far.
    """

    def __init__(self, rule: StopRule) -> None:
        self.reason: StopReason | None = None
        self._rule = rule
        # The tail, behind one character more of context once something was dropped.
        self._text = ""
        self._dropped = 0
        self._num_held = 0
        # For each pattern, how much text was there before a match may end; -1: any.
        self._floors = {reason: -1 for reason, _, _ in rule.patterns}

    @property
    def stopped(self) -> bool:
        """Whether the text has ended."""
        return self.reason is not None

    def feed(self, piece: str, num_tokens: int) -> str:
        """Take the next piece of the text.

        Args:
            piece: May be empty, where a token completes no character.
            num_tokens: Tokens of the text so far, this piece's included.

        Returns:
            The text that may be shown now: up to the end of the text where it ends with
            this piece, else up to where a stop text that is to be left out may have
            begun. Empty once the text has ended. The part of a match of `stop_regex`
            that earlier pieces brought has been shown by then and stays.
        """
        if self.stopped or not piece:
            return ""
        if not self._rule.patterns:
            return piece
        before = len(self._text)
        shown = before - self._num_held
        self._text += piece
        found = min(self._matches(before, num_tokens), default=None)
        if found is not None:
            _, order, match = found
            self.reason = self._rule.patterns[order][0]
            keep = self._rule.include_stop or self.reason == "sentence"
            return self._text[shown : match.end() if keep else match.start()]
        self._num_held = 0 if self._rule.include_stop else self._possible_beginning()
        shown_now = self._text[shown : len(self._text) - self._num_held]
        self._drop()
        return shown_now

    def flush(self) -> str:
        """Return what was held back, for a text that ends by its length; else nothing."""
        held = "" if self.stopped else self._text[len(self._text) - self._num_held :]
        self._num_held = 0
        return held

    def _matches(self, before: int, num_tokens: int) -> Iterator[tuple[int, int, re.Match[str]]]:
        """Yield the first match of each pattern that counts: its start, order and itself."""
        for order, (reason, pattern, tail) in enumerate(self._rule.patterns):
            if num_tokens < self._rule.first_token(reason):
                self._floors[reason] = self._dropped + len(self._text)
                continue
            begin = max(1 if self._dropped else 0, before - tail)
            floor = self._floors[reason] - self._dropped
            match = pattern.search(self._text, begin)
            while match and match.end() <= floor:
                match = pattern.search(self._text, match.start() + 1)
            if match:
                yield match.start(), order, match

    def _possible_beginning(self) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        lengths = range(min(len(self._text), self._rule.longest_beginning), 0, -1)
        return next((n for n in lengths if self._text[-n:] in self._rule.beginnings), 0)

    def _drop(self) -> None:
        extra = len(self._text) - self._rule.tail - 1
        if extra > 0:
            self._text = self._text[extra:]
            self._dropped += extra


def _check_regex(pattern: str) -> None:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"`stop_regex` must be a regular expression. Received: {pattern!r} ({error}). "
            "Pass --stop for a plain text."
        ) from None
    if compiled.search(""):
        raise ConfigError(
            f"`stop_regex` must not match the empty text. Received: {pattern!r}. "
            "Ask for at least one character."
        )

"""Stop conditions, and which part of a streamed text is safe to emit.

A rule has the conditions; a matcher follows one text, piece by piece, in constant time and memory
per piece. This module knows text. It does NOT know tokens beyond their number, logits, or how a
token was drawn.

A match counts if it ends after the text of the first `min_new_tokens - 1` tokens. A text ends
with the first piece that completes a match of any kind. Of several matches in that piece, the one
that begins first counts. If they begin together, a stop text precedes a regular expression, which
precedes a sentence, and a longer stop text precedes a shorter one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from textgen.config import SamplingConfig
from textgen.errors import ConfigError

StopReason = Literal["stop", "regex", "sentence"]

# Number of characters before a new piece in which a match of `stop_regex` may begin. Searching
# them takes 2 us if the expression begins with a letter or sign, 45 us for `\w+ zzz`.
REGEX_TAIL = 1_000

_CLOSERS = "\"'”’»›)\\]}」』）】》〉"
# Latin marks must be followed by white space, so that "3.14" and "e.g.," do not match; "。" need
# not.
_MARKS = ".!?…。！？"
_SENTENCE_END = re.compile(
    rf"[{_MARKS}]+[{_CLOSERS}]*(?=\s)"
    rf"|[{_MARKS}]*[。！？][{_MARKS}]*[{_CLOSERS}]*(?=[^{_MARKS}{_CLOSERS}])"
)
# Marks and closers at the end of one piece, on which the next piece decides.
_SENTENCE_TAIL = 32


class StopPattern(NamedTuple):
    """One kind of stop condition.

    Attributes:
        reason: Its name.
        pattern: What is searched for.
        tail: Number of characters before a new piece in which a match may begin.
    """

    reason: StopReason
    pattern: re.Pattern[str]
    tail: int


@dataclass(frozen=True)
class StopRule:
    """The conditions that end a text.

    Attributes:
        sampling: Settings, of which `stop`, `stop_regex`, `stop_at_sentence`, `min_new_tokens`
            and `include_stop` are applied.

    Raises:
        ConfigError: `stop_regex` is invalid, or matches the empty text.

    A stop text may extend across pieces. `stop_regex` is an expression of Python's `re`, searched
    for after each piece; a match must begin within the 1,000 characters before the piece, and
    look-behind sees no further. A sentence ends at one of `.!?…` before white space, or at one of
    `。！？`, each with its closing quotes and brackets; the end is known with the next character.
    """

    sampling: SamplingConfig

    def __post_init__(self) -> None:
        if self.sampling.stop_regex is not None:
            _compile(self.sampling.stop_regex)

    def start(self) -> "StopMatcher":
        """Return the matcher of a new text."""
        return StopMatcher(self)

    @cached_property
    def patterns(self) -> tuple[StopPattern, ...]:
        """What is searched for, in order of precedence."""
        sampling = self.sampling
        found = []
        if sampling.stop:
            longest_first = sorted(sampling.stop, key=len, reverse=True)
            pattern = re.compile("|".join(map(re.escape, longest_first)))
            found.append(StopPattern("stop", pattern, self.max_prefix_length))
        if sampling.stop_regex is not None:
            found.append(StopPattern("regex", _compile(sampling.stop_regex), REGEX_TAIL))
        if sampling.stop_at_sentence is not None:
            found.append(StopPattern("sentence", _SENTENCE_END, _SENTENCE_TAIL))
        return tuple(found)

    @cached_property
    def tail(self) -> int:
        """Number of characters before a new piece in which a match that ends in it may begin."""
        return max((pattern.tail for pattern in self.patterns), default=0)

    @cached_property
    def prefixes(self) -> frozenset[str]:
        """All proper prefixes of stop texts."""
        return frozenset(text[:cut] for text in self.sampling.stop for cut in range(1, len(text)))

    @cached_property
    def max_prefix_length(self) -> int:
        """The length of the longest of `prefixes`."""
        return max(map(len, self.sampling.stop), default=1) - 1

    def first_token(self, reason: StopReason) -> int:
        """Return the number of the first token that may complete a match."""
        sentence = (self.sampling.stop_at_sentence or 0) if reason == "sentence" else 0
        return max(self.sampling.min_new_tokens, sentence)


class StopMatcher:
    """Follows one text; made by `StopRule.start`.

    Args:
        rule: The conditions.

    Attributes:
        reason: What ended the text; None: nothing yet.
    """

    def __init__(self, rule: StopRule) -> None:
        self.reason: StopReason | None = None
        self._rule = rule
        # The tail, preceded by one more character of context once anything was dropped.
        self._text = ""
        self._num_dropped = 0
        self._num_held = 0
        # For each pattern, the position that a match must end after.
        self._min_ends = {pattern.reason: -1 for pattern in rule.patterns}

    @property
    def stopped(self) -> bool:
        """Whether the text has ended."""
        return self.reason is not None

    def copy(self) -> "StopMatcher":
        """Return a matcher in the same state, for another continuation of the text."""
        other = StopMatcher(self._rule)
        other.reason, other._text = self.reason, self._text
        other._num_dropped, other._num_held = self._num_dropped, self._num_held
        other._min_ends = self._min_ends.copy()
        return other

    def feed(self, piece: str, num_tokens: int) -> str:
        """Take the next piece of the text.

        Args:
            piece: May be empty, if a token completes no character.
            num_tokens: Number of tokens of the text so far, this piece included.

        Returns:
            The text that may be emitted now: up to the end of the text if it ends with this
            piece, otherwise up to where a stop text that is to be left out may have begun. Empty
            once the text has ended. The part of a match of `stop_regex` that was in earlier
            pieces has been emitted and stays.
        """
        if self.stopped or not piece:
            return ""
        if not self._rule.patterns:
            return piece
        before = len(self._text)
        num_emitted = before - self._num_held
        self._text += piece
        found = min(self._matches(before, num_tokens), default=None)
        if found is not None:
            _, order, match = found
            self.reason = self._rule.patterns[order].reason
            keep = self._rule.sampling.include_stop or self.reason == "sentence"
            return self._text[num_emitted : match.end() if keep else match.start()]
        self._num_held = 0 if self._rule.sampling.include_stop else self._num_undecided()
        emitted = self._text[num_emitted : len(self._text) - self._num_held]
        self._drop()
        return emitted

    def flush(self) -> str:
        """Return the text that was held back, for a text that ends by its length."""
        held = "" if self.stopped else self._text[len(self._text) - self._num_held :]
        self._num_held = 0
        return held

    def _matches(self, before: int, num_tokens: int) -> Iterator[tuple[int, int, re.Match[str]]]:
        """Yield the first match of each pattern that counts: its start, its order, the match."""
        for order, (reason, pattern, tail) in enumerate(self._rule.patterns):
            if num_tokens < self._rule.first_token(reason):
                self._min_ends[reason] = self._num_dropped + len(self._text)
                continue
            begin = max(1 if self._num_dropped else 0, before - tail)
            min_end = self._min_ends[reason] - self._num_dropped
            match = pattern.search(self._text, begin)
            while match and match.end() <= min_end:
                match = pattern.search(self._text, match.start() + 1)
            if match:
                yield match.start(), order, match

    def _num_undecided(self) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        lengths = range(min(len(self._text), self._rule.max_prefix_length), 0, -1)
        return next((n for n in lengths if self._text[-n:] in self._rule.prefixes), 0)

    def _drop(self) -> None:
        extra = len(self._text) - self._rule.tail - 1
        if extra > 0:
            self._text = self._text[extra:]
            self._num_dropped += extra


def _compile(pattern: str) -> re.Pattern[str]:
    """Return a `stop_regex` compiled; `re` caches it."""
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"`stop_regex` must be a regular expression. Received: {pattern!r} ({error}). "
            "Use `stop` for a plain text."
        ) from None
    if compiled.search(""):
        raise ConfigError(
            f"`stop_regex` must not match the empty text. Received: {pattern!r}. "
            "Require at least one character."
        )
    return compiled

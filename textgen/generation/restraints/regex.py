"""Texts that match a regular expression as a whole, within a number of tokens.

The pattern is compiled to an automaton over bytes, every token is walked through it from every
state, and the fewest tokens to the end of a match are computed for each state. A token is
forbidden if the pattern could not be completed after it in the remaining tokens, so whatever is
drawn, the text matches when it ends. Parts of characters need no special care: the automaton
reads UTF-8.

The automaton is that of outlines-core (Rust's regex-automata: in wheels, no dependencies, 1 ms to
import). It is built over the 256 single bytes and not over the vocabulary: given the vocabulary,
outlines-core refuses a whole pattern if one branch of it cannot be written.

This module knows bytes, tokens and logits. It does NOT know models, how a token is drawn, or who
reads the text. Compiling takes time and memory that grow with the square of counted repetitions,
and `(a|b)*a(a|b){20}` has 2^20 states by nature: a pattern must be trusted like a program.

Source: Willard and Louf 2023, "Efficient Guided Generation for Large Language Models".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from textgen.arrays import BoolArray, FloatArray, Int32Array, Int64Array, IntArray
from textgen.config import SamplingConfig, check_setting
from textgen.errors import ConfigError
from textgen.startup import require_extra
from textgen.tokenizers.base import Tokenizer

# `\w{1,100}` (31,700 states) takes 3 s to compile, `.{0,3800}` (34,200) 7 s; twice as many
# states, four times as long.
MAX_STATES = 35_000
# Each is two int32: a token that may be written in a state, and the state that follows.
MAX_MOVES = 20_000_000

# States per character of such a class; a set of letters takes 1 to 6.
_CLASS_STATES = (
    (re.compile(r"\\[wWpP]"), 317),
    (re.compile(r"\\[dD]"), 26),
    (re.compile(r"\\[sS]"), 17),
    (re.compile(r"^\.|^\[\^"), 9),
)
_ATOM = re.compile(r"\\p\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d+)(?:,(\d*))?\}|.", re.DOTALL)

_VERBOSE = re.compile(r"\(\?[a-zA-Z]*x[a-zA-Z]*\)")

_DEAD = -1
_UNREACHABLE = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class RegexConstraint:
    """A pattern compiled for one vocabulary, shared by any number of rows.

    The moves of state `q` are `first_move[q] : first_move[q + 1]`, by token id.

    Attributes:
        pattern: As it was given.
        vocab_size: Number of token ids.
        max_new_tokens: Maximum number of tokens of a text.
        distance: `[states]`, the fewest tokens to the end of a match; state 0 is the first.
        first_move: `[states + 1]`.
        move_token: `[moves]`, a token that may be written.
        move_target: `[moves]`, the state it leads to.
    """

    pattern: str
    vocab_size: int
    max_new_tokens: int
    distance: Int32Array
    first_move: Int64Array
    move_token: Int32Array
    move_target: Int32Array

    @classmethod
    def compile(
        cls,
        pattern: str,
        tokenizer: Tokenizer,
        max_new_tokens: int,
        banned_ids: Sequence[int] = (),
    ) -> Self:
        """Return the constraint that a text matches `pattern` from beginning to end.

        Args:
            pattern: A regular expression in the syntax of Rust's `regex`: Unicode classes such
                as `\\p{Han}`, but no look-around and no back-references; `\\d` is a digit of any
                script, and `\\w` includes combining marks, unlike Python's. A leading `^` and a
                trailing `$` have no effect.
            tokenizer: The model's; ids that it bans are never generated.
            max_new_tokens: Maximum number of tokens of a text.
            banned_ids: Further ids that are never generated.

        Returns:
            The constraint.

        Raises:
            ConfigError: The pattern is invalid or too large, or the tokens cannot write a text
                that it matches in `max_new_tokens` tokens.
        """
        check_setting(SamplingConfig, "max_new_tokens", max_new_tokens)
        banned = {*tokenizer.banned_ids, *banned_ids}
        pieces = [b"" if i in banned else piece for i, piece in enumerate(tokenizer.pieces())]
        distance, (source, token, target) = _solve(pattern, pieces)
        _require_reachable(pattern, distance[target[source == 0]], max_new_tokens)
        return cls(
            pattern=pattern,
            vocab_size=tokenizer.vocab_size,
            max_new_tokens=max_new_tokens,
            distance=distance,
            first_move=np.searchsorted(source, np.arange(len(distance) + 1)),
            move_token=token,
            move_target=target,
        )

    def start(self) -> "RegexRow":
        """Return the restraint of a new row: in state 0, with all tokens remaining."""
        return RegexRow(self)

    def moves(self, state: int, remaining: int) -> tuple[Int32Array, Int32Array]:
        """Return what may be written in a state.

        Args:
            state: A state of the automaton.
            remaining: Number of tokens left, the next one included.

        Returns:
            `[moves]` token ids in ascending order, and `[moves]` the states they lead to.
        """
        span = slice(self.first_move[state], self.first_move[state + 1])
        token, target = self.move_token[span], self.move_target[span]
        near = self.distance[target] < remaining
        return token[near], target[near]


class RegexRow:
    """Keeps the text of one row within a pattern.

    A text ends where nothing can follow (`[A-Z][a-z]+\\.` after its period). Where a pattern could
    end or continue (`[a-z ]+`), the text continues while tokens remain: an earlier end is left to
    a stop condition.

    Args:
        constraint: The pattern.
    """

    def __init__(self, constraint: RegexConstraint) -> None:
        self._constraint = constraint
        self._remaining = constraint.max_new_tokens
        self._token, self._target = constraint.moves(0, self._remaining)

    @property
    def finished(self) -> bool:
        """Whether the text matches and nothing can follow."""
        return len(self._token) == 0

    def allow(self, logits: FloatArray) -> FloatArray:
        """Return the logits with -inf for every token after which the text could not match.

        Args:
            logits: `[1, vocab_size]` float, nats.

        Returns:
            `[1, vocab_size]`, the dtype of `logits`; `logits` itself if the text is finished,
            since nothing can be drawn from a row of -inf.

        Raises:
            ConfigError: `logits` has another shape, or is -inf for every token that could match:
                a ban contradicts the pattern.

        Apply it before the filters: none of the tokens that top-k keeps may match.
        """
        expected = (1, self._constraint.vocab_size)
        if logits.shape != expected:
            raise ConfigError(
                f"`logits` must have the shape {expected}. Received: {logits.shape}. "
                "Compile the constraint for the engine's tokenizer."
            )
        if self.finished:
            return logits
        kept = np.full_like(logits, -np.inf)
        kept[0, self._token] = logits[0, self._token]
        if np.isneginf(kept).all():
            raise ConfigError(
                f"`regex` must leave a token that is not banned. Received: "
                f"{self._constraint.pattern!r}. Shorten `ban`."
            )
        return kept

    def advance(self, token_id: int) -> None:
        """Record the token that was drawn; a finished text does not change.

        Args:
            token_id: Drawn from what `allow` returned.

        Raises:
            ConfigError: The token was not allowed.
        """
        if self.finished:
            return
        place = int(self._token.searchsorted(token_id))
        if place == len(self._token) or self._token[place] != token_id:
            raise ConfigError(
                f"`token_id` must be one of the {len(self._token)} that are allowed here. "
                f"Received: {token_id}. Draw from what allow() returned."
            )
        self._remaining -= 1
        self._token, self._target = self._constraint.moves(
            int(self._target[place]), self._remaining
        )


def _solve(pattern: str, pieces: Sequence[bytes]) -> tuple[Int32Array, Int32Array]:
    """Return the distance of each state to the end of a match, and the moves toward one.

    `[states]`, and `[3, moves]`: source, token and target, ordered by source and token.
    """
    table, accepting = _byte_automaton(pattern)
    moves = _token_moves(table, pieces)
    distance = _distances(accepting, moves)
    moves = moves[:, distance[moves[2]] < _UNREACHABLE]
    return distance, moves[:, np.lexsort((moves[1], moves[0]))]


def _byte_automaton(pattern: str) -> tuple[Int32Array, BoolArray]:
    """Return the transitions `[states, 256]` over bytes, -1 for none, and `[states]`: accepting.

    The pattern is compiled with a NUL and the end of the text appended: a state accepts if a NUL
    leads from it to a final one. The end makes a match as long as possible, where `a|ab` alone
    would never read the b; the NUL is needed because no automaton can begin with an end.
    """
    outlines_core = require_extra("outlines_core", "regex")
    core = _without_anchors(pattern)
    _require_compilable(pattern, core)
    # A comment in a verbose pattern must not extend to what is appended.
    line_end = "\n" if _VERBOSE.match(core) else ""
    vocabulary = outlines_core.Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)})
    try:
        index = outlines_core.Index(f"(?:{core}{line_end})\\x00\\z", vocabulary)
    except ValueError as error:
        raise _invalid(pattern, str(error)) from None
    rows = index.get_transitions()
    first = index.get_initial_state()
    numbers = {state: number for number, state in enumerate([first, *(rows.keys() - {first})])}
    table = np.full((len(numbers), 256), _DEAD, np.int32)
    for state, moves in rows.items():
        live = [byte for byte in moves if byte < 256]
        table[numbers[state], live] = [numbers[moves[byte]] for byte in live]
    finals = [numbers[state] for state in index.get_final_states() if state in numbers]
    return table, np.isin(table[:, 0], finals)


def _without_anchors(pattern: str) -> str:
    core = pattern.removeprefix("^")
    escapes = len(core) - len(core.removesuffix("$").rstrip("\\")) - 1
    return core[:-1] if core.endswith("$") and escapes % 2 == 0 else core


def _require_compilable(pattern: str, core: str) -> None:
    """Raise unless the pattern can be compiled without taking minutes or all memory."""
    sums, last = [0], 0
    for atom in _ATOM.finditer(core):
        if atom[0] == "(":
            sums.append(0)
            last = 0
        elif atom[0] == ")" and len(sums) == 1:
            raise _invalid(pattern, "unbalanced parenthesis")
        elif atom[0] == ")":
            last = sums.pop()
            sums[-1] += last
        elif atom[1] is not None:
            sums[-1] += last * (int(atom[2] or atom[1]) - 1)
        else:
            last = next((n for kind, n in _CLASS_STATES if kind.search(atom[0])), 1)
            sums[-1] += last
    if sum(sums) > MAX_STATES:
        raise ConfigError(
            f"`regex` must stay below {MAX_STATES:,} states. Received: {pattern!r} with about "
            f"{sum(sums):,}. Lower the counts in braces, or use [A-Za-z] for \\w and * for {{n}}."
        )


def _invalid(pattern: str, reason: str) -> ConfigError:
    if "incompatible with the regex" in reason:
        return _impossible(pattern)
    try:
        re.compile(pattern)
    except re.error as error:
        reason = str(error)
    return ConfigError(
        "`regex` must be a regular expression without look-around, back-references, \\b, and "
        f"^ or $ inside. Received: {pattern!r} ({' '.join(reason.split())}). Rewrite it."
    )


def _impossible(pattern: str) -> ConfigError:
    return ConfigError(
        "`regex` must match a text that the model's tokens can write. "
        f"Received: {pattern!r}, which matches none. "
        "Use characters of the training text, or train with subwords."
    )


def _require_reachable(pattern: str, after_first: Int32Array, max_new_tokens: int) -> None:
    """Raise unless a text can match in `max_new_tokens` tokens.

    `after_first` is `[tokens]`: the distance to the end of a match after each first token.
    """
    if not len(after_first):
        raise _impossible(pattern)
    fewest = int(after_first.min()) + 1
    if fewest > max_new_tokens:
        raise ConfigError(
            f"`regex` must match within {max_new_tokens} tokens. Received: {pattern!r}, "
            f"which takes at least {fewest}. Raise `max_new_tokens` to {fewest} or more."
        )


def _token_moves(table: Int32Array, pieces: Sequence[bytes]) -> Int32Array:
    """Walk every token from every state.

    Tokens are sorted by their bytes, so that those that begin with one byte are a range; then all
    walks advance by one byte at a time, and those without a transition drop out. Empty pieces are
    never generated.

    Returns:
        `[3, moves]`: source, token and target of each move.
    """
    token_ids = np.array(sorted((i for i, p in enumerate(pieces) if p), key=pieces.__getitem__))
    lengths = np.array([len(pieces[i]) for i in token_ids], np.int32)
    longest = int(lengths.max(initial=1))
    padded = b"".join(pieces[i].ljust(longest, b"\0") for i in token_ids)
    content = np.frombuffer(padded, np.uint8).reshape(-1, longest)
    begins = np.searchsorted(content[:, 0], np.arange(257))
    source, byte = np.nonzero(table != _DEAD)
    counts = np.diff(begins)[byte]
    _require_few_moves(int(counts.sum()))
    first = np.stack([source, begins[byte], table[source, byte]]).astype(np.int32)
    walks = np.repeat(first, counts, axis=1)
    walks[1] = _ranges(begins[byte], counts)
    for depth in range(1, longest):
        longer = np.flatnonzero(lengths[walks[1]] > depth)
        walks[2, longer] = table[walks[2, longer], content[walks[1, longer], depth]]
        walks = walks[:, walks[2] != _DEAD]
    walks[1] = token_ids[walks[1]]
    return walks


def _require_few_moves(count: int) -> None:
    if count > MAX_MOVES:
        raise ConfigError(
            f"`regex` must leave at most {MAX_MOVES:,} choices over all its states. "
            f"Received: {count:,}. Lower the counts in braces, or use *."
        )


def _distances(accepting: BoolArray, moves: Int32Array) -> Int32Array:
    """Return `[states]`: the fewest tokens to an accepting state, by a backward search."""
    distance = np.where(accepting, 0, _UNREACHABLE).astype(np.int32)
    order = np.argsort(moves[2], kind="stable")
    source = moves[0, order]
    into = np.searchsorted(moves[2, order], np.arange(len(accepting) + 1))
    frontier = np.flatnonzero(accepting)
    steps = 0
    while len(frontier):
        steps += 1
        reached = np.unique(source[_ranges(into[frontier], into[frontier + 1] - into[frontier])])
        frontier = reached[distance[reached] == _UNREACHABLE]
        distance[frontier] = steps
    return distance


def _ranges(starts: IntArray, counts: IntArray) -> Int64Array:
    """Return the concatenation of ranges: `count` numbers from each `start`."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))

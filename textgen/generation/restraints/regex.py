"""Text that matches a regular expression as a whole, within a number of tokens.

The pattern becomes an automaton over bytes, every token is walked through it from every
state, and each state learns how few tokens it is from an end. A token is refused when
the pattern could not be completed after it in the tokens that are left, so whatever is
drawn, the text matches when it ends. Pieces of characters need no care: the automaton
reads UTF-8.

The automaton is outlines-core's (Rust's regex-automata: in wheels, no dependencies, 1 ms
to import). It is built over the 256 single bytes and not over the vocabulary: given the
vocabulary, outlines-core refuses a whole pattern if one branch of it cannot be written.

This module knows bytes, tokens and logits. It does NOT know models, how a token is
drawn, or who reads the text. Compiling takes time and memory that grow with the square
of counted repetitions, and `(a|b)*a(a|b){20}` has 2^20 states by nature: a pattern is to
be trusted like a program.

Source: Willard and Louf 2023, "Efficient Guided Generation for Large Language Models".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from textgen.errors import ConfigError
from textgen.sampling import Logits
from textgen.tokenizers.base import Tokenizer

# `\w{1,100}` (31,700 states) takes 3 s to compile, `.{0,3800}` (34,200) 7 s; twice as many
# states, four times as long.
MAX_STATES = 35_000
# Two int32 for each: what a token may do in each state.
MAX_MOVES = 20_000_000

# States that one character of such a class takes; a set of letters takes 1 to 6.
_CLASS_STATES = (
    (re.compile(r"\\[wWpP]"), 317),
    (re.compile(r"\\[dD]"), 26),
    (re.compile(r"\\[sS]"), 17),
    (re.compile(r"^\.|^\[\^"), 9),
)
_ATOM = re.compile(r"\\p\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d+)(?:,(\d*))?\}|.", re.DOTALL)

_VERBOSE = re.compile(r"\(\?[a-zA-Z]*x[a-zA-Z]*\)")

_DEAD = -1
_FAR = np.iinfo(np.int32).max

_Ids = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class RegexConstraint:
    """A pattern compiled for one vocabulary; shared by any number of texts at once.

    The moves of state `q` are `first_move[q] : first_move[q + 1]`, by token id.

    Attributes:
        pattern: As it was given.
        vocab_size: Number of token ids.
        max_new_tokens: Tokens in which a text has to match.
        distance: `[states]`, the fewest tokens to the end of a match; state 0 begins.
        first_move: `[states + 1]`.
        move_token: `[moves]`, a token that may be written.
        move_target: `[moves]`, the state it leads to.
    """

    pattern: str
    vocab_size: int
    max_new_tokens: int
    distance: _Ids
    first_move: NDArray[np.int64]
    move_token: _Ids
    move_target: _Ids

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
            pattern: A regular expression as Rust's `regex` has them: Unicode classes
                such as `\\p{Han}`, but no look-around and no back-references; `\\d` is a digit
                of any script, and `\\w` takes combining marks, which Python's does not.
                `^` at its beginning and `$` at its end say nothing new: left out.
            tokenizer: The model's; ids that it bans never come.
            max_new_tokens: The most tokens a text may have.
            banned_ids: More ids that never come.

        Returns:
            The constraint.

        Raises:
            ConfigError: The pattern is invalid or too large, the tokens cannot write any
                text that it matches, or none in `max_new_tokens` tokens.
        """
        banned = {*tokenizer.banned_ids, *banned_ids}
        pieces = [b"" if i in banned else piece for i, piece in enumerate(tokenizer.pieces())]
        distance, (source, token, target) = _solve(pattern, pieces)
        _check_within_reach(pattern, distance[target[source == 0]], max_new_tokens)
        return cls(
            pattern=pattern,
            vocab_size=tokenizer.vocab_size,
            max_new_tokens=max_new_tokens,
            distance=distance,
            first_move=np.searchsorted(source, np.arange(len(distance) + 1)),
            move_token=token,
            move_target=target,
        )

    def start(self) -> "ConstraintState":
        """Return where a new text stands: at its beginning, with all its tokens left."""
        return ConstraintState(self)

    def moves(self, state: int, remaining: int) -> tuple[_Ids, _Ids]:
        """Return what may be written in a state.

        Args:
            state: Of the automaton.
            remaining: Tokens that are left, the next one included.

        Returns:
            `[moves]` token ids in ascending order, and `[moves]` the states they lead to.
        """
        span = slice(self.first_move[state], self.first_move[state + 1])
        token, target = self.move_token[span], self.move_target[span]
        near = self.distance[target] < remaining
        return token[near], target[near]


class ConstraintState:
    """Where one text stands in a pattern.

    A text ends where nothing can follow (`[A-Z][a-z]+\\.` after its period). Where a
    pattern could end or go on (`[a-z ]+`), the text goes on while tokens are left: an
    earlier end is the business of a stop condition.

    Args:
        constraint: The pattern.
    """

    def __init__(self, constraint: RegexConstraint) -> None:
        self._constraint = constraint
        self._remaining = constraint.max_new_tokens
        self._token, self._target = constraint.moves(0, self._remaining)

    @property
    def finished(self) -> bool:
        """Whether the text matches and nothing more can follow."""
        return len(self._token) == 0

    def allow(self, logits: Logits) -> Logits:
        """Give every token a logit of -inf after which the text could no longer match.

        Args:
            logits: `[1, vocab_size]` float, nats.

        Returns:
            `[1, vocab_size]`, the dtype of `logits`. A text that is finished gets them
            back as they were, since nothing can be drawn from a row of -inf.

        Raises:
            ConfigError: `logits` has another shape, or -inf for every token that would
                do: a ban contradicts the pattern.

        Apply it before the filters: of the tokens that top-k keeps, none may match.
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
                f"{self._constraint.pattern!r}. Pass a shorter --ban."
            )
        return kept

    def advance(self, token_id: int) -> None:
        """Go on by one token; a text that is finished stays.

        Args:
            token_id: DrawnTokens from what `allow` left.

        Raises:
            ConfigError: The token was not allowed.
        """
        if self.finished:
            return
        place = int(self._token.searchsorted(token_id))
        if place == len(self._token) or self._token[place] != token_id:
            raise ConfigError(
                f"A token must be one of the {len(self._token)} that are allowed here. "
                f"Received: {token_id}. Draw from what allow() returned."
            )
        self._remaining -= 1
        self._token, self._target = self._constraint.moves(
            int(self._target[place]), self._remaining
        )


def _solve(pattern: str, pieces: Sequence[bytes]) -> tuple[_Ids, _Ids]:
    """Return the states' distances to an end, and the moves that lead to one, in order."""
    table, accepting = _byte_automaton(pattern)
    moves = _token_moves(table, pieces)
    distance = _distances(accepting, moves)
    moves = moves[:, distance[moves[2]] < _FAR]
    return distance, moves[:, np.lexsort((moves[1], moves[0]))]


def _byte_automaton(pattern: str) -> tuple[_Ids, NDArray[np.bool_]]:
    """Return the transitions `[states, 256]` over bytes, -1 for none, and who accepts.

    The pattern is compiled with a NUL and the end of the text behind it: a state accepts
    when a NUL leads it to a final one. The end makes a match as long as can be, where
    `a|ab` by itself would never read the b; the NUL, since no automaton can begin with
    an end.
    """
    from outlines_core import Index, Vocabulary

    core = _without_anchors(pattern)
    _check_size(pattern, core)
    # A comment in a verbose pattern must not reach what is put behind it.
    line_end = "\n" if _VERBOSE.match(core) else ""
    vocabulary = Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)})
    try:
        index = Index(f"(?:{core}{line_end})\\x00\\z", vocabulary)
    except ValueError as error:
        raise _refusal(pattern, str(error)) from None
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


def _check_size(pattern: str, core: str) -> None:
    """Refuse counted repetitions that would take minutes, or all memory, to compile."""
    sums, last = [0], 0
    for atom in _ATOM.finditer(core):
        if atom[0] == "(":
            sums.append(0)
            last = 0
        elif atom[0] == ")" and len(sums) == 1:
            raise _refusal(pattern, "unbalanced parenthesis")
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
            f"{sum(sums):,}. Repeat less often, or [A-Za-z] in place of \\w, * in place of {{n}}."
        )


def _refusal(pattern: str, reason: str) -> ConfigError:
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
        "Keep to the characters of the training text, or train with --tokenizer subword."
    )


def _check_within_reach(pattern: str, after_first: _Ids, max_new_tokens: int) -> None:
    """Refuse a pattern by the distances to an end after each token that can begin a text."""
    if not len(after_first):
        raise _impossible(pattern)
    fewest = int(after_first.min()) + 1
    if fewest > max_new_tokens:
        raise ConfigError(
            f"`regex` must match within {max_new_tokens} tokens. Received: {pattern!r}, "
            f"which takes at least {fewest}. Pass --max-new-tokens {fewest} or more."
        )


def _token_moves(table: _Ids, pieces: Sequence[bytes]) -> _Ids:
    """Walk every token from every state: `[3, moves]`, source, token and target.

    Tokens are taken in the order of their bytes, so that those that begin with a byte are
    a range; then all walks go on by one byte at a time, and dead ones drop out. Empty
    pieces never come.
    """
    token_ids = np.array(sorted((i for i, p in enumerate(pieces) if p), key=pieces.__getitem__))
    lengths = np.array([len(pieces[i]) for i in token_ids], np.int32)
    longest = int(lengths.max(initial=1))
    padded = b"".join(pieces[i].ljust(longest, b"\0") for i in token_ids)
    content = np.frombuffer(padded, np.uint8).reshape(-1, longest)
    begins = np.searchsorted(content[:, 0], np.arange(257))
    source, byte = np.nonzero(table != _DEAD)
    counts = np.diff(begins)[byte]
    _check_moves(int(counts.sum()))
    first = np.stack([source, begins[byte], table[source, byte]]).astype(np.int32)
    walks = np.repeat(first, counts, axis=1)
    walks[1] = _ranges(begins[byte], counts)
    for depth in range(1, longest):
        going = np.flatnonzero(lengths[walks[1]] > depth)
        walks[2, going] = table[walks[2, going], content[walks[1, going], depth]]
        walks = walks[:, walks[2] != _DEAD]
    walks[1] = token_ids[walks[1]]
    return walks


def _check_moves(count: int) -> None:
    if count > MAX_MOVES:
        raise ConfigError(
            f"`regex` must leave at most {MAX_MOVES:,} choices over all its states. "
            f"Received: {count:,}. Repeat less often than {{n}} says, or use *."
        )


def _distances(accepting: NDArray[np.bool_], moves: _Ids) -> _Ids:
    """Return the fewest tokens from each state to an accepting one, breadth first backwards."""
    distance = np.where(accepting, 0, _FAR).astype(np.int32)
    order = np.argsort(moves[2], kind="stable")
    source = moves[0, order]
    into = np.searchsorted(moves[2, order], np.arange(len(accepting) + 1))
    frontier = np.flatnonzero(accepting)
    steps = 0
    while len(frontier):
        steps += 1
        reached = np.unique(source[_ranges(into[frontier], into[frontier + 1] - into[frontier])])
        frontier = reached[distance[reached] == _FAR]
        distance[frontier] = steps
    return distance


def _ranges(starts: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return `start, start + 1, ...`, `count` numbers each, one range behind the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))

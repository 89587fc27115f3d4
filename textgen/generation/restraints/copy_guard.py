"""A limit on the length of spans that are copied from the training text.

Before each draw the guard forbids every token that would complete a copied span of more than
`max_copy` characters. It is exact: whatever is drawn from the remaining tokens, no longer span of
the text is in the corpus, and no other token is forbidden. Only generated text counts: a span that
begins in the prompt counts from its first generated character.

This module knows tokens by the text they decode to. It does NOT know how a token is drawn.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

from textgen.arrays import FloatArray, Int64Array
from textgen.config import SamplingConfig, check_setting
from textgen.corpora.passages import Passage, PassageIndex
from textgen.errors import ConfigError
from textgen.generation.decoding import PendingIds, decode_next, next_pending
from textgen.tokenizers.base import Tokenizer

# Tables of the tokens that may follow the first bytes of a character; one takes 3 ms to build for
# 2,048 tokens.
_MAX_TABLES = 256
# Looking at one position of the corpus takes 1 us, asking for one token 6 to 10 us.
_POSITIONS_PER_TOKEN = 6


class CopyGuard:
    """The tables that the rows of one model share to limit copied spans.

    Args:
        index: The text that must not be copied from.
        tokenizer: Decodes the tokens.
        max_copy: Maximum length of a copied span, in characters; at least 1.

    Attributes:
        index: As given.
        tokenizer: As given.
        max_copy: As given.
        whole: The table of the tokens after a finished character.

    Raises:
        ConfigError: `max_copy` is less than 1.

    A token counts as the characters it completes, and as U+FFFD for the character that it leaves
    unfinished, since the text may end there. The first bytes of a character are allowed, the byte
    that would complete a copy is not.
    """

    def __init__(self, index: PassageIndex, tokenizer: Tokenizer, max_copy: int) -> None:
        check_setting(SamplingConfig, "max_copy", max_copy)
        self.index = index
        self.tokenizer = tokenizer
        self.max_copy = max_copy
        self._tables: dict[PendingIds, _PieceTable] = {}
        self.whole = self._make_table(())

    def start(self) -> "CopyGuardRow":
        """Return the restraint of a new row."""
        return CopyGuardRow(self)

    def table(self, pending: PendingIds) -> "_PieceTable":
        """Return the text of each token after the pending tokens of an unfinished character."""
        if not pending:
            return self.whole
        if pending not in self._tables:
            if len(self._tables) >= _MAX_TABLES:
                self._tables.clear()
            self._tables[pending] = self._make_table(pending)
        return self._tables[pending]

    def _make_table(self, pending: PendingIds) -> "_PieceTable":
        return _PieceTable(self.index, self.tokenizer, self.max_copy, pending)


class CopyGuardRow:
    """Forbids the tokens that would make a copied span of one row too long.

    Call `allow` before each draw and `advance` after it.

    Args:
        guard: What it shares with other rows.
    """

    def __init__(self, guard: CopyGuard) -> None:
        self._guard = guard
        self._cursor = guard.index.cursor(guard.max_copy)
        self._pending: PendingIds = ()

    @property
    def finished(self) -> bool:
        """Always False: a text never ends because it might copy."""
        return False

    def allow(self, logits: FloatArray) -> FloatArray:
        """Return the logits with -inf for every token that would copy too much.

        Args:
            logits: `[1, vocab_size]` float, nats.

        Returns:
            `[1, vocab_size]`, the dtype of `logits`; `logits` itself if nothing is forbidden.

        Raises:
            ConfigError: No token is left.
        """
        token_ids = self._forbidden(logits[0])
        if not len(token_ids):
            return logits
        kept = logits.copy()
        kept[0, token_ids] = -np.inf
        self._require_any_left(kept[0])
        return kept

    def advance(self, token_id: int) -> None:
        """Record the token that was drawn."""
        whole = self._guard.whole
        # A token without bytes does not change an unfinished character.
        if not whole.texts[token_id]:
            return
        if self._pending:
            decoder = self._guard.tokenizer.decoder()
            piece, unfinished = decode_next(decoder, self._pending, token_id)
        else:
            piece, unfinished = whole.pieces[token_id], whole.unfinished[token_id]
        self._cursor.advance(piece)
        self._pending = next_pending(self._pending, token_id, unfinished)

    def _forbidden(self, row_logits: FloatArray) -> Int64Array:
        """Return the forbidden token ids, `[forbidden]`; ids may repeat."""
        # A broken character becomes U+FFFD before the piece that breaks it.
        longest = self._guard.whole.longest + bool(self._pending)
        if not self._cursor.reaches(self._guard.max_copy + 1 - longest):
            return np.array([], np.int64)
        table = self._guard.table(self._pending)
        return np.concatenate([table.copied, *self._copying(table, row_logits)])

    def _copying(self, table: "_PieceTable", row_logits: FloatArray) -> Iterator[Int64Array]:
        """Yield the tokens that would extend a copy at the end of the text beyond the limit.

        Each position of the corpus that matches the end of the text forbids the tokens that begin
        with the characters that follow there, far enough to exceed the limit. If there are many
        more positions than tokens of that length, each of these tokens is looked up instead.
        """
        continuations, matches = self._cursor.matches()
        for character in continuations:
            yield table.starting_with(character)
        seen: set[str] = set()
        for count, (length, start) in enumerate(matches):
            missing = self._guard.max_copy + 1 - length
            if count >= _POSITIONS_PER_TOKEN * table.count_at_least(missing):
                possible = table.at_least(missing)
                possible = possible[row_logits[possible] > -np.inf]
                exceeding = [i for i in possible.tolist() if self._cursor.exceeds(table.texts[i])]
                yield np.array(exceeding, np.int64)
                return
            following = self._guard.index.following(start, missing)
            if len(following) == missing and following not in seen:
                seen.add(following)
                yield table.starting_with(following)

    def _require_any_left(self, row_logits: FloatArray) -> None:
        if not (row_logits > -np.inf).any():
            raise ConfigError(
                f"`max_copy` must leave a token to draw. Received: {self._guard.max_copy}, and "
                "every possible token would copy more characters of the training text than that. "
                "Raise `max_copy`."
            )


def longest_copies(index: PassageIndex, texts: Iterable[str]) -> list[Passage]:
    """Return the longest span of each text that is in the corpus."""
    return [index.longest_match(text) for text in texts]


class _PieceTable:
    """The text of each token after given unfinished bytes, sorted for look-ups.

    Args:
        index: The corpus.
        tokenizer: Decodes the tokens.
        max_copy: Maximum length of a copied span.
        pending: The tokens of an unfinished character.

    Attributes:
        pieces: The characters that each token completes.
        unfinished: What an end of the text after the token would add.
        texts: Both together.
        longest: Length of the longest of them.
        copied: `[copied]`, the tokens that contain a copied span longer than `max_copy`.
    """

    def __init__(
        self, index: PassageIndex, tokenizer: Tokenizer, max_copy: int, pending: PendingIds
    ) -> None:
        decoder = tokenizer.decoder()
        read = [decode_next(decoder, pending, i) for i in range(tokenizer.vocab_size)]
        self.pieces = [piece for piece, _ in read]
        self.unfinished = [unfinished for _, unfinished in read]
        self.texts = [piece + unfinished for piece, unfinished in read]
        self.longest = max(map(len, self.texts))
        copied = [i for i, text in enumerate(self.texts) if index.has_copy(text, max_copy)]
        self.copied = np.array(copied, np.int64)
        by_text = sorted(range(len(self.texts)), key=self.texts.__getitem__)
        self._sorted_texts = [self.texts[i] for i in by_text]
        self._by_text = np.array(by_text, np.int64)
        lengths = np.array([len(text) for text in self.texts])
        self._by_length = np.argsort(-lengths, kind="stable")
        counts = np.append(np.bincount(lengths)[::-1].cumsum()[::-1], 0)
        self._counts: list[int] = counts.tolist()

    def count_at_least(self, length: int) -> int:
        """Return the number of tokens with at least `length` characters."""
        return self._counts[min(length, self.longest + 1)]

    def at_least(self, length: int) -> Int64Array:
        """Return the tokens with at least `length` characters, the longest first: `[tokens]`."""
        return self._by_length[: self.count_at_least(length)]

    def starting_with(self, prefix: str) -> Int64Array:
        """Return the tokens whose text starts with `prefix`: `[tokens]`."""
        first = bisect_left(self._sorted_texts, prefix)
        last = bisect_right(self._sorted_texts, prefix, first, key=lambda text: text[: len(prefix)])
        return self._by_text[first:last]

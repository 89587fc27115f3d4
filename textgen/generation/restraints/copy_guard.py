"""Keep a model from reciting: no written span longer than so many characters is a copy.

Before each draw the guard forbids every token that would complete a copied span of more
than `max_copy` characters. It is exact: whatever is drawn from what is left, no longer
span of the text stands in the corpus, and no other token is forbidden. Only written text
counts: a span that begins in the prompt is counted from its first written character.

It knows tokens by the text they decode to. It does NOT know how a token is drawn.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from textgen.corpora.passages import Passage, PassageIndex
from textgen.errors import ConfigError
from textgen.sampling import Logits
from textgen.tokenizers import Tokenizer
from textgen.tokenizers.base import TextDecoder

TokenIds = NDArray[np.int64]

# A character has at most four bytes, so at most three tokens can be waiting for its last.
_MOST_PENDING = 3
# Tables for what may follow the first bytes of a character: 3 ms to make with 2,048 pieces.
_MOST_TABLES = 256
# To look at one place of the corpus takes 1 µs, to ask for one token 6 to 10.
_PLACES_PER_TOKEN = 6


class CopyGuard:
    """What the rows of one model need to know to copy no more than so many characters.

    Args:
        index: The text that must not be copied from.
        tokenizer: What turns the drawn tokens into text.
        max_copy: The longest span of it that may be written, in characters; at least 1.

    Raises:
        ConfigError: `max_copy` is below 1.

    A token counts as the characters it completes, and U+FFFD for the character that it
    leaves unfinished, since the text may end there. The first bytes of a character are
    let pass, the byte that would complete a copy is not.
    """

    def __init__(self, index: PassageIndex, tokenizer: Tokenizer, max_copy: int) -> None:
        if max_copy < 1:
            raise ConfigError(
                f"`max_copy` must be at least 1 character. Received: {max_copy}. Pass --max-copy."
            )
        self.index = index
        self.tokenizer = tokenizer
        self.max_copy = max_copy
        self._tables: dict[tuple[int, ...], _PieceTable] = {}
        self.whole = self._make_table(())

    def start(self) -> "GuardedRow":
        """Return the guard of a new text."""
        return GuardedRow(self)

    def table(self, pending: tuple[int, ...]) -> "_PieceTable":
        """Return what each token reads as behind the tokens of an unfinished character."""
        if not pending:
            return self.whole
        if pending not in self._tables:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            self._tables[pending] = self._make_table(pending)
        return self._tables[pending]

    def _make_table(self, pending: tuple[int, ...]) -> "_PieceTable":
        return _PieceTable(self.index, self.tokenizer, self.max_copy, pending)


class GuardedRow:
    """Forbids the tokens that would make a copied span of one text too long.

    Call `allow` before each draw and `advance` after it.

    Args:
        guard: What it shares with other rows.
    """

    def __init__(self, guard: CopyGuard) -> None:
        self._guard = guard
        self._cursor = guard.index.cursor(guard.max_copy)
        self._pending: tuple[int, ...] = ()

    def allow(self, logits: Logits) -> Logits:
        """Give every token that would copy too much a logit of -inf.

        Args:
            logits: `[1, vocab_size]` float, nats.

        Returns:
            `[1, vocab_size]`, the dtype of `logits`; `logits` itself where nothing had to be
            forbidden.

        Raises:
            ConfigError: No token is left.
        """
        token_ids = self._forbidden(logits[0])
        if not len(token_ids):
            return logits
        kept = logits.copy()
        kept[0, token_ids] = -np.inf
        self._check_any_left(kept[0])
        return kept

    def advance(self, token_id: int) -> None:
        """Take note of the token that was drawn."""
        whole = self._guard.whole
        # A token without bytes leaves an unfinished character as it is.
        if not whole.texts[token_id]:
            return
        if self._pending:
            piece, rest = _read(self._guard.tokenizer.decoder(), self._pending, token_id)
        else:
            piece, rest = whole.pieces[token_id], whole.rests[token_id]
        self._cursor.advance(piece)
        self._pending = (*self._pending, token_id)[-_MOST_PENDING:] if rest else ()

    def _forbidden(self, row_logits: Logits) -> TokenIds:
        # A broken character becomes U+FFFD in front of the piece that breaks it.
        longest = self._guard.whole.longest + bool(self._pending)
        if not self._cursor.reaches(self._guard.max_copy + 1 - longest):
            return np.array([], np.int64)
        table = self._guard.table(self._pending)
        return np.concatenate([table.copied, *self._copying(table, row_logits)])

    def _copying(self, table: "_PieceTable", row_logits: Logits) -> Iterable[TokenIds]:
        """Yield the tokens that would go on copying what the end of the text copies.

        Each place of the corpus that ends like the text forbids the pieces that begin as
        the corpus goes on there, far enough to exceed the limit. Where there are many
        more places than pieces of that length, these pieces are asked for instead.
        """
        continuations, places = self._cursor.matches()
        for character in continuations:
            yield table.beginning_with(character)
        seen: set[str] = set()
        for count, (length, start) in enumerate(places):
            missing = self._guard.max_copy + 1 - length
            if count >= _PLACES_PER_TOKEN * table.count_at_least(missing):
                possible = table.at_least(missing)
                possible = possible[row_logits[possible] > -np.inf]
                exceeding = [i for i in possible.tolist() if self._cursor.exceeds(table.texts[i])]
                yield np.array(exceeding, np.int64)
                return
            ahead = self._guard.index.following(start, missing)
            if len(ahead) == missing and ahead not in seen:
                seen.add(ahead)
                yield table.beginning_with(ahead)

    def _check_any_left(self, row_logits: Logits) -> None:
        if not (row_logits > -np.inf).any():
            raise ConfigError(
                "`max_copy` must leave a token to write. Received: "
                f"{self._guard.max_copy}, and every token that may come would copy more characters "
                "of the training text than that. Pass a larger --max-copy."
            )


def longest_copies(index: PassageIndex, texts: Iterable[str]) -> list[Passage]:
    """Return for each text its longest span that stands in the corpus."""
    return [index.longest_match(text) for text in texts]


class _PieceTable:
    """What each token writes after given unfinished bytes, sorted for looking up.

    Args:
        index: The corpus.
        tokenizer: What decodes.
        max_copy: The longest span that may be written.
        pending: The tokens whose bytes wait for the rest of a character.

    Attributes:
        pieces: The characters that each token completes.
        rests: What it would leave behind if the text ended after it.
        texts: Both together.
        longest: Characters of the longest of them.
        copied: The tokens that hold a copied span longer than `max_copy` on their own.
    """

    def __init__(
        self, index: PassageIndex, tokenizer: Tokenizer, max_copy: int, pending: tuple[int, ...]
    ) -> None:
        decoder = tokenizer.decoder()
        read = [_read(decoder, pending, token_id) for token_id in range(tokenizer.vocab_size)]
        self.pieces = [piece for piece, _ in read]
        self.rests = [rest for _, rest in read]
        self.texts = [piece + rest for piece, rest in read]
        self.longest = max(map(len, self.texts))
        copied = [i for i, text in enumerate(self.texts) if index.has_copy(text, max_copy)]
        self.copied = np.array(copied, np.int64)
        by_text = sorted(range(len(self.texts)), key=self.texts.__getitem__)
        self._sorted_texts = [self.texts[i] for i in by_text]
        self._by_text = np.array(by_text, np.int64)
        lengths = np.array([len(text) for text in self.texts])
        self._by_length = np.argsort(-lengths, kind="stable")
        self._counts = np.append(np.bincount(lengths)[::-1].cumsum()[::-1], 0).tolist()

    def count_at_least(self, length: int) -> int:
        """Return how many tokens have `length` characters or more."""
        return self._counts[min(length, self.longest + 1)]

    def at_least(self, length: int) -> TokenIds:
        """Return the tokens of `length` characters or more, the longest first."""
        return self._by_length[: self.count_at_least(length)]

    def beginning_with(self, prefix: str) -> TokenIds:
        """Return the tokens whose text begins with `prefix`."""
        first = bisect_left(self._sorted_texts, prefix)
        last = bisect_right(self._sorted_texts, prefix, first, key=lambda text: text[: len(prefix)])
        return self._by_text[first:last]


def _read(decoder: TextDecoder, pending: tuple[int, ...], token_id: int) -> tuple[str, str]:
    """Return what `token_id` completes after `pending`, and what it leaves unfinished."""
    for earlier in pending:
        decoder.feed(earlier)
    return decoder.feed(token_id), decoder.flush()

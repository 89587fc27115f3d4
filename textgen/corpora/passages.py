"""Passages: spans of a text that occur verbatim in the corpus.

They are found in an index, the suffix array of the reversed corpus: all positions of the corpus,
sorted by the characters that precede them, last character first. One binary search then finds
the longest suffix of a text that is in the corpus, and the neighbors in the index are the
positions that match fewer characters. This module does NOT know tokens, logits, or the source of
the corpus.

Throughout, `start` is an index into the reversed corpus, at which a match starts. It equals the
number of characters of the corpus that follow the match.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from textgen.arrays import Int32Array
from textgen.corpora.suffixes import sort_suffixes
from textgen.errors import RunError
from textgen.storage import damaged_file, read_safetensors, require_known_schema, tensors_sha256
from textgen.tokenizers.char import code_points

PASSAGES_FILE = "passages.safetensors"
SCHEMA_VERSION = 1

_REMEDY = "Delete it: it is rebuilt when it is needed."
# Up to this number of positions, a loop is faster than NumPy.
_MAX_LOOP_POSITIONS = 32


@dataclass(frozen=True)
class Passage:
    """A span of a text that also occurs in the corpus.

    Attributes:
        length: Number of characters; 0 if no character of the text is in the corpus.
        begin: Position of the first character in the text.
        position: Position of the first character in the corpus; of any one, if there are several.
    """

    length: int
    begin: int
    position: int


class PassageIndex:
    """All positions of a corpus, sorted by the characters that precede them.

    Built by `build`, or read from a file by `load`.

    Args:
        text: The corpus.
        order: `[len(text)]` int32, the suffix array of the reversed corpus.
    """

    def __init__(self, text: str, order: Int32Array) -> None:
        self._reversed = text[::-1]
        self._order = order
        # Reading a Python int from a memoryview takes 30 ns, a NumPy scalar from an array 80 ns.
        self._starts = np.ascontiguousarray(order).data

    @classmethod
    def build(cls, text: str) -> Self:
        """Return the index of `text`, which may be empty or contain any characters."""
        return cls(text, sort_suffixes(text[::-1]))

    def to_bytes(self) -> bytes:
        """Return the content of the file: four bytes per character, without the text itself."""
        text_sha256 = _sha256(self._reversed[::-1])
        metadata = {"schema_version": str(SCHEMA_VERSION), "text_sha256": text_sha256}
        metadata["sha256"] = _digest(self._order, text_sha256)
        return safetensors.numpy.save({"order": self._order}, metadata)

    @classmethod
    def load(cls, path: Path, text: str) -> Self:
        """Load an index from a file with the content of `to_bytes`.

        Args:
            path: The file.
            text: The corpus from which it must have been built.

        Returns:
            The index.

        Raises:
            RunError: The file is missing or damaged, was written by a newer program, or was
                built from another text.
        """
        missing = f"The index {path} does not exist. Build it from the training text."
        metadata, tensors = read_safetensors(path, missing=missing, remedy=_REMEDY)
        require_known_schema(path, metadata.get("schema_version"), SCHEMA_VERSION, _REMEDY)
        order, text_sha256 = tensors.get("order"), metadata.get("text_sha256", "")
        if order is None or _digest(order, text_sha256) != metadata.get("sha256"):
            raise damaged_file(path, "its content does not match its sha256", _REMEDY)
        if text_sha256 != _sha256(text):
            raise RunError(
                f"{path} must be the index of the run's training text. Received: the index of "
                f"another text. {_REMEDY}"
            )
        if not _is_order(order, len(text)):
            raise damaged_file(path, "`order` must contain each position of the text", _REMEDY)
        return cls(text, order)

    def cursor(self, limit: int) -> "Cursor":
        """Return a cursor at the beginning of a text to be generated; see `Cursor`."""
        return Cursor(self, limit)

    def longest_match(self, text: str) -> Passage:
        """Find the longest span of `text` that occurs in the corpus.

        Args:
            text: Any text.

        Returns:
            The first of the longest spans.

        A span that ends `d` characters later can be at most `d` characters longer, so ends that
        cannot exceed the best length are skipped.
        """
        best = Passage(0, 0, 0)
        backwards, end = text[::-1], 1
        while end <= len(text):
            length, start = self._match_from(backwards, len(text) - end)
            while length and end < len(text) and self._is_followed_by(start, text[end]):
                length, start, end = length + 1, start - 1, end + 1
            if length > best.length:
                best = Passage(length, end - length, len(self._reversed) - start - length)
            end += best.length - length + 1
        return best

    def has_copy(self, text: str, limit: int) -> bool:
        """Return whether a span of more than `limit` characters of `text` is in the corpus.

        Args:
            text: Any text.
            limit: Length of the longest accepted span, at least 1.

        Returns:
            True if there is one.
        """
        end = limit + 1
        while end <= len(text):
            length, _ = self.match(text[end - limit - 1 : end][::-1])
            if length > limit:
                return True
            end += limit + 1 - length
        return False

    def following(self, start: int, length: int) -> str:
        """Return the characters of the corpus that follow a match.

        Args:
            start: Start of the match, as `match` returns it.
            length: Maximum number of characters; there are fewer at the end of the corpus.

        Returns:
            The characters.
        """
        return self._reversed[max(0, start - length) : start][::-1]

    def match(self, pattern: str) -> tuple[int, int]:
        """Find the longest suffix of a text that occurs in the corpus.

        Args:
            pattern: The text, reversed.

        Returns:
            The length of the longest prefix of `pattern` in the reversed corpus, and its start.
        """
        rank, size = self.rank(pattern), len(pattern)
        return max(self._common(pattern, rank - 1, size), self._common(pattern, rank, size))

    def full_matches(self, pattern: str) -> range:
        """Return the ranks of the positions that a text precedes in full.

        Args:
            pattern: The text, reversed.

        Returns:
            A range of ranks, for `continuations`; an empty range at `rank(pattern)` if the
            corpus does not contain the text.
        """
        low, size, backwards = self.rank(pattern), len(pattern), self._reversed
        high = bisect_right(self._starts, pattern, low, key=lambda at: backwards[at : at + size])
        return range(low, high)

    def continuations(self, ranks: range) -> str:
        """Return the distinct characters that follow the positions with these ranks."""
        if len(ranks) <= _MAX_LOOP_POSITIONS:
            few = [self._starts[rank] for rank in ranks]
            return "".join({self._reversed[start - 1] for start in few if start})
        starts = self._order[ranks.start : ranks.stop]
        return "".join(map(chr, np.unique(self._codes[starts[starts > 0] - 1]).tolist()))

    def matches(self, pattern: str, around: range) -> Iterator[tuple[int, int]]:
        """Yield every match of at least the last character of a text, longest first.

        Args:
            pattern: The text, reversed.
            around: Its `full_matches`, which are left out. The next longest matches are their
                neighbors in the index, so the search proceeds outward from there.

        Yields:
            Length and start, as `match` returns them; lengths do not increase.
        """
        low, high = around.start - 1, around.stop
        below, start_below = self._common(pattern, low, len(pattern))
        above, start_above = self._common(pattern, high, len(pattern))
        while below or above:
            if below >= above:
                yield below, start_below
                low -= 1
                below, start_below = self._common(pattern, low, below)
            else:
                yield above, start_above
                high += 1
                above, start_above = self._common(pattern, high, above)

    def rank(self, pattern: str) -> int:
        """Return the number of suffixes of the reversed corpus that are less than `pattern`."""
        size, backwards = len(pattern), self._reversed
        return bisect_left(self._starts, pattern, key=lambda at: backwards[at : at + size])

    @cached_property
    def _codes(self) -> NDArray[np.uint32]:
        return code_points(self._reversed)

    def _common(self, pattern: str, rank: int, limit: int) -> tuple[int, int]:
        """Return the common prefix length of `pattern[:limit]` and a suffix, and its start."""
        if not 0 <= rank < len(self._starts):
            return 0, 0
        start = self._starts[rank]
        if self._reversed.startswith(pattern[:limit], start):
            return limit, start
        pairs = zip(pattern, self._reversed[start : start + limit], strict=False)
        differ = (count for count, (ours, theirs) in enumerate(pairs) if ours != theirs)
        return next(differ, len(self._reversed) - start), start

    def _match_from(self, backwards: str, begin: int) -> tuple[int, int]:
        """Return `match(backwards[begin:])` without copying more of the text than needed."""
        size = 64
        while True:
            length, start = self.match(backwards[begin : begin + size])
            if length < size or begin + size >= len(backwards):
                return length, start
            size *= 8

    def _is_followed_by(self, start: int, character: str) -> bool:
        return start > 0 and self._reversed[start - 1] == character


class Cursor:
    """The end of a text during generation, and its longest match in the corpus.

    Only characters that can still be part of a match are kept, and the index is searched only
    when a length is needed: `d` characters after a match of length `m`, no match is longer than
    `m + d`.

    Args:
        index: The corpus.
        limit: Longer matches count as this length; at least 1.
    """

    def __init__(self, index: PassageIndex, limit: int) -> None:
        self._index = index
        self._limit = limit
        self._tail = ""
        self._is_match = True

    def advance(self, piece: str) -> None:
        """Append generated text, any number of characters."""
        if piece:
            self._tail = (self._tail + piece)[-self._limit :]
            self._is_match = False

    @property
    def length(self) -> int:
        """Length of the longest suffix of the text that is in the corpus, at most `limit`."""
        if not self._is_match:
            length, _ = self._index.match(self._tail[::-1])
            self._tail = self._tail[len(self._tail) - length :]
            self._is_match = True
        return len(self._tail)

    def reaches(self, length: int) -> bool:
        """Return whether the match has at least `length` characters; search only if it might."""
        return len(self._tail) >= length and self.length >= length

    def exceeds(self, piece: str) -> bool:
        """Return whether appending `piece` would create a copied span longer than `limit`.

        Spans that end before `piece` do not count.
        """
        return self._index.has_copy(self._tail + piece, self._limit)

    def matches(self) -> tuple[str, Iterator[tuple[int, int]]]:
        """Return how the corpus continues where it matches the end of the text.

        Returns:
            The characters that follow a match of `limit` characters; and length and start of
            every shorter match, longest first, as `PassageIndex.match` returns them.
        """
        pattern = self._tail[::-1]
        if len(pattern) < self._limit:
            rank = self._index.rank(pattern)
            return "", self._index.matches(pattern, range(rank, rank))
        full = self._index.full_matches(pattern)
        return self._index.continuations(full), self._index.matches(pattern, full)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _digest(order: NDArray[Any], text_sha256: str) -> str:
    return hashlib.sha256(f"{text_sha256} {tensors_sha256({'order': order})}".encode()).hexdigest()


def _is_order(order: NDArray[Any], size: int) -> bool:
    """Return whether `order` has the shape, the dtype and the range of a suffix array."""
    is_array = order.dtype == np.int32 and order.shape == (size,)
    return is_array and (size == 0 or bool(order.min() >= 0 and order.max() < size))

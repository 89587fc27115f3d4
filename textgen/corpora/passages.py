"""Which spans of a text stand word for word in the corpus: an index over its characters.

The index is the list of all places of the corpus, sorted by what stands before each,
read backwards (the suffix array of the reversed corpus). What was written last is then
found by one binary search, whatever came before it, and next to the place found stand
all others that end alike. It knows text. It does NOT know tokens, logits, or where the
corpus came from.

Built by NumPy in 0.2 to 0.8 s per million characters, against 0.1 s with pydivsufsort
0.0.20, which adds 12 MB of compiled code and an OpenMP of its own for what happens once a
run.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from textgen.errors import RunError
from textgen.storage import require_known_schema, safetensors_metadata, tensors_sha256

PASSAGES_FILE = "passages.safetensors"
SCHEMA_VERSION = 1

_KEY_BITS = 62
# Up to here a loop is faster than NumPy.
_FEW_PLACES = 32


@dataclass(frozen=True)
class Passage:
    """A span of a text that stands in the corpus as well.

    Attributes:
        length: In characters; 0: no character of the text is in the corpus.
        begin: Where it begins in the text.
        position: Where it begins in the corpus; one of the places, if there are several.
    """

    length: int
    begin: int
    position: int


class PassageIndex:
    """All places of a corpus, sorted by what stands before them, read backwards.

    Use `build`, or `from_bytes` for one that was stored.

    Args:
        text: The corpus.
        order: `[len(text)]` int32, the suffix array of the reversed corpus.
    """

    def __init__(self, text: str, order: NDArray[np.int32]) -> None:
        self._backwards = text[::-1]
        self._order = order
        # A memoryview gives a Python int in 30 ns, an array a NumPy scalar in 80.
        self._starts = np.ascontiguousarray(order).data

    @classmethod
    def build(cls, text: str) -> Self:
        """Return the index of `text`, any characters, also none."""
        return cls(text, _sort_suffixes(text[::-1]))

    def to_bytes(self) -> bytes:
        """Return the content of the file: four bytes a character, without the text itself."""
        owner = _text_sha256(self._backwards[::-1])
        metadata = {"schema_version": str(SCHEMA_VERSION), "text_sha256": owner}
        metadata["sha256"] = _digest(self._order, owner)
        return safetensors.numpy.save({"order": self._order}, metadata)

    @classmethod
    def from_bytes(cls, data: bytes, text: str) -> Self:
        """Rebuild what `to_bytes` gave.

        Args:
            data: What was stored.
            text: The corpus it was built from.

        Returns:
            The index.

        Raises:
            RunError: The content is damaged, comes from a newer program, or was built
                from another text.
        """
        try:
            order = safetensors.numpy.load(data)["order"]
            metadata = safetensors_metadata(data)
            require_known_schema(PASSAGES_FILE, int(metadata["schema_version"]), SCHEMA_VERSION)
            owner, written = metadata["text_sha256"], metadata["sha256"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise _damaged(" ".join(str(error).split())) from error
        if _digest(order, owner) != written:
            raise _damaged("its sha256 is not the one that was written")
        if owner != _text_sha256(text):
            raise RunError(
                f"{PASSAGES_FILE} must belong to the run's training text. Received: the index "
                "of another text. Remove the file: it is built again."
            )
        return cls(text, order)

    def cursor(self, limit: int) -> "Cursor":
        """Return a reader of a text that is being written, at its beginning; see `Cursor`."""
        return Cursor(self, limit)

    def longest_match(self, text: str) -> Passage:
        """Find the longest span of `text` that stands in the corpus.

        Args:
            text: Any text.

        Returns:
            The first of the longest.

        An end `d` characters further on can match at most `d` characters more, so ends
        that cannot beat the best are not looked at.
        """
        best = Passage(0, 0, 0)
        reverse, end = text[::-1], 1
        while end <= len(text):
            length, start = self._longest_from(reverse, len(text) - end)
            while length and end < len(text) and self._follows(start, text[end]):
                length, start, end = length + 1, start - 1, end + 1
            if length > best.length:
                best = Passage(length, end - length, len(self._backwards) - start - length)
            end += best.length - length + 1
        return best

    def has_copy(self, text: str, limit: int) -> bool:
        """Return whether a span of more than `limit` characters of `text` is in the corpus.

        Args:
            text: Any text.
            limit: The longest span that is let pass; at least 1.

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
        """Return the `length` characters of the corpus from a place on; fewer at its end.

        Args:
            start: The place, counted from the end of the corpus, as `match` gives it.
            length: In characters.

        Returns:
            The span.
        """
        return self._backwards[max(0, start - length) : start][::-1]

    def match(self, pattern: str) -> tuple[int, int]:
        """Find what ends like a text.

        Args:
            pattern: The text, read backwards.

        Returns:
            How many of its first characters stand together in the corpus, and where:
            the number of characters from that place to the corpus's end.
        """
        slot, size = self.slot(pattern), len(pattern)
        return max(self._shared(pattern, slot - 1, size), self._shared(pattern, slot, size))

    def whole_matches(self, pattern: str) -> range:
        """Return which places end in all of a text, as slots for `continuations`.

        Args:
            pattern: The text, read backwards.

        Returns:
            A range of slots; empty, where the text would be sorted in, if there is none.
        """
        low, size, backwards = self.slot(pattern), len(pattern), self._backwards
        high = bisect_right(self._starts, pattern, low, key=lambda at: backwards[at : at + size])
        return range(low, high)

    def continuations(self, slots: range) -> str:
        """Return the different characters that follow some places, each once."""
        if len(slots) <= _FEW_PLACES:
            few = [self._starts[slot] for slot in slots]
            return "".join({self._backwards[start - 1] for start in few if start})
        starts = self._order[slots.start : slots.stop]
        return "".join(map(chr, np.unique(self._codes[starts[starts > 0] - 1]).tolist()))

    def matches(self, pattern: str, around: range) -> Iterator[tuple[int, int]]:
        """Yield every place that ends like a text in at least one character, best first.

        Args:
            pattern: The text, read backwards.
            around: Its `whole_matches`, which are left out. The places that match best lie
                next to them, so this walks outwards from there.

        Yields:
            What `match` returns, lengths falling.
        """
        low, high = around.start - 1, around.stop
        below, start_below = self._shared(pattern, low, len(pattern))
        above, start_above = self._shared(pattern, high, len(pattern))
        while below or above:
            if below >= above:
                yield below, start_below
                low -= 1
                below, start_below = self._shared(pattern, low, below)
            else:
                yield above, start_above
                high += 1
                above, start_above = self._shared(pattern, high, above)

    @cached_property
    def _codes(self) -> NDArray[np.uint32]:
        return np.frombuffer(self._backwards.encode("utf-32-le", "surrogatepass"), "<u4")

    def slot(self, pattern: str) -> int:
        """Return where a text, read backwards, would be sorted in: before all that end in it."""
        size, backwards = len(pattern), self._backwards
        return bisect_left(self._starts, pattern, key=lambda at: backwards[at : at + size])

    def _shared(self, pattern: str, slot: int, most: int) -> tuple[int, int]:
        """Return how many of the first `most` characters a place shares, and the place."""
        if not 0 <= slot < len(self._starts):
            return 0, 0
        start = self._starts[slot]
        if self._backwards.startswith(pattern[:most], start):
            return most, start
        pairs = zip(pattern, self._backwards[start : start + most], strict=False)
        differ = (count for count, (ours, theirs) in enumerate(pairs) if ours != theirs)
        return next(differ, len(self._backwards) - start), start

    def _longest_from(self, reverse: str, begin: int) -> tuple[int, int]:
        """Return `match` of `reverse[begin:]`, most of which is seldom looked at."""
        size = 64
        while True:
            length, start = self.match(reverse[begin : begin + size])
            if length < size or begin + size >= len(reverse):
                return length, start
            size *= 8

    def _follows(self, start: int, character: str) -> bool:
        return start > 0 and self._backwards[start - 1] == character


class Cursor:
    """The end of a text that is being written, and how much of it the corpus has.

    Only the characters are kept that can still be part of a match, and nothing is
    looked up before it is asked for: `d` characters after a match of `m`, no match is
    longer than `m + d`.

    Args:
        index: The corpus.
        limit: Matches longer than this count as this long; at least 1.
    """

    def __init__(self, index: PassageIndex, limit: int) -> None:
        self._index = index
        self._limit = limit
        self._tail = ""
        self._is_match = True

    def advance(self, piece: str) -> None:
        """Add what was written next, any number of characters."""
        if piece:
            self._tail = (self._tail + piece)[-self._limit :]
            self._is_match = False

    @property
    def length(self) -> int:
        """How many of the last characters stand together in the corpus, at most `limit`."""
        if not self._is_match:
            length, _ = self._index.match(self._tail[::-1])
            self._tail = self._tail[len(self._tail) - length :]
            self._is_match = True
        return len(self._tail)

    def reaches(self, length: int) -> bool:
        """Return whether `length` is reached; looked up only where it can be."""
        return len(self._tail) >= length and self.length >= length

    def exceeds(self, piece: str) -> bool:
        """Return whether adding `piece` would make a copied span longer than `limit`.

        Spans that were written before do not count.
        """
        return self._index.has_copy(self._tail + piece, self._limit)

    def matches(self) -> tuple[str, Iterator[tuple[int, int]]]:
        """Return how the corpus goes on where the end of the text stands.

        Returns:
            The characters that follow all that is kept of the text, where that is `limit`
            characters; and every place that ends like less of it, best first, as
            `PassageIndex.match` tells a place.
        """
        pattern = self._tail[::-1]
        if len(pattern) < self._limit:
            slot = self._index.slot(pattern)
            return "", self._index.matches(pattern, range(slot, slot))
        whole = self._index.whole_matches(pattern)
        return self._index.continuations(whole), self._index.matches(pattern, whole)


def _sort_suffixes(text: str) -> NDArray[np.int32]:
    """Return where the suffixes of `text` begin, in their order; a prefix comes first.

    Prefix doubling: once all are sorted by their first `width` characters, the rank of
    the suffix `width` further on sorts them by twice as many. Only those that are not
    alone in their rank yet are sorted again.

    Source: Manber and Myers 1990, "Suffix arrays: a new method for on-line string
    searches"; Larsson and Sadakane 2007, "Faster suffix sorting".
    """
    keys, width = _first_keys(text)
    size = len(keys)
    order, ranks = np.arange(size, dtype=np.int32), np.zeros(size + 1, np.int32)
    slots = order.copy()
    while len(slots):
        by_key = np.argsort(keys)
        keys, members = keys[by_key], order[slots][by_key]
        order[slots] = members
        begins = np.append(True, keys[1:] != keys[:-1])
        # A rank is the first slot of the group, plus 1: 0 stays for the end of the text.
        ranks[members] = slots[begins][np.cumsum(begins) - 1] + 1
        tied = ~(begins & np.append(begins[1:], True))
        slots, members = slots[tied], members[tied]
        after = ranks[np.minimum(members.astype(np.int64) + width, size)]
        keys = ranks[members].astype(np.int64) * (size + 1) + after
        width *= 2
    return order


def _first_keys(text: str) -> tuple[NDArray[np.int64], int]:
    """Return the first characters of each suffix packed into one number, and how many."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    alphabet, ranks = np.unique(codes, return_inverse=True)
    keys, width, bits = ranks.astype(np.int64) + 1, 1, len(alphabet).bit_length()
    while 2 * bits <= _KEY_BITS and width < len(keys):
        after = np.append(keys[width:], np.zeros(width, np.int64))
        keys = (keys << bits) | after
        width, bits = 2 * width, 2 * bits
    return keys, width


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _digest(order: NDArray[np.int32], owner: str) -> str:
    return hashlib.sha256(f"{owner} {tensors_sha256({'order': order})}".encode()).hexdigest()


def _damaged(reason: str) -> RunError:
    return RunError(f"{PASSAGES_FILE} is damaged: {reason}. Remove the file: it is built again.")

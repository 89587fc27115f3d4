"""Character n-gram models: a baseline that every trained network must beat.

`python -m benchmarks.ngram [SOURCE]` counts the first 90 % of the characters and predicts the
rest, at orders 3 to 7 and with two smoothings. The order includes the predicted character: order
5 sees the 4 characters before it.
"""

import time
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from benchmarks.arguments import add_corpus, benchmark_parser
from benchmarks.report import Measurement, report
from textgen.arrays import Float64Array, Int64Array
from textgen.corpora import split_text
from textgen.errors import ConfigError, CorpusError

Smoothing = Literal["witten-bell", "kneser-ney"]

SMOOTHINGS: tuple[Smoothing, ...] = get_args(Smoothing)


@dataclass(frozen=True)
class _Grams:
    """The distinct n-grams of one length `k` in the training text.

    The id of an n-gram is its index in `codes`; the id `len(codes)` means "not seen".

    Attributes:
        codes: `[grams]` int64, sorted: id of the first `k - 1` characters, times the size of the
            alphabet, plus the last character. Ids are dense, so codes do not overflow.
        first: `[grams]` int64, index of the first occurrence in `ids`.
        ids: `[characters - k + 1]` int64, id of the n-gram that starts at each character.
        counts: `[grams]` int64, number of occurrences.
    """

    codes: Int64Array
    first: Int64Array
    ids: Int64Array
    counts: Int64Array


@dataclass(frozen=True)
class _Level:
    """The interpolation of one order: `direct[gram] + backoff[context] * shorter_prob`.

    Attributes:
        codes: `[grams]` int64, as in `_Grams`.
        direct: `[grams + 1]` float64; 0 for an n-gram that was not seen.
        backoff: `[contexts + 1]` float64; 1 for a context that was not seen.
    """

    codes: Int64Array
    direct: Float64Array
    backoff: Float64Array


@dataclass(frozen=True)
class NgramModel:
    """An interpolated character n-gram model.

    Attributes:
        alphabet: The characters of the training text, sorted. The unknown symbol, last in
            `probs`, represents all others.
        levels: One per order, from 1 up.
    """

    alphabet: str
    levels: tuple[_Level, ...]

    @classmethod
    def fit(cls, text: str, order: int, smoothing: Smoothing) -> "NgramModel":
        """Count the n-grams of a text.

        Args:
            text: The training text.
            order: Length of the longest n-grams in characters, at least 1.
            smoothing: How much probability mass each context leaves to the next shorter one.

        Returns:
            The model.

        Raises:
            ConfigError: `order` is below 1, or `smoothing` is unknown.
            CorpusError: `text` is empty.

        With Witten-Bell, a context seen `N` times with `T` distinct followers leaves
        `T / (N + T)` of its mass to the shorter context. Modified Kneser-Ney subtracts a
        discount from each count, one each for the counts 1, 2, and 3 or more, and counts a
        shorter n-gram once for every distinct character that precedes it. Both end in the
        uniform distribution over the alphabet and the unknown symbol.

        Source: Chen & Goodman 1998, "An Empirical Study of Smoothing Techniques for Language
        Modeling".
        """
        if order < 1:
            raise ConfigError(f"`order` must be at least 1. Received: {order}.")
        if smoothing not in SMOOTHINGS:
            names = ", ".join(SMOOTHINGS)
            raise ConfigError(f"`smoothing` must be one of {names}. Received: {smoothing!r}.")
        if not text:
            raise CorpusError(
                "The training text must have at least one character. Received: an empty text."
            )
        alphabet = "".join(sorted(set(text)))
        grams = _count(_encode(text, alphabet), len(alphabet) + 1, order)
        level = _witten_bell if smoothing == "witten-bell" else _kneser_ney
        return cls(alphabet, tuple(level(grams, k, len(alphabet) + 1) for k in range(order)))

    def probs(self, context: str) -> Float64Array:
        """Return the probability of every next character.

        Args:
            context: The preceding characters; only the last `order - 1` have an effect.

        Returns:
            `[len(alphabet) + 1]` float64, sums to 1; the last is the unknown symbol's.
        """
        before = _encode(context[-len(self.levels) :], self.alphabet)
        symbols = range(len(self.alphabet) + 1)
        return np.array([self._each(np.append(before, symbol))[-1] for symbol in symbols])

    def nats(self, text: str, context: str = "") -> Float64Array:
        """Return the negative log-probability of every character of a text.

        Args:
            text: The characters to predict.
            context: The characters before `text`, which are not predicted.

        Returns:
            `[len(text)]` float64, nats.
        """
        return -np.log(self._each(_encode(context + text, self.alphabet))[len(context) :])

    def _each(self, symbols: Int64Array) -> Float64Array:
        """Return `[len(symbols)]`, the probability of each symbol given those before it."""
        size = len(self.alphabet) + 1
        probs = np.full(len(symbols), 1 / size)
        contexts = np.zeros(len(symbols), np.int64)
        for level in self.levels:
            grams = _find(level.codes, contexts * size + symbols)
            probs = level.direct[grams] + level.backoff[contexts] * probs
            unseen = len(level.codes)
            contexts = np.concatenate(([unseen], grams[:-1]))
        return probs


def ngram_nats_per_char(
    training_text: str, validation_text: str, order: int, smoothing: Smoothing
) -> float:
    """Return the cross-entropy of a text under a character n-gram model.

    The context of the first characters of the validation text is the end of the training text,
    because the two are consecutive parts of one corpus. A character that does not occur in the
    training text has the probability of the unknown symbol.

    Args:
        training_text: The text to count.
        validation_text: The text to predict.
        order: Length of the longest n-grams: the predicted character and `order - 1` before it.
        smoothing: `witten-bell` or `kneser-ney`, both interpolated.

    Returns:
        Mean nats per character.

    Raises:
        ConfigError: `order` is below 1, or `smoothing` is unknown.
        CorpusError: One of the texts is empty.
    """
    if not validation_text:
        raise CorpusError(
            "The validation text must have at least one character. Received: an empty text."
        )
    model = NgramModel.fit(training_text, order, smoothing)
    return float(model.nats(validation_text, training_text[-order:]).mean())


def _encode(text: str, alphabet: str) -> Int64Array:
    """Return `[len(text)]` int64, indices in the sorted `alphabet`; its length if not in it."""
    known, points = (
        np.frombuffer(part.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
        for part in (alphabet, text)
    )
    return _find(known, points)


def _find(codes: Int64Array, wanted: Int64Array) -> Int64Array:
    """Return the index of each of `wanted` in the sorted `codes`; `len(codes)` if absent."""
    if not len(codes):
        return np.zeros(len(wanted), np.int64)
    indices = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[indices] == wanted, indices, len(codes))


def _count(symbols: Int64Array, size: int, order: int) -> list[_Grams]:
    """Return the n-grams of each length up to `order`; `size` is the number of symbols."""
    grams = []
    contexts = np.zeros(len(symbols), np.int64)
    for k in range(order):
        codes, first, ids, counts = np.unique(
            contexts * size + symbols[k:],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        grams.append(_Grams(codes, first, ids, counts))
        contexts = ids[:-1]
    return grams


def _witten_bell(grams: list[_Grams], k: int, size: int) -> _Level:
    kept = grams[k].counts.astype(np.float64)
    return _interpolation(grams, k, size, kept, passed=np.ones(len(kept)))


def _kneser_ney(grams: list[_Grams], k: int, size: int) -> _Level:
    counts = grams[k].counts
    if k + 1 < len(grams):
        longer = grams[k + 1]
        counts = np.bincount(grams[k].ids[longer.first + 1], minlength=len(counts))
    passed = _discounts(counts)[np.minimum(counts, 3)]
    return _interpolation(grams, k, size, kept=counts - passed, passed=passed)


def _discounts(counts: Int64Array) -> Float64Array:
    """Return `[4]` float64: the discounts of a count of 0, 1, 2, and 3 or more.

    They are estimated from the numbers of n-grams with a count of 1, 2, 3 and 4, and are at
    least 0.1: with a discount of 0, an unseen character would have probability 0.
    """
    once, twice, thrice, often = (np.sum(counts == c) for c in (1, 2, 3, 4))
    scale = once / max(once + 2 * twice, 1)
    n = np.maximum([once, twice, thrice], 1)
    estimate = np.array([1, 2, 3]) - scale * np.array([2, 3, 4]) * [twice, thrice, often] / n
    return np.concatenate(([0.0], np.clip(estimate, 0.1, [1, 2, 3])))


def _interpolation(
    grams: list[_Grams], k: int, size: int, kept: Float64Array, passed: Float64Array
) -> _Level:
    """Divide the counts that n-grams keep and pass on by the total of their context.

    Args:
        grams: As `_count` returns them.
        k: Length of the n-grams, less one.
        size: Number of symbols.
        kept: `[grams]` float64, the counts after discounting.
        passed: `[grams]` float64, the mass that each n-gram leaves to the shorter context.
    """
    codes = grams[k].codes
    contexts = codes // size
    seen = len(grams[k - 1].codes) if k else 1
    total = np.bincount(contexts, kept + passed, seen)
    backoff = np.divide(np.bincount(contexts, passed, seen), total, np.ones(seen), where=total > 0)
    direct = np.divide(kept, total[contexts], np.zeros(len(codes)), where=total[contexts] > 0)
    return _Level(codes, np.append(direct, 0.0), np.append(backoff, 1.0))


def main() -> None:
    """Count, predict and print."""
    parser = benchmark_parser(__doc__)
    add_corpus(parser)
    arguments = parser.parse_args()
    training_text, validation_text = split_text(arguments.corpus.text, 0.1)
    measurements = []
    for order in (5,) if arguments.quick else range(3, 8):
        for smoothing in SMOOTHINGS:
            started = time.perf_counter()
            nats = ngram_nats_per_char(training_text, validation_text, order, smoothing)
            seconds = time.perf_counter() - started
            measurements += [
                Measurement(f"order {order}", smoothing, nats, "nats per character"),
                Measurement(f"order {order}, time", smoothing, seconds, "s"),
            ]
    report(measurements, arguments.json)


if __name__ == "__main__":
    main()

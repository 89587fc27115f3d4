"""How far does counting get? Character n-gram models, the floor under every trained network.

`python -m benchmarks.ngram FILE`: the first 90 % of the characters are counted, the rest is
predicted, at orders 3 to 7 and with two smoothings. `order` counts the predicted character:
order 5 looks at the 4 characters before it.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.report import Measurement, parse_flags, report
from textgen.errors import ConfigError, CorpusError

Smoothing = Literal["witten-bell", "kneser-ney"]

_SMOOTHINGS: tuple[Smoothing, ...] = ("witten-bell", "kneser-ney")


@dataclass(frozen=True)
class _Grams:
    """The distinct n-grams of one length `k` in the training text.

    An n-gram's id is its place in `codes`; the one id past the end stands for "never seen".

    Attributes:
        codes: `[grams]` int64, sorted: id of the first `k - 1` characters, times the alphabet's
            size, plus the last character. Ids are dense, so that no alphabet overflows.
        first: `[grams]` int64, where each occurs first in `ids`.
        ids: `[characters - k + 1]` int64, the n-gram that begins at each character.
        counts: `[grams]` int64, how often each occurs.
    """

    codes: np.ndarray
    first: np.ndarray
    ids: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class _Level:
    """One order's share of a probability: `direct[gram] + backoff[context] * shorter`.

    Attributes:
        codes: `[grams]` int64, as in `_Grams`.
        direct: `[grams + 1]` float64; 0 for the n-gram never seen.
        backoff: `[contexts + 1]` float64; 1 for the context never seen.
    """

    codes: np.ndarray
    direct: np.ndarray
    backoff: np.ndarray


@dataclass(frozen=True)
class NgramModel:
    """An interpolated character n-gram model.

    Attributes:
        alphabet: The characters of the training text, sorted. One more symbol, last in
            `probs`, stands for all others.
        levels: From order 1 upwards.
    """

    alphabet: str
    levels: tuple[_Level, ...]

    @classmethod
    def fit(cls, text: str, order: int, smoothing: Smoothing) -> "NgramModel":
        """Count the n-grams of a text.

        Args:
            text: What to learn from.
            order: The longest n-gram's length in characters, at least 1.
            smoothing: How much of each context's mass goes to the next shorter one.

        Returns:
            The model.

        Raises:
            ConfigError: `order` is below 1, or there is no such `smoothing`.
            CorpusError: `text` is empty.

        Witten-Bell gives a context seen `N` times with `T` different followers the weight
        `T / (N + T)` to pass down. Kneser-Ney takes a discount off every count, one for the
        counts 1, 2, and 3 and more, and counts a shorter n-gram once for every character that
        it follows. Both end in the uniform distribution over alphabet and unseen symbol.

        Source: Chen & Goodman 1998, "An Empirical Study of Smoothing Techniques for Language
        Modeling".
        """
        if order < 1:
            raise ConfigError(f"`order` must be at least 1. Received: {order}.")
        if smoothing not in _SMOOTHINGS:
            names = ", ".join(_SMOOTHINGS)
            raise ConfigError(f"`smoothing` must be one of {names}. Received: {smoothing!r}.")
        if not text:
            raise CorpusError("The training text must hold a character. Received: an empty text.")
        alphabet = "".join(sorted(set(text)))
        grams = _count(_encode(text, alphabet), len(alphabet) + 1, order)
        level = _witten_bell if smoothing == "witten-bell" else _kneser_ney
        return cls(alphabet, tuple(level(grams, k, len(alphabet) + 1) for k in range(order)))

    def probs(self, context: str) -> np.ndarray:
        """Return the probability of every next character.

        Args:
            context: The characters before; those beyond the order are not looked at.

        Returns:
            `[len(alphabet) + 1]` float64, sums to 1; the last is the unseen symbol's.
        """
        before = _encode(context[-len(self.levels) :], self.alphabet)
        symbols = range(len(self.alphabet) + 1)
        return np.array([self._each(np.append(before, symbol))[-1] for symbol in symbols])

    def nats(self, text: str, context: str = "") -> np.ndarray:
        """Return the cost of every character of a text.

        Args:
            text: What to predict.
            context: What comes before it, at no cost.

        Returns:
            `[len(text)]` float64, nats.
        """
        return -np.log(self._each(_encode(context + text, self.alphabet))[len(context) :])

    def _each(self, symbols: np.ndarray) -> np.ndarray:
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
    train_text: str, validation_text: str, order: int, smoothing: Smoothing
) -> float:
    """Return what a character n-gram model pays for a text, every character of it.

    The first characters of the validation text are predicted from the training text's last
    ones, as in a corpus of which both are parts. A character that the training text lacks
    costs what the one symbol costs that stands for all such.

    Args:
        train_text: What to learn from.
        validation_text: What to predict.
        order: The longest n-gram's length: the character predicted and `order - 1` before it.
        smoothing: `witten-bell` or `kneser-ney`, both interpolated.

    Returns:
        Mean nats per character.

    Raises:
        ConfigError: `order` is below 1, or there is no such `smoothing`.
        CorpusError: One of the texts is empty.
    """
    if not validation_text:
        raise CorpusError("The validation text must hold a character. Received: an empty text.")
    model = NgramModel.fit(train_text, order, smoothing)
    return float(model.nats(validation_text, train_text[-order:]).mean())


def _encode(text: str, alphabet: str) -> np.ndarray:
    """Return `[len(text)]` int64, places in the sorted `alphabet`; its length if not in it."""
    known, points = (
        np.frombuffer(part.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
        for part in (alphabet, text)
    )
    return _find(known, points)


def _find(codes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each of `wanted` is in the sorted `codes`; `len(codes)` if it is not."""
    if not len(codes):
        return np.zeros(len(wanted), np.int64)
    places = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[places] == wanted, places, len(codes))


def _count(symbols: np.ndarray, size: int, order: int) -> list[_Grams]:
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
    kept = grams[k].counts.astype(float)
    return _share(grams, k, size, kept, passed=np.ones(len(kept)))


def _kneser_ney(grams: list[_Grams], k: int, size: int) -> _Level:
    counts = grams[k].counts
    if k + 1 < len(grams):
        longer = grams[k + 1]
        counts = np.bincount(grams[k].ids[longer.first + 1], minlength=len(counts))
    passed = _discounts(counts)[np.minimum(counts, 3)]
    return _share(grams, k, size, kept=counts - passed, passed=passed)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Return `[4]` float64: what to take off a count of 0, 1, 2, and 3 or more.

    They are estimated from how many n-grams have a count of 1, 2, 3 and 4, and held to at
    least 0.1: where nothing is passed down, an unseen character has probability 0.
    """
    once, twice, thrice, often = (np.sum(counts == c) for c in (1, 2, 3, 4))
    scale = once / max(once + 2 * twice, 1)
    n = np.maximum([once, twice, thrice], 1)
    estimate = np.array([1, 2, 3]) - scale * np.array([2, 3, 4]) * [twice, thrice, often] / n
    return np.concatenate(([0.0], np.clip(estimate, 0.1, [1, 2, 3])))


def _share(grams: list[_Grams], k: int, size: int, kept: np.ndarray, passed: np.ndarray) -> _Level:
    """Divide what each n-gram keeps, and what its context passes down, by the context's total."""
    codes = grams[k].codes
    contexts = codes // size
    seen = len(grams[k - 1].codes) if k else 1
    total = np.bincount(contexts, kept + passed, seen)
    backoff = np.divide(np.bincount(contexts, passed, seen), total, np.ones(seen), where=total > 0)
    direct = np.divide(kept, total[contexts], np.zeros(len(codes)), where=total[contexts] > 0)
    return _Level(codes, np.append(direct, 0.0), np.append(backoff, 1.0))


def main() -> None:
    """Count, predict and print."""
    flags = parse_flags(__doc__, ("file", "a text in UTF-8"))
    text = Path(flags.file).read_text("utf-8")
    border = int(0.9 * len(text))
    measurements = []
    for order in (5,) if flags.quick else range(3, 8):
        for smoothing in _SMOOTHINGS:
            begun = time.perf_counter()
            nats = ngram_nats_per_char(text[:border], text[border:], order, smoothing)
            seconds = time.perf_counter() - begun
            measurements += [
                Measurement(f"order {order}", smoothing, nats, "nats per character"),
                Measurement(f"order {order}, time", smoothing, seconds, "s"),
            ]
    report(measurements, flags.json)


if __name__ == "__main__":
    main()

"""Repetition in text generated at `--temperature auto`, compared with held-out text.

`python -m benchmarks.temperature [RUN]`, where RUN is a trained run directory; without it, the
preset `demo` is trained first. The held-out text and texts generated at temperature auto, 1 and
0.7 are cut to the same length. The figures are the shares of distinct words, word pairs and
triples, and of repeated 10-character spans. The distance is the mean absolute difference of the
logarithms of these shares from those of the held-out text.
"""

import argparse
import math
import tempfile
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import textgen
from benchmarks.arguments import benchmark_parser
from benchmarks.report import Measurement, report
from textgen import Bundle, Request, SamplingConfig

_NUM_CHARACTERS = 3000
# Dropped from the start of each generated text, which follows an empty prompt.
_SKIPPED_CHARACTERS = 200
_SPAN = 10
# A text without repetition counts as this share, because the logarithm of 0 is undefined.
_MIN_SHARE = 1e-4


def main() -> None:
    """Generate, count and print."""
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "run", nargs="?", type=trained_run, metavar="RUN", help="trained run directory"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.run or _train_demo(Path(folder) / "run", quick=arguments.quick)
        report(_measure(model, num_texts=16 if arguments.quick else 64), arguments.json)


def trained_run(path: str) -> Bundle:
    """Return the model of a run directory; an argparse type.

    Raises:
        ArgumentTypeError: The run cannot be loaded.
    """
    try:
        return textgen.load(path)
    except textgen.TextgenError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _train_demo(path: Path, *, quick: bool) -> Bundle:
    config = textgen.get_preset("demo")
    if quick:
        config = replace(config, training=replace(config.training, max_minutes=0.5))
    return textgen.load(textgen.train(config, path).path)


def _measure(model: Bundle, num_texts: int) -> list[Measurement]:
    expected = repetition(_held_out(model, num_texts))
    measurements = [Measurement(n, "held-out text", v, "share") for n, v in expected.items()]
    for label, temperature in (("auto", model.temperature), ("1", 1.0), ("0.7", 0.7)):
        subject = f"textgen temperature={label}"
        found = repetition(_generate(model, temperature, num_texts))
        measurements += [Measurement(n, subject, v, "share") for n, v in found.items()]
        distances = [abs(math.log(found[name] / expected[name])) for name in expected]
        distance = sum(distances) / len(distances)
        measurements.append(Measurement("distance from held-out text", subject, distance, "nats"))
        measurements.append(Measurement("temperature", subject, temperature, ""))
    return measurements


def _held_out(model: Bundle, num_texts: int) -> list[str]:
    """Return texts spread over the validation split."""
    text = model.tokenizer.decode(model.run.read_corpus().validation)
    num_texts = max(1, min(num_texts, len(text) // _NUM_CHARACTERS))
    distance = len(text) // num_texts
    return [text[i * distance : i * distance + _NUM_CHARACTERS] for i in range(num_texts)]


def _generate(model: Bundle, temperature: float, num_texts: int) -> list[str]:
    end = _SKIPPED_CHARACTERS + _NUM_CHARACTERS
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=end)
    requests = [Request(sampling=sampling, sample_index=index) for index in range(num_texts)]
    return [text.text[_SKIPPED_CHARACTERS:end] for text in model.generate_batch(requests)]


def repetition(texts: Sequence[str]) -> dict[str, float]:
    """Return shares of distinct and of repeated parts, averaged over the texts."""
    shares: dict[str, float] = {}
    for n in (1, 2, 3):
        rates = [_distinct_share(_ngrams(text.split(), n)) for text in texts]
        shares[f"distinct word {n}-grams"] = sum(rates) / len(rates)
    rates = [1 - _distinct_share(_ngrams(text, _SPAN)) for text in texts]
    shares[f"repeated spans of {_SPAN} characters"] = max(_MIN_SHARE, sum(rates) / len(rates))
    return shares


def _ngrams(items: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]


def _distinct_share(items: Sequence[Hashable]) -> float:
    return len(set(items)) / max(1, len(items))


if __name__ == "__main__":
    main()

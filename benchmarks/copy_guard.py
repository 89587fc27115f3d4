"""The longest verbatim copies of an overfit model, with and without `max_copy`, and its speed.

A model is trained on Python's documentation with one passage repeated until it is memorized. Then
it continues the start of the passage at temperature 0, and generates 100 texts at temperature
0.8, without and with `max_copy=30`. The longest span that a text shares with the training text is
reported.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import textgen
from benchmarks.arguments import benchmark_parser
from benchmarks.report import Measurement, report
from textgen import GeneratedText, Request, SamplingConfig
from textgen.corpora import read_corpus
from textgen.generation import longest_copies

_MAX_COPY = 30
_NUM_CHARACTERS = 400
_NUM_CHARACTERS_ONE_STREAM = 4_000


def main() -> None:
    """Train, generate and print."""
    arguments = benchmark_parser(__doc__).parse_args()
    text = read_corpus(textgen.CorpusConfig())[:200_000]
    passage = text[5_000:5_600]
    parts = [text[i : i + 2_000] for i in range(0, len(text), 2_000)]
    config = textgen.RunConfig(
        model=textgen.ModelConfig(hidden_size=256, dropout=0.0),
        training=textgen.TrainingConfig(
            max_minutes=0.5 if arguments.quick else 1.5, batch_size=32, learning_rate=4e-3
        ),
    )
    num_samples = 20 if arguments.quick else 100
    with tempfile.TemporaryDirectory() as folder:
        run = textgen.train(config, Path(folder) / "run", text=passage.join(parts))
        model = textgen.load(run.path, engine="numpy")
        report(_measure(model, passage[:100], num_samples), arguments.json)


def _measure(model: textgen.Bundle, prompt: str, num_samples: int) -> list[Measurement]:
    measurements = []
    for subject, max_copy in (("textgen", None), (f"textgen max_copy={_MAX_COPY}", _MAX_COPY)):
        sampling = SamplingConfig(max_new_tokens=_NUM_CHARACTERS, max_copy=max_copy)
        greedy = replace(sampling, temperature=0)
        continued = model.generate_batch([Request(prompt=prompt, sampling=greedy)])
        requests = [
            Request(prompt=prompt if index % 2 else "", sampling=sampling, sample_index=index)
            for index in range(num_samples)
        ]
        model.generate_batch(requests[:1])
        texts, rate = _timed(model, requests)
        one_stream = replace(sampling, max_new_tokens=_NUM_CHARACTERS_ONE_STREAM)
        _, rate_one_stream = _timed(model, [Request(sampling=one_stream)])
        for case, value, unit in (
            ("longest copy at temperature 0", _longest_copy(model, continued), "characters"),
            (f"longest copy in {num_samples} texts", _longest_copy(model, texts), "characters"),
            (f"{num_samples} streams", rate, "tokens/s"),
            ("1 stream", rate_one_stream, "tokens/s"),
        ):
            measurements.append(Measurement(case, subject, value, unit))
    return measurements


def _timed(model: textgen.Bundle, requests: Sequence[Request]) -> tuple[list[GeneratedText], float]:
    """Return the texts, and tokens per second."""
    started = time.perf_counter()
    texts = model.generate_batch(requests)
    seconds = time.perf_counter() - started
    return texts, sum(text.num_tokens for text in texts) / seconds


def _longest_copy(model: textgen.Bundle, texts: Sequence[GeneratedText]) -> int:
    copies = longest_copies(model.passages, [text.text for text in texts])
    return max(copy.length for copy in copies)


if __name__ == "__main__":
    main()

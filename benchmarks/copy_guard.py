"""Does `max_copy` keep a model that has learned a passage by heart from reciting it, at what cost?

A model is trained on Python's own documentation with one passage of it planted again and
again. Then it goes on from the passage's beginning at temperature 0, and writes 100 texts
at temperature 0.8, free and with `max_copy=30`; the longest span that each shares with the
training text is measured on the whole text.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import textgen
from benchmarks.report import Measurement, parse_flags, report
from textgen.corpora import read_corpus
from textgen.generation import Request, longest_copies

_LIMIT = 30
_LENGTH = 400


def main() -> None:
    """Train, write and print."""
    flags = parse_flags(__doc__)
    text = read_corpus(textgen.CorpusConfig())[:200_000]
    passage = text[5_000:5_600]
    parts = [text[i : i + 2_000] for i in range(0, len(text), 2_000)]
    config = textgen.RunConfig(
        model=textgen.ModelConfig(hidden_size=256, dropout=0.0),
        training=textgen.TrainingConfig(
            max_minutes=0.5 if flags.quick else 1.5, batch_size=32, learning_rate=4e-3
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = textgen.train(config, Path(folder) / "run", text=passage.join(parts))
        model = textgen.load(run.path, engine="numpy")
        report(_measure(model, passage[:100], samples=20 if flags.quick else 100), flags.json)


def _measure(model: textgen.Bundle, prompt: str, samples: int) -> list[Measurement]:
    greedy = textgen.SamplingConfig(temperature=0, max_new_tokens=_LENGTH)
    drawn = textgen.SamplingConfig(max_new_tokens=_LENGTH)
    measurements = []
    for subject, limit in (("free", None), (f"max_copy={_LIMIT}", _LIMIT)):
        recited = [Request(prompt=prompt, sampling=replace(greedy, max_copy=limit))]
        requests = [
            Request(
                prompt=prompt if row % 2 else "", sampling=replace(drawn, max_copy=limit), sample_index=row
            )
            for row in range(samples)
        ]
        model.generate_batch(requests[:1])
        begun = time.perf_counter()
        texts = model.generate_batch(requests)
        rate = samples * _LENGTH / (time.perf_counter() - begun)
        single = [Request(sampling=replace(drawn, max_new_tokens=4_000, max_copy=limit))]
        begun = time.perf_counter()
        model.generate_batch(single)
        one = 4_000 / (time.perf_counter() - begun)
        for case, value, unit in (
            ("longest copy at temperature 0", _longest(model, model.generate_batch(recited)), "characters"),
            (f"longest copy in {samples} texts", _longest(model, texts), "characters"),
            (f"{samples} streams", rate, "tokens/s"),
            ("1 stream", one, "tokens/s"),
        ):
            measurements.append(Measurement(case, subject, value, unit))
    return measurements


def _longest(model: textgen.Bundle, texts) -> int:
    copies = longest_copies(model.passages, [written.text for written in texts])
    return max(copy.length for copy in copies)


if __name__ == "__main__":
    main()

"""Does `--temperature auto` write text whose repetition is that of people's text?

Give a trained run. Held-out text and texts written at temperature auto, 1 and 0.7 are cut to
the same lengths; of each: how many of its words, word pairs and triples are different ones,
and how many stretches of ten characters it had before. Distance: how far off the held-out
text's figures are, in logarithms, averaged.
"""

import math
from pathlib import Path

from benchmarks.report import Measurement, parse_flags, report
from textgen import Bundle, SamplingConfig, load
from textgen.generation import Request

_LENGTH = 3000


def main() -> None:
    """Write, count and print."""
    flags = parse_flags(__doc__, ("run", "a trained run directory"))
    model = load(Path(flags.run))
    count = 16 if flags.quick else 64
    truth = _statistics(_held_out(model, count))
    measurements = [_measurement(name, "held-out text", value) for name, value in truth.items()]
    for label, temperature in (("auto", model.temperature), ("1", 1.0), ("0.7", 0.7)):
        subject = f"textgen at {label}"
        found = _statistics(_written(model, temperature, count))
        measurements += [_measurement(name, subject, value) for name, value in found.items()]
        distance = sum(abs(math.log(found[name] / truth[name])) for name in truth) / len(truth)
        measurements.append(Measurement("distance from held-out text", subject, distance, "nats"))
    measurements.append(Measurement("temperature", "textgen at auto", model.temperature, ""))
    report(measurements, flags.json)


def _held_out(model: Bundle, count: int) -> list[str]:
    text = model.tokenizer.decode(model.run.read_corpus().validation)
    count = max(1, min(count, len(text) // _LENGTH))
    step = len(text) // count
    return [text[i * step : i * step + _LENGTH] for i in range(count)]


def _written(model: Bundle, temperature: float, count: int) -> list[str]:
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=_LENGTH + 200)
    requests = [Request(sampling=sampling, sample_index=row) for row in range(count)]
    return [written.text[200 : 200 + _LENGTH] for written in model.generate_batch(requests)]


def _statistics(texts: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for n in (1, 2, 3):
        rates = [
            _distinct([tuple(w[i : i + n]) for i in range(len(w) - n + 1)])
            for w in map(str.split, texts)
        ]
        found[f"different word {n}-grams"] = sum(rates) / len(rates)
    repeated = [1 - _distinct([t[i : i + 10] for i in range(len(t) - 9)]) for t in texts]
    found["repeated stretches of 10 characters"] = max(1e-4, sum(repeated) / len(repeated))
    return found


def _distinct(items: list) -> float:
    return len(set(items)) / max(1, len(items))


def _measurement(name: str, subject: str, value: float) -> Measurement:
    return Measurement(name, subject, value, "share")


if __name__ == "__main__":
    main()

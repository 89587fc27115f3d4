"""Tokens per second in writing: `textgen` beside the TensorFlow tutorial and a PyTorch loop.

Vocabulary 66, embedding 256, random weights, temperature 0.8, without a filter and with
top-k 40; whole texts through the public functions. All subjects of a size stay in memory
and take turns; figures are medians over the turns, all streams together. The memory limit
is one stream that does nothing but read its float32 kernels.
"""

import statistics

from benchmarks.pacing import Worker
from benchmarks.report import Measurement, parse_flags, report

_SUBJECTS = {
    "textgen": "benchmarks.peers.textgen_write --variant float32",
    "textgen int8": "benchmarks.peers.textgen_write --variant int8",
    "textgen int4": "benchmarks.peers.textgen_write --variant int4",
    "tutorial": "benchmarks.peers.tutorial_write",
    "PyTorch": "benchmarks.peers.torch_write",
    "memory limit": "benchmarks.peers.memory_read",
}
_SIZES = {
    "256": "--hidden-size 256",
    "512": "--hidden-size 512",
    "1024": "--hidden-size 1024",
    "2 x 512": "--hidden-size 512 --num-layers 2",
}
_STREAMS = (1, 8, 64, 512)
_SECONDS_A_TURN = 0.5


def main() -> None:
    """Measure and print."""
    flags = parse_flags(__doc__)
    sizes = {"256": _SIZES["256"]} if flags.quick else _SIZES
    streams = (1, 64) if flags.quick else _STREAMS
    measurements = []
    for name, words in sizes.items():
        measurements += _compare(name, words, streams, turns=3 if flags.quick else 5)
    report(measurements, flags.json)


def _compare(size: str, words: str, streams: tuple[int, ...], turns: int) -> list[Measurement]:
    workers = [Worker.start(name, f"{peer} {words}") for name, peer in _SUBJECTS.items()]
    measurements = []
    for count in streams:
        for top_k in (0, 40):
            case = f"{size}, {count} streams" + (f", top-k {top_k}" if top_k else "")
            taking_part = [w for w in workers if w.name != "memory limit" or count == 1]
            rates = _rates(taking_part, count, top_k, turns)
            measurements += [Measurement(case, n, rate, "tokens/s") for n, rate in rates.items()]
            measurements += _ratios(case, rates)
    for worker in workers:
        worker.stop()
    return measurements


def _rates(workers: list[Worker], streams: int, top_k: int, turns: int) -> dict[str, float]:
    steps = {w.name: _steps(w.run(streams, top_k, 20), w, streams, top_k) for w in workers}
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for _ in range(turns):
        for worker in workers:
            seconds[worker.name].append(worker.run(streams, top_k, steps[worker.name]))
    return {name: streams / statistics.median(values) for name, values in seconds.items()}


def _steps(first: float, worker: Worker, streams: int, top_k: int) -> int:
    """Return the steps of a turn; the first share compiled, so a second one is timed."""
    del first
    return max(20, round(_SECONDS_A_TURN / worker.run(streams, top_k, 20)))


def _ratios(case: str, rates: dict[str, float]) -> list[Measurement]:
    return [
        Measurement(f"{case}, to {peer}", name, rates[name] / rates[peer], "times")
        for peer in ("tutorial", "PyTorch")
        for name in rates
        if name.startswith("textgen")
    ]


if __name__ == "__main__":
    main()

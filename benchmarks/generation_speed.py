"""Tokens per second in generation: textgen, the TensorFlow tutorial and a PyTorch loop.

Vocabulary 66, embedding 256, random weights, temperature 0.8, with and without top-k 40; whole
texts are generated through public functions. All subjects of a size stay in memory and take turns;
figures are medians over the turns, for all streams together. `memory limit` only reads the model's
float32 matrices, once per token of one stream.
"""

import statistics
from collections.abc import Sequence

from benchmarks.arguments import benchmark_parser
from benchmarks.report import Measurement, report
from benchmarks.workers import Worker, installed_subjects
from benchmarks.workload import Sizes

_SUBJECTS = {
    "textgen": "benchmarks.peers.textgen_generate --variant float32",
    "textgen int8": "benchmarks.peers.textgen_generate --variant int8",
    "textgen int4": "benchmarks.peers.textgen_generate --variant int4",
    "tutorial": "benchmarks.peers.tutorial_generate",
    "PyTorch": "benchmarks.peers.torch_generate",
    "memory limit": "benchmarks.peers.memory_read",
}
_PEERS = ("tutorial", "PyTorch")
_SIZES = {
    "256": Sizes(256),
    "512": Sizes(512),
    "1024": Sizes(1024),
    "2 x 512": Sizes(512, num_layers=2),
}
_STREAMS = (1, 8, 64, 512)
_MIN_STEPS = 20
_SECONDS_PER_TURN = 0.5


def main() -> None:
    """Measure and print."""
    arguments = benchmark_parser(__doc__).parse_args()
    subjects = installed_subjects(_SUBJECTS)
    sizes = {"256": _SIZES["256"]} if arguments.quick else _SIZES
    streams = (1, 64) if arguments.quick else _STREAMS
    measurements = []
    for name, size in sizes.items():
        workers = [Worker.start(s, f"{command} {size.flags()}") for s, command in subjects.items()]
        measurements += _compare(name, workers, streams, num_turns=3 if arguments.quick else 5)
        for worker in workers:
            worker.stop()
    report(measurements, arguments.json)


def _compare(
    size: str, workers: Sequence[Worker], streams: Sequence[int], num_turns: int
) -> list[Measurement]:
    measurements = []
    for count in streams:
        for top_k in (0, 40):
            case = f"{size}, {count} stream" + ("s" if count > 1 else "")
            case += f", top-k {top_k}" if top_k else ""
            measured = [w for w in workers if w.name != "memory limit" or count == 1]
            rates = _rates(measured, count, top_k, num_turns)
            measurements += [Measurement(case, n, rate, "tokens/s") for n, rate in rates.items()]
            measurements += _ratios(case, rates)
    return measurements


def _rates(workers: Sequence[Worker], streams: int, top_k: int, num_turns: int) -> dict[str, float]:
    """Return tokens per second by subject."""
    steps = {worker.name: _steps_per_turn(worker, streams, top_k) for worker in workers}
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for _ in range(num_turns):
        for worker in workers:
            seconds[worker.name].append(worker.run(streams, top_k, steps[worker.name]))
    return {name: streams / statistics.median(values) for name, values in seconds.items()}


def _steps_per_turn(worker: Worker, streams: int, top_k: int) -> int:
    """Return the steps that take about `_SECONDS_PER_TURN`, once the worker has compiled."""
    worker.run(streams, top_k, _MIN_STEPS)
    seconds_per_step = worker.run(streams, top_k, _MIN_STEPS)
    return max(_MIN_STEPS, round(_SECONDS_PER_TURN / seconds_per_step))


def _ratios(case: str, rates: dict[str, float]) -> list[Measurement]:
    return [
        Measurement(f"{case}, to {peer}", name, rates[name] / rates[peer], "times")
        for peer in _PEERS
        if peer in rates
        for name in rates
        if name.startswith("textgen")
    ]


if __name__ == "__main__":
    main()

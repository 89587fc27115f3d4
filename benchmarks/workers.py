"""Worker processes that take turns, so that only one of them computes at a time.

A worker runs one subject and stays in memory. The parent writes a line of integers to its stdin
for each turn; the worker answers with a line on stdout: seconds per step and peak memory. Taking
turns, all subjects are affected alike when the machine is slow for a minute.
"""

import importlib.util
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

_ROOT = Path(__file__).resolve().parents[1]
_REPLY = "turn "
_WARMUP_STEPS = 3
_SECONDS_TO_EXIT = 30
_SHOWN_ERRORS = 2_000

# Generates tokens, given the number of streams, top-k or None, and the steps of each stream.
Generate = Callable[[int, int | None, int], object]


class TrainingTurns:
    """A training worker's side: counts steps, and waits for the next turn after the last."""

    def __init__(self) -> None:
        self._steps, self._done = _WARMUP_STEPS, 0
        self._started = time.perf_counter()

    def steps_done(self, steps: int = 1) -> None:
        """Count steps; after the last of a turn, reply and wait for the next turn.

        Raises:
            SystemExit: There is no further turn.
        """
        self._done += steps
        if self._done < self._steps:
            return
        _reply((time.perf_counter() - self._started) / self._done)
        line = sys.stdin.readline()
        if not line.strip():
            raise SystemExit(0)
        self._steps, self._done = int(line), 0
        self._started = time.perf_counter()


def serve_generation(generate: Generate) -> None:
    """Run the side of a generation worker until there is no further turn."""
    _reply(0)
    for line in sys.stdin:
        streams, top_k, steps = map(int, line.split())
        started = time.perf_counter()
        generate(streams, top_k or None, steps)
        _reply((time.perf_counter() - started) / steps)


def _reply(seconds: float) -> None:
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{_REPLY}{seconds} {peak_mib}", flush=True)


@dataclass
class Worker:
    """The parent's side: a worker process that is given turns.

    Attributes:
        name: The subject it measures.
        process: Made by `start`.
        errors: A file that receives its stderr, shown if it fails.
        peak_mib: Its peak resident memory so far.
    """

    name: str
    process: subprocess.Popen[str]
    errors: IO[str]
    peak_mib: float = 0.0

    @classmethod
    def start(cls, name: str, command: str) -> Self:
        """Start `python -m COMMAND` and wait until it has warmed up.

        Raises:
            SystemExit: The process failed; the message has the end of its stderr.
        """
        # A file, because a full pipe would block the worker; `stop` closes it.
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        worker = cls(name, process, errors)
        worker._read_reply()
        return worker

    def run(self, *turn: int) -> float:
        """Give the worker a turn.

        Args:
            turn: Steps, for training; streams, top-k (0: none) and steps, for generation.

        Returns:
            Seconds per step.
        """
        print(*turn, file=self.process.stdin, flush=True)
        return self._read_reply()

    def stop(self) -> None:
        """End the worker, by force if it does not exit."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(_SECONDS_TO_EXIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()

    def _read_reply(self) -> float:
        for line in self.process.stdout or ():
            if line.startswith(_REPLY):
                seconds, peak_mib = line.removeprefix(_REPLY).split()
                self.peak_mib = float(peak_mib)
                return float(seconds)
        status = self.process.wait()
        self.errors.seek(0)
        raise SystemExit(
            f"{self.name} exited with status {status}:\n{self.errors.read()[-_SHOWN_ERRORS:]}"
        )


def installed_subjects(subjects: dict[str, str]) -> dict[str, str]:
    """Return the subjects that can run; print the names of the others to stderr.

    Args:
        subjects: Commands by subject, as `Worker` takes them. Only PyTorch's may be missing.

    Returns:
        All of them if PyTorch is installed, otherwise those that do not need it.
    """
    if importlib.util.find_spec("torch") is not None:
        return subjects
    missing = [name for name, command in subjects.items() if "peers.torch_" in command]
    print(
        f"Skipped {', '.join(missing)}: PyTorch is not installed. "
        "Run `pip install -r requirements-bench.txt` to include it.",
        file=sys.stderr,
    )
    return {name: command for name, command in subjects.items() if name not in missing}

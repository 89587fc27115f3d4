"""Peers that take turns: each trains in a process of its own and waits for its share of steps.

A worker is a module that trains without end and calls `Pacer.step_done` after each step.
It is told over stdin how many steps to do and answers on stdout how long they took, so
that only one worker computes at a time and slow minutes of the machine hit all alike.
"""

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_WARM_UP_STEPS = 3


class Pacer:
    """The worker's side: counts steps, reports their time, and waits for more."""

    def __init__(self):
        self._left = _WARM_UP_STEPS
        self._begun = time.perf_counter()

    def step_done(self) -> None:
        """Count a step; after the last of a share report and wait for the next share.

        Raises:
            SystemExit: There is no next share.
        """
        self._left -= 1
        if self._left:
            return
        seconds = time.perf_counter() - self._begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"share {seconds} {peak}", flush=True)
        share = sys.stdin.readline()
        if not share.strip():
            raise SystemExit(0)
        self._left = int(share)
        self._begun = time.perf_counter()


@dataclass
class Worker:
    """The parent's side of one worker.

    Attributes:
        name: The subject it measures.
        process: The worker.
        peak_mib: Its peak resident memory so far.
    """

    name: str
    process: subprocess.Popen
    peak_mib: float = 0.0

    @classmethod
    def start(cls, name: str, words: str) -> "Worker":
        """Start `python -m WORDS` and wait until it is warm."""
        process = subprocess.Popen(
            [sys.executable, "-m", *words.split()],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        worker = cls(name, process)
        worker._read()
        return worker

    def run(self, steps: int) -> float:
        """Have the worker do `steps` steps; return the seconds they took."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End the worker."""
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def _read(self) -> float:
        for line in self.process.stdout:
            if line.startswith("share "):
                _, seconds, peak = line.split()
                self.peak_mib = float(peak)
                return float(seconds)
        raise SystemExit(f"{self.name} ended with status {self.process.wait()}")

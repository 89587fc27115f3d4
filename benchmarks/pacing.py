"""Peers that take turns: each trains in a process of its own and waits for its share of steps.

A worker is a module that trains without end and calls `Pacer.steps_done` after each step.
It is told over stdin how many steps to do and answers on stdout how long one took, so
that only one worker computes at a time and slow minutes of the machine hit all alike.
"""

import resource
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_WARM_UP_STEPS = 3
_SECONDS_TO_END = 30


class Pacer:
    """The worker's side: counts steps, reports their time, and waits for more."""

    def __init__(self):
        self._share, self._done = _WARM_UP_STEPS, 0
        self._begun = time.perf_counter()

    def steps_done(self, steps: int = 1) -> None:
        """Count steps; after the last of a share report and wait for the next share.

        Raises:
            SystemExit: There is no next share.
        """
        self._done += steps
        if self._done < self._share:
            return
        seconds = (time.perf_counter() - self._begun) / self._done
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"share {seconds} {peak}", flush=True)
        share = sys.stdin.readline()
        if not share.strip():
            raise SystemExit(0)
        self._share, self._done = int(share), 0
        self._begun = time.perf_counter()


@dataclass
class Worker:
    """The parent's side of one worker.

    Attributes:
        name: The subject it measures.
        process: The worker.
        peak_mib: Its peak resident memory so far.
        errors: The last lines it wrote to stderr, shown if it fails.
    """

    name: str
    process: subprocess.Popen
    peak_mib: float = 0.0
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=20))

    @classmethod
    def start(cls, name: str, words: str) -> "Worker":
        """Start `python -m WORDS` and wait until it is warm."""
        process = subprocess.Popen(
            [sys.executable, "-m", *words.split()],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        worker = cls(name, process)
        # read all along, so that a full pipe never stops the worker
        threading.Thread(target=worker._keep_errors, daemon=True).start()
        worker._read()
        return worker

    def run(self, *words: object) -> float:
        """Have the worker do a share: the steps it is to do, for writers also the case.

        Returns:
            Seconds that one step took.
        """
        print(*words, file=self.process.stdin)
        self.process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """Tell the worker that there is no next share, and wait for its end."""
        self.process.stdin.close()
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self) -> float:
        for line in self.process.stdout:
            if line.startswith("share "):
                _, seconds, peak = line.split()
                self.peak_mib = float(peak)
                return float(seconds)
        status = self.process.wait()
        raise SystemExit(f"{self.name} ended with status {status}:\n{''.join(self.errors)}")

    def _keep_errors(self) -> None:
        self.errors.extend(self.process.stderr)

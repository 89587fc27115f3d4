"""Shared helpers of the command-line tests."""

import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--embedding-dim", "8", "--hidden-size", "16", "--batch-size", "8", "--seq-len", "20"]


def wait_for(condition: Callable[[], bool], attempts: int = 1200) -> None:
    """Return once `condition` holds; raise `TimeoutError` after `attempts` looks, 50 ms apart."""
    for _ in range(attempts):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError

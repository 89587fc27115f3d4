"""Engines: token ids and a state in, logits and the next state out.

An engine has never heard of text, and does not decide when to stop.
"""

from textgen.engines.base import Engine, LoopEngine
from textgen.engines.registry import choose_engine, make_engine

__all__ = ["Engine", "LoopEngine", "choose_engine", "make_engine"]

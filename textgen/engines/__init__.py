"""Engines: token ids and a state in, logits and the next state out.

`base` defines their protocols, and `registry` chooses between them. An engine does NOT know text,
or when to stop.
"""

from textgen.engines.base import Engine, LoopEngine
from textgen.engines.quantized import load_or_quantize, quantize_weights
from textgen.engines.registry import EnginePool, choose_engine, make_engine, require_engine

__all__ = [
    "Engine",
    "EnginePool",
    "LoopEngine",
    "choose_engine",
    "load_or_quantize",
    "make_engine",
    "quantize_weights",
    "require_engine",
]

"""Writing text with a trained model. Nothing here imports TensorFlow before it is asked for.

`processors` and `sampling` turn logits into tokens, engines turn tokens into logits,
`drawing` joins them for many rows, and `generator` makes text of it. This package knows
neither files nor the command line.
"""

from textgen.generation.beam import Beam, beam_search
from textgen.generation.calibration import Calibration, calibrate_temperature
from textgen.generation.copy_guard import longest_copies
from textgen.generation.engine import (
    Engine,
    EngineName,
    LoopSettings,
    State,
    WeightsPrecision,
    choose_engine,
    make_engine,
)
from textgen.generation.generator import stream_text, write_texts
from textgen.generation.processors import ProcessorStep, build_processors
from textgen.generation.requests import Request, TokenChoice, Written
from textgen.generation.sampling import pick, pick_greedy, row_uniforms

__all__ = [
    "Beam",
    "Calibration",
    "Engine",
    "EngineName",
    "LoopSettings",
    "ProcessorStep",
    "Request",
    "State",
    "TokenChoice",
    "WeightsPrecision",
    "Written",
    "beam_search",
    "build_processors",
    "calibrate_temperature",
    "choose_engine",
    "longest_copies",
    "make_engine",
    "pick",
    "pick_greedy",
    "row_uniforms",
    "stream_text",
    "write_texts",
]

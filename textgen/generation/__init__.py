"""Generation: prompts in, text out.

`token_loop` samples tokens for many rows side by side, `generator` makes text of them, and
`restraints` forbids tokens by what has been written. This package knows neither files nor the
command line, and imports no TensorFlow.
"""

from textgen.generation.beam import Beam, beam_search
from textgen.generation.calibration import Calibration, calibrate_temperature
from textgen.generation.generator import generate_texts, stream_text
from textgen.generation.requests import GeneratedText, Request, TokenChoice
from textgen.generation.restraints.copy_guard import longest_copies

__all__ = [
    "Beam",
    "Calibration",
    "GeneratedText",
    "Request",
    "TokenChoice",
    "beam_search",
    "calibrate_temperature",
    "generate_texts",
    "longest_copies",
    "stream_text",
]

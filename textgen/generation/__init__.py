"""Generation: prompts in, text out.

`token_loop` draws tokens for many rows in parallel, `generator` makes texts of them, `beam`
searches for the most probable ones, and `restraints` forbid tokens by what was generated before.
This package knows neither the command line nor, except for receipts, files. It imports no
TensorFlow.
"""

from textgen.generation.beam import Beam, beam_search, require_beam_settings
from textgen.generation.calibration import Calibration, calibrate_temperature
from textgen.generation.generator import generate_texts, stream_text
from textgen.generation.requests import GeneratedText, Request, TokenChoice
from textgen.generation.restraints.copy_guard import longest_copies
from textgen.generation.stopping import StopRule

__all__ = [
    "Beam",
    "Calibration",
    "GeneratedText",
    "Request",
    "StopRule",
    "TokenChoice",
    "beam_search",
    "calibrate_temperature",
    "generate_texts",
    "longest_copies",
    "require_beam_settings",
    "stream_text",
]

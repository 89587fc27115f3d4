"""Writing text with a trained model. Nothing here imports TensorFlow before it is asked for.

`processors` and `sampling` turn logits into tokens, engines turn tokens into logits,
and `generator` joins them. This package knows neither files nor the command line.
"""

from textgen.generation.engine import Engine, EngineName, State, make_engine
from textgen.generation.generator import generate, generate_tokens, stream
from textgen.generation.processors import (
    ProcessorStep,
    ban_tokens,
    build_processors,
    keep_top_k,
    keep_top_p,
    scale_by_temperature,
)
from textgen.generation.sampling import pick, pick_greedy, row_uniforms, step_uniforms

__all__ = [
    "Engine",
    "EngineName",
    "ProcessorStep",
    "State",
    "ban_tokens",
    "build_processors",
    "generate",
    "generate_tokens",
    "keep_top_k",
    "keep_top_p",
    "make_engine",
    "pick",
    "pick_greedy",
    "row_uniforms",
    "scale_by_temperature",
    "step_uniforms",
    "stream",
]

"""Train a language model on your own text, and generate text with it.

    import textgen

    run = textgen.train(textgen.get_preset("demo"), "runs/first")
    model = textgen.load(run.path)
    print(model.generate("The "))

Importing this package is fast: TensorFlow is imported on first access to a name that needs it
(`train`, `resume`), and never for loading, generating and scoring on a CPU.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from textgen.version import __version__ as __version__

if TYPE_CHECKING:
    from textgen.bundle import Bundle, load
    from textgen.config import (
        CorpusConfig,
        ModelConfig,
        RunConfig,
        SamplingConfig,
        TokenizerConfig,
        TrainingConfig,
    )
    from textgen.errors import TextgenError
    from textgen.generation import GeneratedText, Request
    from textgen.metrics import TextScore
    from textgen.presets import get_preset
    from textgen.runs import RunDirectory
    from textgen.training import resume, train

# A keras.json that names another backend must not decide for this package.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

_MODULE_OF = {
    "Bundle": "textgen.bundle",
    "CorpusConfig": "textgen.config",
    "GeneratedText": "textgen.generation",
    "ModelConfig": "textgen.config",
    "Request": "textgen.generation",
    "RunConfig": "textgen.config",
    "RunDirectory": "textgen.runs",
    "SamplingConfig": "textgen.config",
    "TextScore": "textgen.metrics",
    "TextgenError": "textgen.errors",
    "TokenizerConfig": "textgen.config",
    "TrainingConfig": "textgen.config",
    "get_preset": "textgen.presets",
    "load": "textgen.bundle",
    "resume": "textgen.training",
    "train": "textgen.training",
}

__all__ = [
    "Bundle",
    "CorpusConfig",
    "GeneratedText",
    "ModelConfig",
    "Request",
    "RunConfig",
    "RunDirectory",
    "SamplingConfig",
    "TextScore",
    "TextgenError",
    "TokenizerConfig",
    "TrainingConfig",
    "get_preset",
    "load",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first access."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _MODULE_OF[name] == "textgen.training":
        importlib.import_module("textgen.startup").import_tensorflow_quietly()
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Every setting of textgen: its default, its help text and its check, in one place.

A `RunConfig` is all that a training run is made from; it is stored in the run
directory, so that generating needs no architecture flag. `SamplingConfig` stands
apart because it belongs to a request and not to a model. Command-line flags are
derived from these classes; the string under a field is its help text.

`None` means "off". A value out of range raises `ConfigError` when the object is made.
"""

from textgen.config.checks import from_values
from textgen.config.evaluation import DynamicConfig, ScoringProtocol, Split
from textgen.config.run import (
    Cell,
    CorpusConfig,
    GruKernel,
    ModelConfig,
    Precision,
    RunConfig,
    Schedule,
    TokenizerConfig,
    TrainingConfig,
    UnknownPolicy,
)
from textgen.config.sampling import SamplingConfig

__all__ = [
    "Cell",
    "CorpusConfig",
    "DynamicConfig",
    "GruKernel",
    "ModelConfig",
    "Precision",
    "RunConfig",
    "SamplingConfig",
    "Schedule",
    "ScoringProtocol",
    "Split",
    "TokenizerConfig",
    "TrainingConfig",
    "UnknownPolicy",
    "from_values",
]

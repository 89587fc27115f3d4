"""Every setting of textgen: its default, its help text and its limits, in one place.

A `RunConfig` contains all settings of a training run. It is stored in the run directory, so
generating needs no flag for the architecture. `SamplingConfig` is separate because it belongs to
a request, not to a model. Flags, checks, messages and documentation tables are derived from these
classes: the string under a field is its help text, and the metadata of its type are its limits.

`None` means "off", or "chosen automatically" where the help text says so. A value of the wrong
type or out of range raises `ConfigError` when the object is created.
"""

from textgen.config.checks import (
    check_argument,
    check_setting,
    check_settings,
    choices_of,
    convert,
    describe_setting,
    from_values,
    suggestion,
)
from textgen.config.evaluation import DynamicConfig, Passes, ScoringProtocol, Split
from textgen.config.inference import (
    EngineName,
    LengthPenalty,
    NumAlternatives,
    NumBeams,
    NumSamples,
    QuantizedFormat,
    WeightsFormat,
)
from textgen.config.limits import require
from textgen.config.run import (
    Cell,
    CorpusConfig,
    Kernel,
    MatmulDtype,
    ModelConfig,
    PresetName,
    ResolvedDtype,
    ResolvedKernel,
    RunConfig,
    Schedule,
    SubwordAlgorithm,
    TokenizerConfig,
    TrainingConfig,
    UnknownPolicy,
)
from textgen.config.sampling import STOP_SETTINGS, SamplingConfig, parse_bias

__all__ = [
    "STOP_SETTINGS",
    "Cell",
    "CorpusConfig",
    "DynamicConfig",
    "EngineName",
    "Kernel",
    "LengthPenalty",
    "MatmulDtype",
    "ModelConfig",
    "NumAlternatives",
    "NumBeams",
    "NumSamples",
    "Passes",
    "PresetName",
    "QuantizedFormat",
    "ResolvedDtype",
    "ResolvedKernel",
    "RunConfig",
    "SamplingConfig",
    "Schedule",
    "ScoringProtocol",
    "Split",
    "SubwordAlgorithm",
    "TokenizerConfig",
    "TrainingConfig",
    "UnknownPolicy",
    "WeightsFormat",
    "check_argument",
    "check_setting",
    "check_settings",
    "choices_of",
    "convert",
    "describe_setting",
    "from_values",
    "parse_bias",
    "require",
    "suggestion",
]

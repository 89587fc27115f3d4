"""The exceptions of textgen.

```
TextgenError
├── ConfigError        a setting is out of range, unknown, or contradicts another
├── CorpusError        a text cannot be read, or is unsuitable for training
├── TokenizerError     text and vocabulary do not match
├── RunError           a run directory is missing, incomplete, damaged or not a run
├── TrainingError      training cannot continue
├── DeviceError        the hardware or an installed library lacks what was requested
└── DependencyError    an optional package is not installed, or is too old
```

A message says what was expected, what was received, and what to do about it. The command line
prints it as one line on stderr and exits with code 2.
"""

# Characters of a received value that a message shows.
MAX_SHOWN = 60


class TextgenError(Exception):
    """Base class of all exceptions of textgen."""


class ConfigError(TextgenError):
    """A setting is out of range, unknown, or contradicts another."""


class CorpusError(TextgenError):
    """A text cannot be read, or is unsuitable for training."""


class TokenizerError(TextgenError):
    """Text and vocabulary do not match."""


class RunError(TextgenError):
    """A run directory is missing, incomplete, damaged or not a run."""


class TrainingError(TextgenError):
    """Training cannot continue."""


class DeviceError(TextgenError):
    """The hardware or an installed library lacks what was requested."""


class DependencyError(TextgenError):
    """An optional package is not installed, or is too old."""


def describe_value(value: object) -> str:
    """Return the beginning of a value and its type in one line, for a message."""
    words = " ".join(repr(value).split())
    shown = words if len(words) <= MAX_SHOWN else words[: MAX_SHOWN - 1] + "…"
    return shown if isinstance(value, str) else f"{shown} ({type(value).__name__})"

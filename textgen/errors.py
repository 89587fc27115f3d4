"""Every error that textgen raises on purpose.

```
TextgenError
├── ConfigError        a setting is out of range, unknown, or contradicts another
├── CorpusError        a text cannot be read, or is unfit to train on
├── TokenizerError     text and vocabulary do not fit together
├── RunError           a run directory is missing, incomplete, damaged or foreign
├── TrainingError      training cannot go on
└── DeviceError        the hardware or an installed library lacks what was asked for
```

A message says what is wrong, the limit, what was received, and the way out. The
command line prints it as one line on stderr and exits with code 2.
"""


class TextgenError(Exception):
    """Base class of every error that textgen raises on purpose."""


class ConfigError(TextgenError):
    """A setting is out of range, unknown, or contradicts another."""


class CorpusError(TextgenError):
    """A text cannot be read, or is unfit to train on."""


class TokenizerError(TextgenError):
    """Text and vocabulary do not fit together."""


class RunError(TextgenError):
    """A run directory is missing, incomplete, damaged or foreign."""


class TrainingError(TextgenError):
    """Training cannot go on."""


class DeviceError(TextgenError):
    """The hardware or an installed library lacks what was asked for."""

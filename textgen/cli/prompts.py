"""Where prompts come from: a flag, a file, standard input, or a file of many."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from textgen.config import SamplingConfig, from_values
from textgen.corpora import decode_text
from textgen.errors import ConfigError
from textgen.generation import Request


def one_prompt(prompt: str | None, prompt_file: Path | None, from_stdin: bool) -> str:
    """Return the prompt from the one place that names it.

    Args:
        prompt: From its flag.
        prompt_file: A UTF-8 file that holds it.
        from_stdin: Whether standard input holds it.

    Returns:
        The prompt; empty if no place names one.

    Raises:
        ConfigError: Two places name one, or the file cannot be read.
    """
    if sum([prompt is not None, prompt_file is not None, from_stdin]) > 1:
        raise ConfigError("The prompt is given twice. Pass one of --prompt, --prompt-file and -.")
    if prompt_file is not None:
        return _read(prompt_file, "--prompt-file")
    if from_stdin:
        return decode_text(sys.stdin.buffer.read(), "standard input")
    return prompt or ""


def requests_from(path: Path, sampling: SamplingConfig, num_samples: int) -> list[Request]:
    """Return a request for each line of a file, `num_samples` times.

    Args:
        path: UTF-8 lines, or JSON objects a line where the first begins with a brace: each
            with `prompt`, and any setting of `SamplingConfig` that is to be another one.
            `-` is standard input. Empty lines are left out.
        sampling: The settings of the command line.
        num_samples: Texts for each prompt.

    Returns:
        The requests, in the order of the file.

    Raises:
        ConfigError: The file cannot be read, or a line is not as it should be.
    """
    if path == Path("-"):
        text = decode_text(sys.stdin.buffer.read(), "standard input")
    else:
        text = _read(path, "--prompts")
    lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise ConfigError(f"{path} has no prompt in it. Give one a line.")
    is_json = lines[0][1].lstrip().startswith("{")
    found = [
        _from_json(line, f"{path}, line {i}", sampling)
        if is_json
        else Request(prompt=line.rstrip("\r"), sampling=sampling)
        for i, line in lines
    ]
    return [replace(request, sample_index=row) for request in found for row in range(num_samples)]


def _from_json(line: str, where: str, sampling: SamplingConfig) -> Request:
    try:
        values: dict[str, Any] = dict(json.loads(line))
        prompt = values.pop("prompt")
        if not isinstance(prompt, str):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise ConfigError(
            f'{where}: expected a JSON object with a "prompt". Received: {line[:60]}'
        ) from None
    hints = get_type_hints(SamplingConfig)
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            raise ConfigError(f"{where}: `{name}` cannot be {json.dumps(value)}. See --help.")
    own = {name: getattr(sampling, name) for name in sampling.__dataclass_fields__}
    try:
        return Request(prompt=prompt, sampling=from_values(SamplingConfig, own | values))
    except (ConfigError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value is of the kind that a setting has."""
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    kinds = (hint,) if get_origin(hint) is None else get_args(hint)
    if isinstance(value, bool):
        return bool in kinds
    choices = [choice for kind in kinds for choice in get_args(kind)]
    is_number = isinstance(value, int) and int in kinds
    is_number |= isinstance(value, int | float) and float in kinds
    is_text = isinstance(value, str) and (str in kinds or value in choices)
    return is_number or is_text or (value is None and type(None) in kinds)


def _read(path: Path, flag: str) -> str:
    try:
        return decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(
            f"The prompt file {path} cannot be read: {error.strerror}. Pass {flag}."
        ) from error

"""Prompts from a flag, a file, standard input, or a file of many prompts."""

import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from textgen.config import SamplingConfig, from_values
from textgen.corpora import decode_text
from textgen.errors import ConfigError
from textgen.generation import Request


def one_prompt(prompt: str | None, prompt_file: Path | None, from_stdin: bool) -> str:
    """Return the prompt from its only source.

    Args:
        prompt: The value of its flag.
        prompt_file: A UTF-8 file that contains it.
        from_stdin: Whether to read it from standard input.

    Returns:
        The prompt; empty if there is no source.

    Raises:
        ConfigError: There are two sources, or the file cannot be read.
        CorpusError: The prompt is not UTF-8.
    """
    if sum([prompt is not None, prompt_file is not None, from_stdin]) > 1:
        raise ConfigError("The prompt is given twice. Pass one of --prompt, --prompt-file and -.")
    if prompt_file is not None:
        return _read(prompt_file, "--prompt-file")
    if from_stdin:
        return decode_text(sys.stdin.buffer.read(), "standard input")
    return prompt or ""


def requests_from(path: Path, sampling: SamplingConfig, num_samples: int) -> list[Request]:
    """Return `num_samples` requests for each line of a file.

    Args:
        path: UTF-8 file with one prompt per line; or, if its first line starts with a brace, one
            JSON object per line with `prompt` and any settings of `SamplingConfig`. `-` is
            standard input. Empty lines are skipped.
        sampling: The settings from the command line, for those that a line does not have.
        num_samples: Number of texts per prompt.

    Returns:
        The requests, in the order of the file.

    Raises:
        ConfigError: The file cannot be read or has no prompt, or a line is invalid.
        CorpusError: The file is not UTF-8.
    """
    if path == Path("-"):
        text = decode_text(sys.stdin.buffer.read(), "standard input")
    else:
        text = _read(path, "--prompts")
    lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise ConfigError(f"{path} contains no prompt. Write one per line.")
    is_json = lines[0][1].lstrip().startswith("{")
    found = [
        _from_json(line, f"{path}, line {i}", sampling)
        if is_json
        else Request(prompt=line.rstrip("\r"), sampling=sampling)
        for i, line in lines
    ]
    return [
        replace(request, sample_index=index) for request in found for index in range(num_samples)
    ]


def _from_json(line: str, where: str, sampling: SamplingConfig) -> Request:
    try:
        values: dict[str, Any] = dict(json.loads(line))
        prompt = values.pop("prompt")
        if not isinstance(prompt, str):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(
            f'{where}: expected a JSON object with a "prompt". Received: {line[:60]}'
        ) from None
    own = {field.name: getattr(sampling, field.name) for field in fields(sampling)}
    try:
        return Request(prompt=prompt, sampling=from_values(SamplingConfig, own | values))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _read(path: Path, flag: str) -> str:
    try:
        return decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(
            f"{flag} must be a file that can be read ({error.strerror}). Received: {path}."
        ) from error

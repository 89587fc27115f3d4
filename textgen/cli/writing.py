"""Printing of generated texts: plain, as JSON lines, or colored by surprise."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict

from textgen.corpora.passages import Passage
from textgen.generation import GeneratedText, Request, TokenChoice

_RESET = "\x1b[0m"
# Background colors from a terminal's palette of 256, for 0, 1, 2, ... bits.
_COLORS = (None, 194, 193, 229, 222, 216, 210, 203)


def print_texts(
    requests: Sequence[Request], texts: Sequence[GeneratedText], *, colored: bool
) -> None:
    """Print each prompt with its text, numbered if there are several."""
    for number, (request, generated) in enumerate(zip(requests, texts, strict=True)):
        if len(texts) > 1:
            print(f"{'' if number == 0 else chr(10)}--- {number + 1} ---")
        text = _colored(generated.choices) if colored and generated.choices else generated.text
        print(request.prompt + text)
    if colored:
        print(_legend(), file=sys.stderr)


def print_json_lines(
    requests: Sequence[Request], texts: Sequence[GeneratedText], copies: Sequence[Passage] | None
) -> None:
    """Print one JSON object per text."""
    for number, (request, generated) in enumerate(zip(requests, texts, strict=True)):
        values = {
            "prompt": request.prompt,
            "sample_index": request.sample_index,
            **asdict(generated),
        }
        if generated.choices is None:
            del values["choices"]
        if copies is not None:
            values["longest_copy"] = asdict(copies[number])
        print(json.dumps(values, ensure_ascii=False))


def print_copies(texts: Sequence[GeneratedText], copies: Sequence[Passage]) -> None:
    """Print to stderr each text's longest verbatim span and its place in the training text."""
    for number, (generated, copy) in enumerate(zip(texts, copies, strict=True), start=1):
        which = f"text {number}: " if len(texts) > 1 else ""
        span = generated.text[copy.begin : copy.begin + copy.length]
        print(
            f"{which}longest copy: {copy.length} characters, at character {copy.position:,} "
            f"of the training text: {json.dumps(span, ensure_ascii=False)}",
            file=sys.stderr,
        )


def _colored(choices: Sequence[TokenChoice]) -> str:
    return "".join(_color(choice.text, -choice.log_prob / math.log(2)) for choice in choices)


def _color(text: str, bits: float) -> str:
    color = _COLORS[min(int(bits), len(_COLORS) - 1)]
    if color is None or not text.strip():
        return text
    return f"\x1b[48;5;{color};38;5;16m{text}{_RESET}"


def _legend() -> str:
    """Return a line that shows what the colors mean."""
    samples = "".join(_color(f" {bits}+ ", bits) for bits in range(1, len(_COLORS)))
    return f"bits per token: below 1 plain,{samples}"

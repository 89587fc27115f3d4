"""What is printed of written texts: as text, as JSON lines, coloured by surprise."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict

from textgen.corpora.passages import Passage
from textgen.generation import GeneratedText, Request, TokenChoice

_RESET = "\x1b[0m"
# background colours of the terminal's 256: from what the model expected to what it did not
_COLOURS = (None, 194, 193, 229, 222, 216, 210, 203)


def print_texts(
    requests: Sequence[Request], texts: Sequence[GeneratedText], *, coloured: bool
) -> None:
    """Print prompt and text of each; a line with its number in between where there are several."""
    for number, (request, written) in enumerate(zip(requests, texts, strict=True)):
        if len(texts) > 1:
            print(f"{'' if number == 0 else chr(10)}--- {number + 1} ---")
        text = _coloured(written.choices) if coloured and written.choices else written.text
        print(request.prompt + text)
    if coloured:
        print(_legend(), file=sys.stderr)


def print_json_lines(
    requests: Sequence[Request], texts: Sequence[GeneratedText], copies: Sequence[Passage] | None
) -> None:
    """Print one JSON object for each text."""
    for number, (request, written) in enumerate(zip(requests, texts, strict=True)):
        values = {"prompt": request.prompt, "sample_index": request.sample_index, **asdict(written)}
        if written.choices is None:
            del values["choices"]
        if copies is not None:
            values["longest_copy"] = asdict(copies[number])
        print(json.dumps(values, ensure_ascii=False))


def print_copies(texts: Sequence[GeneratedText], copies: Sequence[Passage]) -> None:
    """Say on stderr what the longest verbatim span of each text is, and where it stands."""
    for number, (written, copy) in enumerate(zip(texts, copies, strict=True), start=1):
        which = f"text {number}: " if len(texts) > 1 else ""
        span = written.text[copy.begin : copy.begin + copy.length]
        print(
            f"{which}longest copy: {copy.length} characters, at character {copy.position:,} "
            f"of the training text: {json.dumps(span, ensure_ascii=False)}",
            file=sys.stderr,
        )


def _coloured(choices: Sequence[TokenChoice]) -> str:
    return "".join(_colour(choice.text, -choice.log_prob / math.log(2)) for choice in choices)


def _colour(text: str, bits: float) -> str:
    colour = _COLOURS[min(int(bits), len(_COLOURS) - 1)]
    if colour is None or not text.strip():
        return text
    return f"\x1b[48;5;{colour};38;5;16m{text}{_RESET}"


def _legend() -> str:
    """Return a line that shows what the colours mean."""
    samples = "".join(_colour(f" {bits}+ ", bits) for bits in range(1, len(_COLOURS)))
    return f"bits a token: below 1 plain,{samples}"

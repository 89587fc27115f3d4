"""Printing of generated texts: numbering, JSON lines, copies and colors."""

import json
import math

import pytest

from textgen.cli.writing import print_copies, print_json_lines, print_texts
from textgen.corpora.passages import PassageIndex
from textgen.generation import GeneratedText, Request, TokenChoice


def generated(text, *bits):
    """A text whose characters have these bits, if any."""
    choices = tuple(
        TokenChoice(
            token_id=0,
            text=character,
            log_prob=-value * math.log(2),
            rank=1,
            entropy=0.0,
            alternatives=(),
        )
        for character, value in zip(text, bits, strict=False)
    )
    return GeneratedText(
        text=text, num_tokens=len(text), finish_reason="length", choices=choices or None
    )


def test_several_texts_are_numbered_and_one_is_not(capfd):
    requests = [Request(prompt="a"), Request(prompt="b", sample_index=1)]
    print_texts(requests, [generated("x"), generated("y")], colored=False)
    assert capfd.readouterr().out == "--- 1 ---\nax\n\n--- 2 ---\nby\n"
    print_texts(requests[:1], [generated("x")], colored=False)
    assert capfd.readouterr().out == "ax\n"


def test_json_lines_keep_every_character(capfd):
    text = "é\n漢\U0001f600\x1b"
    print_json_lines([Request(prompt="p", sample_index=3)], [generated(text)], None)
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line) == {
        "prompt": "p",
        "sample_index": 3,
        "text": text,
        "num_tokens": 5,
        "finish_reason": "length",
    }


@pytest.mark.parametrize(
    "bits, color", [(0.5, None), (1.5, 194), (3.0, 229), (7.9, 203), (40.0, 203)]
)
def test_colors_follow_the_bits(capfd, bits, color):
    print_texts([Request()], [generated("x", bits)], colored=True)
    out, err = capfd.readouterr()
    assert out == ("x\n" if color is None else f"\x1b[48;5;{color};38;5;16mx\x1b[0m\n")
    assert "bits per token" in err


def test_the_longest_copy_is_reported_with_its_place(capfd):
    index = PassageIndex.build("the old mill turned")
    text = generated("an old mill fell")
    print_copies([text], [index.longest_match(text.text)])
    assert '10 characters, at character 3 of the training text: " old mill "' in (
        capfd.readouterr().err
    )

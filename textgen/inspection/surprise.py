"""A text coloured by how much it surprised the model.

It knows pieces of text and their bits, and nothing of how they were computed.
"""

import html
from collections.abc import Iterable

_MOST_BITS = 8.0


def surprise_html(pieces: Iterable[tuple[str, float]]) -> str:
    """Return a text as HTML, the background of each piece the redder the more bits it cost.

    Args:
        pieces: Texts with their cost in bits, as `Bundle.surprise` gives them.

    Returns:
        One `<pre>` element. White is 0 bits, full red 8 bits and more; the exact figure
        shows under the mouse.
    """
    spans = "".join(_span(text, bits) for text, bits in pieces)
    return (
        '<pre style="white-space: pre-wrap; color: black; background: white; padding: 0.5em">'
        f"{spans}</pre>"
    )


def _span(text: str, bits: float) -> str:
    # a line break has no background of its own: a sign in front of it carries the colour
    shown = html.escape(text).replace("\n", "↵\n")
    strength = min(max(bits / _MOST_BITS, 0.0), 1.0)
    return (
        f'<span title="{bits:.2f} bits" style="background: rgba(220, 38, 38, {strength:.2f})">'
        f"{shown}</span>"
    )

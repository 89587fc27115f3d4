"""A text as HTML, colored by how much it surprises a model.

This module knows pieces of text and their bits. It does NOT know how the bits are computed.
"""

import html
from collections.abc import Iterable

# Bits from which a piece is fully red.
_MAX_BITS = 8.0


def surprise_html(pieces: Iterable[tuple[str, float]]) -> str:
    """Return a text as HTML, with a background that is redder the more bits a piece has.

    Args:
        pieces: Texts and their bits, as `Bundle.surprise` returns them.

    Returns:
        One `<pre>` element. White is 0 bits, full red 8 bits or more; the exact number is the
        tooltip of each piece.
    """
    spans = "".join(_span(text, bits) for text, bits in pieces)
    return (
        '<pre style="white-space: pre-wrap; color: black; background: white; padding: 0.5em">'
        f"{spans}</pre>"
    )


def _span(text: str, bits: float) -> str:
    # A line break has no background, so a visible arrow gets the color.
    shown = html.escape(text).replace("\n", "↵\n")
    strength = min(max(bits / _MAX_BITS, 0.0), 1.0)
    return (
        f'<span title="{bits:.2f} bits" style="background: rgba(220, 38, 38, {strength:.2f})">'
        f"{shown}</span>"
    )

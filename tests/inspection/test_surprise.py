"""A text coloured by surprise, as a browser would read it."""

import re
from html.parser import HTMLParser

from textgen.inspection import surprise_html


class _Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.text = ""

    def handle_data(self, data):
        self.text += data


def test_the_text_survives_with_its_markup_escaped():
    parser = _Text()
    parser.feed(surprise_html([("a<b", 1.0), ("& \n", 2.0), ("漢🐸", 3.0)]))
    assert parser.text.replace("↵", "") == "a<b& \n漢🐸"


def test_more_bits_are_redder_up_to_full_red():
    page = surprise_html([("a", 0.0), ("b", 4.0), ("c", 8.0), ("d", 99.0)])
    assert re.findall(r"38, ([\d.]+)\)", page) == ["0.00", "0.50", "1.00", "1.00"]
    assert "99.00 bits" in page

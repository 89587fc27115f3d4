"""A text colored by surprise, as a browser reads it."""

import re
from html.parser import HTMLParser

from textgen.inspection import surprise_html


class TextParser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.text = ""

    def handle_data(self, data):
        self.text += data


def test_markup_in_the_text_is_escaped():
    parser = TextParser()
    parser.feed(surprise_html([("a<b", 1.0), ("& \n", 2.0), ("漢🐸", 3.0)]))
    assert parser.text.replace("↵", "") == "a<b& \n漢🐸"


def test_color_is_proportional_to_bits_up_to_full_red():
    page = surprise_html([("a", 0.0), ("b", 4.0), ("c", 8.0), ("d", 99.0)])
    assert re.findall(r"38, ([\d.]+)\)", page) == ["0.00", "0.50", "1.00", "1.00"]
    assert "99.00 bits" in page

"""The drawn tree of exceptions, and values as messages show them."""

import inspect
import re

import numpy as np

from textgen import errors
from textgen.errors import describe_value

DRAWN = re.compile(r"^[├└]── (\w+) +(.+)$", re.MULTILINE)


def defined_errors():
    classes = vars(errors).values()
    return {cls.__name__: cls for cls in classes if inspect.isclass(cls)}


def test_the_drawn_tree_has_every_error_with_its_description():
    drawn = {name: f"{text[0].upper()}{text[1:]}." for name, text in DRAWN.findall(errors.__doc__)}
    found = defined_errors()
    found.pop("TextgenError")
    assert drawn == {name: cls.__doc__ for name, cls in found.items()}


def test_every_error_is_a_direct_child_of_the_base_class():
    for name, cls in defined_errors().items():
        expected = Exception if name == "TextgenError" else errors.TextgenError
        assert cls.__bases__ == (expected,)


def test_a_value_is_described_in_one_short_line():
    assert describe_value(5) == "5 (int)"
    assert describe_value("a\nb") == "'a\\nb'"
    described = describe_value({"a\nb": "c" * 1000})
    assert described.startswith("{'a\\nb': 'ccc") and described.endswith("… (dict)")
    assert len(described) < 80
    assert "\n" not in describe_value(np.zeros((3, 3)))

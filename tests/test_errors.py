"""The drawn tree of exceptions is the tree of the classes."""

import inspect
import re

from textgen import errors

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

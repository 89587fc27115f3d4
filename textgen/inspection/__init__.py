"""Views of a model for notebooks: the surprise of a text, as HTML."""

from textgen.inspection.surprise import surprise_html

__all__ = ["surprise_html"]

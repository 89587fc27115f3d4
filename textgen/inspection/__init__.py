"""Looking inside a model. What is measured elsewhere becomes something to look at here."""

from textgen.inspection.surprise import surprise_html

__all__ = ["surprise_html"]

"""What a text costs a model. This package knows neither files nor the command line."""

from textgen.evaluation.scoring import score_text, score_tokens, surprise

__all__ = ["score_text", "score_tokens", "surprise"]

"""What a text costs a model. This package knows neither files nor the command line."""

from textgen.evaluation.dynamic import adapt, dynamic_score
from textgen.evaluation.scoring import (
    EncodedText,
    encode_text,
    join_scores,
    score_carried,
    score_windows,
    surprise,
)

__all__ = [
    "EncodedText",
    "adapt",
    "dynamic_score",
    "encode_text",
    "join_scores",
    "score_carried",
    "score_windows",
    "surprise",
]

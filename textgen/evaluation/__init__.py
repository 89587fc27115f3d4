"""What a text costs a model. This package knows neither files nor the command line."""

from textgen.evaluation.dynamic import adapt, dynamic_score
from textgen.evaluation.scoring import (
    EncodedText,
    OnProgress,
    encode_text,
    join_scores,
    score_carried,
    score_windows,
    surprise,
    unwatched,
)

__all__ = [
    "EncodedText",
    "OnProgress",
    "adapt",
    "dynamic_score",
    "encode_text",
    "join_scores",
    "score_carried",
    "score_windows",
    "surprise",
    "unwatched",
]

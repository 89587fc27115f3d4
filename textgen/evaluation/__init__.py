"""Scoring: the cross-entropy of a text under a model; dynamic evaluation; adaptation.

This package does NOT know files or the command line.
"""

from textgen.evaluation.dynamic import adapt, dynamic_score
from textgen.evaluation.scoring import (
    EncodedText,
    OnProgress,
    encode_text,
    join_scores,
    score_carried,
    score_windows,
    surprise,
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
]

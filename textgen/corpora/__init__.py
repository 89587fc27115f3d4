"""Texts to windows of token ids. This package does NOT know models or logits.

`sources` reads texts, `split` holds out the end for validation, `store` stores the token ids,
`lanes` plans what each training step reads, and `windows` arranges a text for scoring. TensorFlow
and TFDS are imported only by the functions that build a `tf.data.Dataset` or read a TFDS source.
"""

from textgen.corpora.lanes import LanePlan, plan_lanes, training_dataset
from textgen.corpora.sources import decode_text, read_corpus
from textgen.corpora.split import split_text
from textgen.corpora.store import CORPUS_FILE, TokenizedCorpus, tokenize_corpus
from textgen.corpora.windows import ScoringWindows, scoring_dataset, scoring_windows

__all__ = [
    "CORPUS_FILE",
    "LanePlan",
    "ScoringWindows",
    "TokenizedCorpus",
    "decode_text",
    "plan_lanes",
    "read_corpus",
    "scoring_dataset",
    "scoring_windows",
    "split_text",
    "tokenize_corpus",
    "training_dataset",
]

"""From texts to windows of token ids. This package knows nothing of models and logits.

`sources` reads texts, `split` holds some back for validation, `store` keeps the
token ids, and `windows` says which of them each step reads. TensorFlow is imported
only when a `tf.data.Dataset` or a TFDS source is asked for.
"""

from textgen.corpora.sources import decode_text, read_corpus
from textgen.corpora.split import split_text
from textgen.corpora.store import CORPUS_FILE, TokenizedCorpus, tokenize_corpus
from textgen.corpora.windows import (
    LanePlan,
    ScoringWindows,
    plan_lanes,
    scoring_dataset,
    scoring_windows,
    training_dataset,
)

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

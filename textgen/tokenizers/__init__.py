"""Text to token ids and back. This package knows nothing of logits, models or files of text.

Two tokenizers share one protocol: `char`, one token a character, and `subword`,
SentencePiece pieces with byte fallback, lossless for any text.
"""

from textgen.tokenizers.base import TextDecoder, Tokenizer
from textgen.tokenizers.registry import build_tokenizer, load_tokenizer

__all__ = ["TextDecoder", "Tokenizer", "build_tokenizer", "load_tokenizer"]

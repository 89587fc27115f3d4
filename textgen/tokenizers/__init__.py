"""Text to token ids and back. This package does NOT know logits, models or text files.

Two tokenizers implement one protocol: `char`, one token per character, and `subword`,
SentencePiece pieces with byte fallback, which are lossless for every text.
"""

from textgen.tokenizers.base import TextDecoder, Tokenizer
from textgen.tokenizers.registry import build_tokenizer, load_tokenizer

__all__ = ["TextDecoder", "Tokenizer", "build_tokenizer", "load_tokenizer"]

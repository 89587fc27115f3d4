"""The split of a text into training and validation text.

The split counts characters, so it does NOT depend on the tokenizer.
"""

from textgen.config import CorpusConfig, check_setting
from textgen.errors import CorpusError, describe_value


def split_text(text: str, validation_fraction: float) -> tuple[str, str]:
    """Split a text: its beginning is for training, its end for validation.

    Args:
        text: The whole corpus.
        validation_fraction: Fraction that is held out, in (0, 1).

    Returns:
        `(training_text, validation_text)`; joined, they are `text`.

    Raises:
        CorpusError: `text` is not a string, or one of the parts would be empty.
        ConfigError: `validation_fraction` is not in (0, 1).

    Source: the split of nanoGPT, `data/shakespeare_char/prepare.py`; its fraction of 0.1 splits
    tinyshakespeare into 1,003,854 and 111,540 characters.
    """
    if not isinstance(text, str):
        raise CorpusError(f"`text` must be a string. Received: {describe_value(text)}.")
    check_setting(CorpusConfig, "validation_fraction", validation_fraction)
    boundary = int(len(text) * (1 - validation_fraction))
    if not 0 < boundary < len(text):
        raise CorpusError(
            "Both parts of the split must have at least one character. "
            f"Received: {boundary:,} for training and {len(text) - boundary:,} for validation. "
            "Provide a longer corpus, or change `validation_fraction`."
        )
    return text[:boundary], text[boundary:]

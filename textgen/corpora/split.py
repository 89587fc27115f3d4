"""Which part of a text is trained on, and which is held out.

It knows characters only: the same text is split alike for every tokenizer.
"""

from textgen.errors import CorpusError


def split_text(text: str, validation_fraction: float) -> tuple[str, str]:
    """Return the first part of `text` for training and its end for validation.

    Args:
        text: The whole corpus.
        validation_fraction: Share held out, above 0 and below 1.

    Returns:
        `(training_text, validation_text)`; joined, they are `text`.

    Raises:
        CorpusError: One of the two would be empty.

    Source: the split of nanoGPT, `data/shakespeare_char/prepare.py`; its 0.1 of
    tinyshakespeare gives 1,003,854 and 111,540 characters.
    """
    boundary = int(len(text) * (1 - validation_fraction))
    if not 0 < boundary < len(text):
        raise CorpusError(
            "Both parts of the split must have at least one character. "
            f"Received: {len(text)} characters in all, {boundary} of them to train on. "
            "Give a longer corpus, or pass another --validation-fraction."
        )
    return text[:boundary], text[boundary:]

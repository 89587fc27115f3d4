"""Decoding of single tokens from the few tokens before them, instead of a decoder per text.

Whoever considers several next tokens, or keeps several texts, stores only the tokens of an
unfinished character.
"""

from textgen.tokenizers.base import TextDecoder

# A character has at most four bytes, so at most three tokens can wait for its last.
MAX_PENDING = 3

# Tokens that end in an unfinished character, oldest first.
PendingIds = tuple[int, ...]


def decode_next(decoder: TextDecoder, pending: PendingIds, token_id: int) -> tuple[str, str]:
    """Decode a token after the tokens of an unfinished character.

    Args:
        decoder: A decoder at the beginning of a text; left there.
        pending: Tokens that wait for the rest of a character.
        token_id: The next token.

    Returns:
        The characters that the token completes, and those that an end of the text after it would
        add: U+FFFD for a character that is still unfinished, otherwise nothing.
    """
    for earlier in pending:
        decoder.feed(earlier)
    return decoder.feed(token_id), decoder.flush()


def next_pending(pending: PendingIds, token_id: int, unfinished: str) -> PendingIds:
    """Return the pending tokens after a token that has bytes.

    Args:
        pending: Those before it.
        token_id: The token.
        unfinished: The second result of `decode_next`.
    """
    return (*pending, token_id)[-MAX_PENDING:] if unfinished else ()

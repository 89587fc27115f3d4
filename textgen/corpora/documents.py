"""Documents, one after the other, as the one text that a model is trained on."""

from collections.abc import Iterable


def join_documents(documents: Iterable[str], document_end: str | None = None) -> str:
    """Return the documents joined.

    Args:
        documents: Texts; a newline is added after one that does not end with one, if
            another follows.
        document_end: What each document is followed by, and a newline; None: nothing.

    Returns:
        The text.
    """
    parts: list[str] = []
    for document in documents:
        if parts and parts[-1] and not parts[-1].endswith("\n"):
            parts.append("\n")
        parts.append(document)
        if document_end is not None:
            parts.append(f"{document_end}\n")
    return "".join(parts)

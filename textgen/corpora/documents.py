"""Documents joined into the one text that a model is trained on."""

from collections.abc import Iterable


def join_documents(documents: Iterable[str], document_end: str | None = None) -> str:
    """Join documents into one text.

    Args:
        documents: Texts. A newline is added to each that does not end with one, except to the
            last.
        document_end: Text that is added to each document, followed by a newline; None: nothing.

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

"""Texts from TensorFlow Datasets, downloaded and prepared by its own loader.

The library is imported only when a `tfds:` source is read. It retries a download
for minutes without a word, prints to standard output, and names every data set it
knows when it does not know one; here it fails within seconds, in one line.
"""

import contextlib
import difflib
import io
import logging
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from textgen.corpora.documents import join_documents
from textgen.errors import CorpusError

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

# Waits of 0, 0.4 and 0.8 s: 1.7 s in all without a network, against 204 s with the
# library's own 10; a fourth retry would add 1.6 s.
_MAX_RETRIES = 3

_SPEC = re.compile(r"(?P<name>[^:\[\]]+(?::[\d*]+\.[\d*]+\.[\d*]+)?)(?::(?P<split>.+))?")


def read_tfds(
    spec: str, text_feature: str, data_dir: str | None, document_end: str | None = None
) -> str:
    """Return all texts of one split of a data set, joined by `join_documents`.

    Args:
        spec: `NAME[:SPLIT]`. NAME may carry a configuration and a version
            (`wikipedia/20230601.en:1.0.0`), SPLIT may be sliced (`train[:10%]`);
            without SPLIT it is `train`.
        text_feature: The feature that holds the text.
        data_dir: Folder of prepared data sets; None: the default of TFDS.
        document_end: What each example is followed by; None: nothing.

    Returns:
        The examples in the order in which they are stored.

    Raises:
        CorpusError: TFDS is not installed; the data set, split or feature does not
            exist; or it is neither prepared nor can be downloaded.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise CorpusError(
            f"A TFDS source must read tfds:NAME[:SPLIT]. Received: {'tfds:' + spec!r}. "
            "Pass for example tfds:tiny_shakespeare:train."
        )
    name, split = match["name"], match["split"] or "train"
    with _quiet_and_quick():
        builder = _find_builder(name, data_dir)
        _check_feature(builder, name, text_feature)
        _prepare(builder, name)
        examples = _examples(builder, name, split, text_feature)
        return join_documents(examples, document_end)


def _split_features(builder: "DatasetBuilder") -> tuple[list[str], list[str]]:
    """Return the names of the text features, and of all others, both sorted."""
    features = builder.info.features
    names = sorted(features) if hasattr(features, "keys") else []
    text = [n for n in names if features[n].shape == () and features[n].np_dtype == np.object_]
    return text, [n for n in names if n not in text]


@contextlib.contextmanager
def _quiet_and_quick() -> Iterator[None]:
    """Keep TFDS off standard output, and its retries short; put all back afterwards."""
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import downloader
    except ImportError as error:
        raise CorpusError(
            f"A tfds: source needs the package tensorflow-datasets. Received: {_line(error)}. "
            "Install it with: pip install tensorflow-datasets importlib_resources"
        ) from error
    watched = sys.stderr.isatty()
    if not watched:
        tfds.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3")]
    levels = [logger.level for logger in loggers]
    retries = downloader.MAX_RETRIES
    try:
        downloader.MAX_RETRIES = _MAX_RETRIES
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(sys.stderr if watched else io.StringIO()):
            yield
    finally:
        downloader.MAX_RETRIES = retries
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _find_builder(name: str, data_dir: str | None) -> "DatasetBuilder":
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = set(tfds.list_builders(with_community_datasets=False))
        close = difflib.get_close_matches(re.split("[/:]", name)[0], known)
        hint = f"Did you mean {' or '.join(close)}?" if close else "See tensorflow.org/datasets."
        raise CorpusError(
            f"TFDS must know the data set, or find it prepared. Received: {name!r}. {hint}"
        ) from error
    except Exception as error:  # Bad configurations and versions raise all kinds of errors.
        raise CorpusError(
            f"TFDS cannot open the data set {name!r}: {_line(error)}. "
            "Check its configuration and version at tensorflow.org/datasets."
        ) from error


def _check_feature(builder: "DatasetBuilder", name: str, text_feature: str) -> None:
    text, others = _split_features(builder)
    if text_feature not in text:
        rest = f" (not text: {', '.join(others)})" if others else ""
        raise CorpusError(
            f"The text feature of {name!r} must be one of: {', '.join(text) or 'none'}{rest}. "
            f"Received: {text_feature!r}. Pass --text-feature."
        )


def _prepare(builder: "DatasetBuilder", name: str) -> None:
    try:
        builder.download_and_prepare()
    except Exception as error:  # Each data set has its own way of failing to download.
        raise CorpusError(
            f"The data set {name!r} is not prepared in {builder.data_dir!r} and could not be "
            f"downloaded: {type(error).__name__}: {_line(error)}. Prepare it on a machine that "
            f"has a network (tfds build {name}), copy the folder, and pass --tfds-data-dir."
        ) from error


def _examples(builder: "DatasetBuilder", name: str, split: str, text_feature: str) -> Iterator[str]:
    import tensorflow_datasets as tfds

    # One file after the other: the default takes from 16 in turn.
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    only_text = tfds.decode.PartialDecoding({text_feature: True})
    try:
        examples = builder.as_dataset(split=split, read_config=in_order, decoders=only_text)
    except Exception as error:  # ValueError, KeyError or AssertionError, by what is wrong.
        raise CorpusError(
            f"The split of {name!r} must be one of: {', '.join(sorted(builder.info.splits))}, "
            f"or a slice such as train[:10%]. Received: {split!r}. Name it as tfds:{name}:SPLIT."
        ) from error
    for number, example in enumerate(tfds.as_numpy(examples)):
        yield _text(example[text_feature], f"example {number} of {name!r}")


def _text(value: Any, where: str) -> str:
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"A text must be UTF-8. Received: {where}, whose byte at offset {error.start} is "
            "not. Choose another feature with --text-feature, or another data set."
        ) from error


def _line(error: BaseException) -> str:
    """Return the message of a foreign error as one short line."""
    message = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return message if len(message) <= 160 else message[:157] + " [...]"

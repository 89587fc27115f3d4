"""Texts from TensorFlow Datasets (TFDS), downloaded and prepared by its own loader.

The library is imported only when a `tfds:` source is read. On its own it retries a download
silently for minutes, prints to standard output, and lists every data set if a name is unknown;
here it fails within seconds, with one line.
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
from textgen.startup import import_tensorflow_quietly, require_extra

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

# Waits of 0, 0.4 and 0.8 s: without a network, 1.7 s in total instead of 204 s with the
# library's own 10 retries; a fourth retry would add 1.6 s.
_MAX_RETRIES = 3
_MAX_MESSAGE_LENGTH = 160

_SPEC = re.compile(r"(?P<name>[^:\[\]]+(?::[\d*]+\.[\d*]+\.[\d*]+)?)(?::(?P<split>.+))?")


def read_tfds(
    spec: str, text_feature: str, data_dir: str | None, document_end: str | None = None
) -> str:
    """Return all texts in one split of a data set, joined by `join_documents`.

    Args:
        spec: `NAME[:SPLIT]`. NAME may contain a configuration and a version
            (`wikipedia/20230601.en:1.0.0`), SPLIT may be a slice (`train[:10%]`); the default
            of SPLIT is `train`.
        text_feature: Name of the feature that contains the text.
        data_dir: Folder of prepared data sets; None: the default of TFDS.
        document_end: Text that is added to each example; None: nothing.

    Returns:
        The examples, in the order in which they are stored.

    Raises:
        CorpusError: The data set, split or feature does not exist, or the data set is not
            prepared and cannot be downloaded.
        DependencyError: TFDS or TensorFlow is not installed.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise CorpusError(
            f"A TFDS source must have the form tfds:NAME[:SPLIT]. Received: {'tfds:' + spec!r}. "
            "Pass, for example, tfds:tiny_shakespeare:train."
        )
    name, split = match["name"], match["split"] or "train"
    with _limited_retries(), _redirected_output():
        builder = _find_builder(name, data_dir)
        _check_feature(builder, name, text_feature)
        _prepare(builder, name)
        examples = _examples(builder, name, split, text_feature)
        return join_documents(examples, document_end)


def _split_features(builder: "DatasetBuilder") -> tuple[list[str], list[str]]:
    """Return the names of the text features, and of all other features, both sorted."""
    features = builder.info.features
    names = sorted(features) if hasattr(features, "keys") else []
    text = [n for n in names if features[n].shape == () and features[n].np_dtype == np.object_]
    return text, [n for n in names if n not in text]


@contextlib.contextmanager
def _limited_retries() -> Iterator[None]:
    """Limit the retries of a download."""
    # TFDS imports TensorFlow too, but prints a page of text if it is missing.
    import_tensorflow_quietly()
    downloader: Any = require_extra("tensorflow_datasets.core.download.downloader", "tfds")
    retries = downloader.MAX_RETRIES
    downloader.MAX_RETRIES = _MAX_RETRIES
    try:
        yield
    finally:
        downloader.MAX_RETRIES = retries


@contextlib.contextmanager
def _redirected_output() -> Iterator[None]:
    """Silence the logs of TFDS, keep it off stdout, and show progress only in a terminal."""
    is_terminal = sys.stderr.isatty()
    if not is_terminal:
        require_extra("tensorflow_datasets", "tfds").disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(sys.stderr if is_terminal else io.StringIO()):
            yield
    finally:
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
            "A TFDS source must be in the catalog of TFDS, or prepared in `tfds_data_dir`. "
            f"Received: {name!r}. {hint}"
        ) from error
    except Exception as error:  # Invalid configurations and versions raise errors of any type.
        raise CorpusError(
            f"A TFDS source must be a data set that can be opened. Received: {name!r}: "
            f"{_line(error)}. Check its configuration and version at tensorflow.org/datasets."
        ) from error


def _check_feature(builder: "DatasetBuilder", name: str, text_feature: str) -> None:
    text, others = _split_features(builder)
    if text_feature not in text:
        rest = f" (not text: {', '.join(others)})" if others else ""
        raise CorpusError(
            f"`text_feature` of {name!r} must be one of: {', '.join(text) or 'none'}{rest}. "
            f"Received: {text_feature!r}."
        )


def _prepare(builder: "DatasetBuilder", name: str) -> None:
    try:
        builder.download_and_prepare()
    except Exception as error:  # Data sets raise errors of any type if a download fails.
        raise CorpusError(
            f"The data set must be prepared in {builder.data_dir!r} or be downloadable. "
            f"Received: {name!r}, which could not be downloaded: {type(error).__name__}: "
            f"{_line(error)}. Prepare it on a machine with a network (tfds build {name}), copy "
            "the folder, and set `tfds_data_dir`."
        ) from error


def _examples(builder: "DatasetBuilder", name: str, split: str, text_feature: str) -> Iterator[str]:
    import tensorflow_datasets as tfds

    # In order, one file after another: by default, TFDS interleaves 16 files.
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    only_text = tfds.decode.PartialDecoding({text_feature: True})
    try:
        examples = builder.as_dataset(split=split, read_config=in_order, decoders=only_text)
    except Exception as error:  # ValueError, KeyError or AssertionError, depending on the cause.
        raise CorpusError(
            f"The split of {name!r} must be one of: {', '.join(sorted(builder.info.splits))}, "
            f"or a slice such as train[:10%]. Received: {split!r}. Name it as tfds:{name}:SPLIT."
        ) from error
    for number, example in enumerate(tfds.as_numpy(examples)):
        yield _decode(example[text_feature], f"example {number} of {name!r}")


def _decode(value: Any, name: str) -> str:
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"A text must be UTF-8. Received: {name}, whose byte at offset {error.start} is not. "
            "Set `text_feature` to another feature, or choose another data set."
        ) from error


def _line(error: BaseException) -> str:
    """Return the message of an error of TFDS as one short line."""
    message = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if len(message) <= _MAX_MESSAGE_LENGTH:
        return message
    return message[: _MAX_MESSAGE_LENGTH - 1] + "…"

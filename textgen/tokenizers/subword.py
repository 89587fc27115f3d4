"""Subword tokenizer: SentencePiece with byte fallback, lossless for every text.

SentencePiece represents a space as U+2581 in its pieces, so a U+2581 in the text would be decoded
as a space. Therefore a text is split at every newline and every U+2581: SentencePiece encodes the
segments between them, a newline is a token of its own, and U+2581 is encoded as its three byte
pieces. No piece contains a newline, so chunks that end at newlines have the same ids as the whole
text.

Rare characters have no piece and are encoded as bytes. SentencePiece is imported only by the
functions that use it. This module does NOT know where the text comes from.
"""

import codecs
import io
import logging
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from textgen.arrays import IntArray, TokenIds
from textgen.config import (
    SubwordAlgorithm,
    TokenizerConfig,
    UnknownPolicy,
    check_setting,
    convert,
)
from textgen.errors import DependencyError, TokenizerError
from textgen.startup import require_extra
from textgen.tokenizers.base import (
    HEADER_FILE,
    check_encoding,
    check_text,
    check_token_ids,
    fingerprint_files,
    header_file,
)
from textgen.version import installed_version

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

MODEL_FILE = "spm.model"

# 256 bytes, UNK, the newline and the space.
_RESERVED_PIECES = 259
_MIN_VERSION = (0, 2, 3)
# Before version 0.2.3, the BPE trainer counts the characters of a word in 16 bits.
_MAX_WORD_LENGTH = 65_535

_SPACE_MARK = "\u2581"
_CUT = re.compile(f"([\n{_SPACE_MARK}])")
# The trainer rejects lines with U+2585, which it uses internally: they are also split there.
_TRAINING_CUT = re.compile(f"[\n\u2585{_SPACE_MARK}]")
_SURROGATE = re.compile("[\ud800-\udfff]")

_log = logging.getLogger(__name__)


class SubwordTokenizer:
    """Subwords with byte fallback: every text is encoded, and decoded unchanged.

    Args:
        model: A serialized SentencePiece model, trained by `train_subwords`.
        algorithm: `"bpe"` or `"unigram"`, recorded in `tokenizer.json`.

    Raises:
        TokenizerError: `model` is not a SentencePiece model, or lacks the newline piece, the
            space piece or the byte pieces that make it lossless.
        DependencyError: SentencePiece is not installed.
    """

    kind = "subword"

    def __init__(self, model: bytes, algorithm: str) -> None:
        self._model = model
        self._algorithm = algorithm
        self._processor = _load_processor(model)
        self._bytes = _piece_bytes(self._processor)
        self.vocab_size = len(self._bytes)
        self.banned_ids: tuple[int, ...] = (self._processor.unk_id(),)
        self.start_id = self._piece_id("\n")
        self._piece_id(_SPACE_MARK)
        mark = [self._piece_id(f"<0x{byte:02X}>") for byte in _SPACE_MARK.encode()]
        self._cut_ids = {"\n": [self.start_id], _SPACE_MARK: mark}

    def encode(self, text: str, unknown: UnknownPolicy = "error") -> TokenIds:
        """Return the ids of `text`, as specified by `Tokenizer.encode`.

        Args:
            text: Any text.
            unknown: What to do with a lone surrogate, which has no UTF-8 and is the only
                character that byte pieces cannot encode; `"unk"` replaces it with U+FFFD.

        Returns:
            `[time]`.

        Raises:
            TokenizerError: `text` is not a string, or has a lone surrogate under `"error"`.
            ConfigError: `unknown` is not an `UnknownPolicy`.
        """
        check_encoding(text, unknown)
        parts = _CUT.split(_without_surrogates(text, unknown))
        segments = self._processor.encode(parts[::2], out_type=int)
        cuts = [self._cut_ids[cut] for cut in parts[1::2]]
        in_order = chain.from_iterable(zip(segments, [*cuts, []], strict=True))
        return np.fromiter(chain.from_iterable(in_order), np.int32)

    def decode(self, token_ids: IntArray | Sequence[int]) -> str:
        """Return the text of `token_ids`.

        Args:
            token_ids: `[time]`, any integer dtype.

        Returns:
            The text. UNK becomes U+FFFD, and so do bytes that are not UTF-8, which a model can
            generate but `encode` never returns.

        Raises:
            TokenizerError: `token_ids` are not integers in one axis, or one is outside the
                vocabulary.
        """
        ids = check_token_ids(token_ids, self.vocab_size)
        return b"".join(self._bytes[i] for i in ids.tolist()).decode("utf-8", "replace")

    def decoder(self) -> "SubwordDecoder":
        """Return a new decoder for one stream of tokens."""
        return SubwordDecoder(self._bytes)

    def pieces(self) -> tuple[bytes, ...]:
        """Return the bytes of each id."""
        return self._bytes

    def files(self) -> dict[str, bytes]:
        """Return the files of a `tokenizer/` folder: name to content."""
        header = header_file(self.kind, {"algorithm": self._algorithm})
        return {HEADER_FILE: header, MODEL_FILE: self._model}

    def fingerprint(self) -> str:
        """Return the sha256 of `files()`."""
        return fingerprint_files(self.files())

    def _piece_id(self, piece: str) -> int:
        token_id: int = self._processor.piece_to_id(piece)
        if token_id == self._processor.unk_id():
            raise TokenizerError(
                f"A subword model must have the piece {piece!r}. Received: one without it. "
                "Train the model with textgen: others are not lossless."
            )
        return token_id


class SubwordDecoder:
    """A decoder of one stream of subwords; returns a character once its last byte is known.

    Args:
        piece_bytes: The bytes of each id, in order.
    """

    def __init__(self, piece_bytes: tuple[bytes, ...]) -> None:
        self._piece_bytes = piece_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """Return the characters that `token_id` completes, possibly none."""
        return self._decoder.decode(self._piece_bytes[token_id])

    def flush(self) -> str:
        """Return U+FFFD if the last character is incomplete, else an empty string, and reset."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def train_subwords(text: str, vocab_size: int, algorithm: SubwordAlgorithm) -> SubwordTokenizer:
    """Train a subword tokenizer on a text.

    Args:
        text: The training split only: pieces learned from the validation split would make its
            score too good.
        vocab_size: Maximum number of pieces, including the 256 byte pieces, UNK and the newline;
            a short text yields fewer.
        algorithm: How SentencePiece finds the pieces.

    Returns:
        The tokenizer; equal arguments give equal tokenizers.

    Raises:
        TokenizerError: `text` is not a string, has only empty lines, or is rejected by
            SentencePiece.
        ConfigError: `vocab_size` or `algorithm` is invalid.
        DependencyError: SentencePiece is not installed, or is too old for this text.

    Source: Kudo and Richardson 2018, "SentencePiece: A simple and language independent
    subword tokenizer and detokenizer for Neural Text Processing".
    """
    check_text(text)
    check_setting(TokenizerConfig, "vocab_size", vocab_size)
    convert(algorithm, SubwordAlgorithm, "algorithm")
    segments = [part for part in _TRAINING_CUT.split(_without_surrogates(text, "error")) if part]
    if not segments:
        raise TokenizerError(
            "A text to learn subwords from must have at least one line that is not empty. "
            f"Received: {len(text):,} characters of empty lines. Provide a longer corpus."
        )
    segments = _without_rare_characters(segments, vocab_size)
    _require_safe_trainer(segments, algorithm)
    try:
        model = _run_trainer(segments, vocab_size, algorithm)
    except RuntimeError as error:
        largest = _largest_vocab_size(str(error))
        _log.info(
            "`vocab_size` lowered from %d to %d: the text yields no more pieces",
            vocab_size,
            largest,
        )
        model = _run_trainer(segments, largest, algorithm)
    return SubwordTokenizer(model, algorithm)


def _without_rare_characters(segments: list[str], vocab_size: int) -> list[str]:
    """Split the segments at characters that are too rare for a piece of their own.

    In a text with more distinct characters than pieces, such as Chinese, the most frequent
    characters take half of the pieces, and the other half is left for longer pieces. The trainer
    does not see the rare characters, so they are encoded as bytes.

    Returns:
        The parts between rare characters.
    """
    counts = Counter(chain.from_iterable(segments))
    num_free = vocab_size - _RESERVED_PIECES
    if len(counts) <= num_free:
        return segments
    rare = [character for character, _ in counts.most_common()[max(1, num_free // 2) :]]
    _log.info("%d rare characters are encoded as bytes", len(rare))
    text = "\n".join(segments).translate(dict.fromkeys(map(ord, rare), "\n"))
    return [part for part in text.split("\n") if part]


def _require_safe_trainer(segments: list[str], algorithm: SubwordAlgorithm) -> None:
    """Raise `DependencyError` if the installed trainer would abort the process on this text.

    Before version 0.2.3, the BPE trainer fails a C++ check, which aborts without a Python
    exception, if no segment contains a space, a required character, or if a word is too long.
    """
    version = installed_version("sentencepiece")
    if algorithm != "bpe" or version is None or _version_numbers(version) >= _MIN_VERSION:
        return
    longest = max(len(word) for segment in segments for word in segment.split(" "))
    if longest > _MAX_WORD_LENGTH or not any(" " in segment for segment in segments):
        raise DependencyError(
            "sentencepiece must be at least 0.2.3 for a text without spaces, or with a word of "
            f"more than {_MAX_WORD_LENGTH:,} characters. Received: {version}. Upgrade it with: "
            'pip install "textgen[subword]"'
        )


def _version_numbers(version: str) -> tuple[int, ...]:
    """Return the first three numbers of a version such as "0.2.1.post1"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _run_trainer(segments: list[str], vocab_size: int, algorithm: SubwordAlgorithm) -> bytes:
    """Train with the options that make decoding lossless.

    One thread, so that equal texts give equal models on every machine. The limit on the length
    of a sentence exceeds every segment, because longer ones would be silently ignored. The space
    is a required character: in a text without spaces, such as Chinese poems, it would have no
    piece, and its bytes would be decoded as U+2581.

    Returns:
        The model, serialized.
    """
    trainer = require_extra("sentencepiece", "subword").SentencePieceTrainer
    longest = max(len(segment.encode()) for segment in segments)
    model = io.BytesIO()
    trainer.train(
        sentence_iterator=iter(segments),
        model_writer=model,
        model_type=algorithm,
        vocab_size=vocab_size,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        user_defined_symbols=["\n"],
        required_chars=_SPACE_MARK,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        max_sentence_length=min(max(longest, 4192), 2**30),
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _largest_vocab_size(message: str) -> int:
    """Return the largest size that the text allows, as given in SentencePiece's error."""
    if too_high := re.search(r"too high.*value <= (\d+)", message):
        return int(too_high[1])
    reason = " ".join(message.split())
    raise TokenizerError(
        f"SentencePiece must be able to learn from the text. Received: the error {reason!r}. "
        "Set `tokenizer=char`, or provide another corpus."
    )


def _load_processor(model: bytes) -> "SentencePieceProcessor":
    sentencepiece = require_extra("sentencepiece", "subword")
    processor: SentencePieceProcessor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(model)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TokenizerError(
            f"A subword model must be a serialized SentencePiece model. Received: {len(model):,} "
            f"bytes that are not one ({' '.join(str(error).split())}). Train it with textgen."
        ) from None
    return processor


def _piece_bytes(processor: "SentencePieceProcessor") -> tuple[bytes, ...]:
    """Return the bytes of each id: UTF-8 of its piece, one byte, or U+FFFD for UNK."""
    table = []
    for token_id in range(processor.vocab_size()):
        piece = processor.id_to_piece(token_id)
        if processor.is_unknown(token_id):
            table.append("\ufffd".encode())
        elif processor.is_byte(token_id):
            table.append(bytes([int(piece[1:-1], 16)]))
        else:
            table.append(piece.replace(_SPACE_MARK, " ").encode())
    return tuple(table)


def _without_surrogates(text: str, unknown: UnknownPolicy) -> str:
    found = _SURROGATE.search(text)
    if found is None:
        return text
    if unknown == "error":
        raise TokenizerError(
            f"The text must be valid Unicode. Received: the lone surrogate U+{ord(found[0]):04X} "
            f"at position {found.start()}. Set `unknown=skip`, or convert the text to UTF-8."
        )
    return _SURROGATE.sub("" if unknown == "skip" else "\ufffd", text)

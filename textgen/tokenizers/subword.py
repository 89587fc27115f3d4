"""SentencePiece subwords that give back any text exactly as it was.

SentencePiece writes a space as U+2581 inside its pieces, so a U+2581 of the text
would come back as a space. The text is therefore cut at every newline and every
U+2581: what lies between goes through SentencePiece, a newline is its own token,
and U+2581 is written as its three byte pieces. Because no piece crosses a newline,
encoding in chunks that end at newlines gives the ids of encoding the whole.

It knows nothing of characters that are rare: those become byte pieces.
"""

import codecs
import io
import logging
import re
from collections import Counter
from itertools import chain
from typing import Literal

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from textgen.config import UnknownPolicy
from textgen.errors import TokenizerError
from textgen.tokenizers.base import HEADER_FILE, checked_ids, fingerprint_files, header_file

MODEL_FILE = "spm.model"

# 256 bytes, UNK, the newline, the space
_RESERVED_PIECES = 259

_log = logging.getLogger(__name__)

_SPACE_MARK = "\u2581"
_CUT = re.compile(f"([\n{_SPACE_MARK}])")
# SentencePiece refuses to learn from a line with U+2585, its own mark: cut there as well.
_LESSON = re.compile(f"[\n\u2585{_SPACE_MARK}]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class SubwordTokenizer:
    """Subwords with byte fallback: every text can be written, and read back unchanged.

    Args:
        model: The serialised SentencePiece model, trained by `train_subwords`.
        algorithm: `"bpe"` or `"unigram"`, kept for the reader of `tokenizer.json`.

    Raises:
        TokenizerError: `model` is not a SentencePiece model, or lacks the newline
            piece, the space piece or the byte pieces that make it lossless.
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

    def encode(self, text: str, unknown: UnknownPolicy = "error") -> NDArray[np.int32]:
        """Return the ids of `text`, as `Tokenizer.encode` says.

        Args:
            text: Any text.
            unknown: What to do with a lone surrogate, which has no UTF-8 and is all
                that byte pieces cannot write; `"unk"` writes U+FFFD in its place.

        Returns:
            `[time]`.

        Raises:
            TokenizerError: `text` has a lone surrogate under `"error"`.
        """
        parts = _CUT.split(_without_surrogates(text, unknown))
        segments = self._processor.encode(parts[::2], out_type=int)
        cuts = [self._cut_ids[cut] for cut in parts[1::2]]
        between = chain.from_iterable(zip(segments, [*cuts, []], strict=True))
        return np.fromiter(chain.from_iterable(between), np.int32)

    def decode(self, token_ids: NDArray[np.integer] | list[int]) -> str:
        """Return the text of `token_ids`.

        Args:
            token_ids: `[time]`.

        Returns:
            The text. Bytes that are no UTF-8, which a model can write but `encode`
            never does, become U+FFFD; so does UNK.

        Raises:
            TokenizerError: An id lies outside the vocabulary.
        """
        ids = checked_ids(token_ids, self.vocab_size)
        return b"".join(self._bytes[i] for i in ids.tolist()).decode("utf-8", "replace")

    def decoder(self) -> "SubwordDecoder":
        """Return a fresh decoder for one stream of tokens."""
        return SubwordDecoder(self._bytes)

    def pieces(self) -> tuple[bytes, ...]:
        """Return the bytes of each id."""
        return self._bytes

    def files(self) -> dict[str, bytes]:
        """Return what a `tokenizer/` folder holds: file name to content."""
        header = header_file(self.kind, {"algorithm": self._algorithm})
        return {HEADER_FILE: header, MODEL_FILE: self._model}

    def fingerprint(self) -> str:
        """Return the sha256 over `files()`."""
        return fingerprint_files(self.files())

    def _piece_id(self, piece: str) -> int:
        token_id: int = self._processor.piece_to_id(piece)
        if token_id == self._processor.unk_id():
            raise TokenizerError(
                f"A subword model must have the piece {piece!r}. Received: one without. "
                "Train it with this program: others are not lossless."
            )
        return token_id


class SubwordDecoder:
    """A stream of subwords; a character comes out when its last byte has come in.

    Args:
        piece_bytes: The bytes of each id, in order.
    """

    def __init__(self, piece_bytes: tuple[bytes, ...]) -> None:
        self._piece_bytes = piece_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """Return the characters that `token_id` completes; may be empty."""
        return self._decoder.decode(self._piece_bytes[token_id])

    def flush(self) -> str:
        """Return U+FFFD if a character was left unfinished, and start afresh."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def train_subwords(
    text: str, vocab_size: int, algorithm: Literal["bpe", "unigram"]
) -> SubwordTokenizer:
    """Return a tokenizer whose pieces were learned from `text`.

    Args:
        text: The training text alone: pieces learned from the validation text would
            flatter the score.
        vocab_size: The most pieces, 256 byte pieces, UNK and the newline included; a
            short text gives fewer.
        algorithm: How SentencePiece finds the pieces.

    Returns:
        The tokenizer; the same arguments always give the same one.

    Raises:
        TokenizerError: `text` has nothing to learn from.

    Source: Kudo and Richardson 2018, "SentencePiece: A simple and language independent
    subword tokenizer and detokenizer for Neural Text Processing".
    """
    segments = [part for part in _LESSON.split(_without_surrogates(text, "error")) if part]
    if not segments:
        raise TokenizerError(
            "Subwords need a text with at least one line that is not empty. "
            f"Received: {len(text):,} characters of empty lines. Give a longer corpus."
        )
    segments = _without_rare_characters(segments, vocab_size)
    try:
        model = _run_trainer(segments, vocab_size, algorithm)
    except RuntimeError as error:
        largest = _largest_vocab_size(str(error))
        _log.info("vocab_size lowered from %d to %d: the text has no more", vocab_size, largest)
        model = _run_trainer(segments, largest, algorithm)
    return SubwordTokenizer(model, algorithm)


def _without_rare_characters(segments: list[str], vocab_size: int) -> list[str]:
    """Cut the segments where a character is too rare for a piece of its own.

    In a text of more different characters than there is room for, such as Chinese, the
    frequent ones take half of the room, pieces longer than one character the other half.
    The rest is not learned and so written in bytes.
    """
    counts = Counter(chain.from_iterable(segments))
    room = vocab_size - _RESERVED_PIECES
    if len(counts) <= room:
        return segments
    rare = [character for character, _ in counts.most_common()[max(1, room // 2) :]]
    _log.info("%d rare characters are written in bytes", len(rare))
    text = "\n".join(segments).translate(dict.fromkeys(map(ord, rare), "\n"))
    return [part for part in text.split("\n") if part]


def _run_trainer(segments: list[str], vocab_size: int, algorithm: str) -> bytes:
    """Train with the options under which decoding gives back every byte.

    One thread, so that the same text gives the same model on every machine. A
    sentence limit that no line reaches, since longer ones are dropped in silence.
    The space as a required character: in a text without spaces (Chinese poems) it
    would have no piece, and its bytes would be read back as U+2581.
    """
    longest = max(len(segment.encode()) for segment in segments)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
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
    """Return the size that SentencePiece names where it was asked for too much."""
    if too_high := re.search(r"too high.*value <= (\d+)", message):
        return int(too_high[1])
    raise TokenizerError(
        f"SentencePiece could not learn from this text: {' '.join(message.split())}. "
        "Pass --tokenizer char, or give another corpus."
    )


def _load_processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(model)
    except (RuntimeError, ValueError) as error:
        raise TokenizerError(
            f"Not a SentencePiece model: {' '.join(str(error).split())}."
        ) from None
    return processor


def _piece_bytes(processor: sentencepiece.SentencePieceProcessor) -> tuple[bytes, ...]:
    """Return what each id stands for: UTF-8 of its piece, one byte, or U+FFFD for UNK."""
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
            f"at position {found.start()}. Pass --unknown skip, or convert the text to UTF-8."
        )
    return _SURROGATE.sub("" if unknown == "skip" else "\ufffd", text)

"""What is needed to write a text again, and to tell whether it is the same one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from textgen.config import (
    DynamicConfig,
    EngineName,
    SamplingConfig,
    UnknownPolicy,
    WeightsFormat,
    from_values,
)
from textgen.errors import ConfigError
from textgen.generation.requests import Request
from textgen.storage import write_json_atomically

SCHEMA_VERSION = 2
_PACKAGES = ("numpy", "onnxruntime", "tensorflow")


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What a model learned before it wrote.

    Attributes:
        text: What it was adapted to.
        passes: How many times it read that.
        settings: How it learned.
        unknown: What was done with unknown characters of `text`.
        weights_sha256: Hash of the weights' values before.
    """

    text: str
    passes: int
    settings: DynamicConfig
    unknown: UnknownPolicy
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """One call of the writer, on paper.

    Attributes:
        run: Where the model lay.
        weights_sha256: Hash of the values of the run's weights, before any adaptation.
        tokenizer_sha256: The tokenizer's fingerprint.
        engine: Which implementation wrote.
        weights_format: Numeric format of the weights.
        unknown: What was done with unknown characters of a prompt.
        requests: What was asked.
        text_sha256: Of each text, in UTF-8.
        versions: Of this program, Python's packages and the like; told, not checked.
        adaptations: What the model learned before it wrote, first to last.
    """

    run: str
    weights_sha256: str
    tokenizer_sha256: str
    engine: EngineName
    weights_format: WeightsFormat
    unknown: UnknownPolicy
    requests: tuple[Request, ...]
    text_sha256: tuple[str, ...]
    versions: dict[str, str]
    adaptations: tuple[Adaptation, ...] = ()

    def save(self, path: Path) -> None:
        """Write the receipt as JSON, atomically."""
        write_json_atomically(path, {"schema_version": SCHEMA_VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Args:
            path: The file.

        Returns:
            The receipt.

        Raises:
            ConfigError: It cannot be read, or is no receipt.
        """
        try:
            values = json.loads(path.read_text("utf-8"))
            if values.pop("schema_version") > SCHEMA_VERSION:
                raise ConfigError(f"{path} was written by a newer textgen: upgrade to replay it.")
            values["requests"] = tuple(_request(entry) for entry in values["requests"])
            values["text_sha256"] = tuple(values["text_sha256"])
            values["adaptations"] = tuple(
                from_values(Adaptation, entry) for entry in values.get("adaptations", ())
            )
            if len(values["text_sha256"]) != len(values["requests"]):
                raise ValueError("it has not one hash for each text")
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is not a receipt: {error}. Pass --replay.") from error

    def differences(self, other: "Receipt") -> list[str]:
        """Return what differs between this receipt and that of a replay, in plain words."""
        found = [
            f"the {label} is another"
            for name, label in _LABELS.items()
            if getattr(self, name) != getattr(other, name)
        ]
        pairs = zip(self.text_sha256, other.text_sha256, strict=True)
        different = [str(number + 1) for number, (one, two) in enumerate(pairs) if one != two]
        return found + ([f"text {', '.join(different)} differs"] if different else [])


_LABELS = {
    "weights_sha256": "model",
    "tokenizer_sha256": "tokenizer",
    "engine": "engine",
    "weights_format": "format of the weights",
}


def text_hashes(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the sha256 of each text in UTF-8."""
    return tuple(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts)


def installed_versions(textgen_version: str) -> dict[str, str]:
    """Return the versions of this program and of what its engines are made with."""
    found = {"textgen": textgen_version}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _request(entry: dict[str, Any]) -> Request:
    sampling = from_values(SamplingConfig, entry["sampling"])
    return Request(
        prompt=str(entry["prompt"]), sampling=sampling, sample_index=int(entry["sample_index"])
    )

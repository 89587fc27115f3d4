"""Receipts: records that make a generation call reproducible."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar, get_origin, get_type_hints

from textgen.config import (
    DynamicConfig,
    EngineName,
    Passes,
    UnknownPolicy,
    WeightsFormat,
    check_argument,
    check_settings,
    convert,
    from_values,
)
from textgen.errors import ConfigError
from textgen.generation.requests import Request
from textgen.storage import read_json_object, require_known_schema, write_json_atomically
from textgen.version import __version__, installed_version

# 2 added adaptations; 3 renamed `weights` to `weights_format`, and `row` in a request to
# `sample_index`.
SCHEMA_VERSION = 3

_PACKAGES = ("numpy", "onnxruntime", "tensorflow")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """A text that a model was adapted to before it generated.

    Attributes:
        text: The text.
        passes: Number of passes over it.
        settings: How it was trained on.
        unknown: What was done with unknown characters of `text`.
        weights_sha256: Hash of the weights before.

    Raises:
        ConfigError: A value has the wrong type, or is out of range.
    """

    text: str
    passes: Passes
    settings: DynamicConfig
    unknown: UnknownPolicy
    weights_sha256: str

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A record that makes one generation call reproducible.

    Attributes:
        run: Path of the run directory.
        weights_sha256: Hash of the run's weights, before any adaptation.
        tokenizer_sha256: The tokenizer's fingerprint.
        engine: The engine that generated.
        weights_format: Numeric format of the weights.
        unknown: What was done with unknown characters of a prompt.
        requests: The requests.
        text_sha256: Hash of each text in UTF-8.
        versions: Of textgen and the packages that compute; recorded, not compared.
        adaptations: The texts that the model was adapted to before, in order.
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

    def save(self, path: str | Path) -> None:
        """Write the receipt as JSON, atomically."""
        path = Path(check_argument(path, str | Path, "path"))
        write_json_atomically(path, {"schema_version": SCHEMA_VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a receipt that `save` wrote, in this schema or an older one.

        Args:
            path: The file.

        Returns:
            The receipt.

        Raises:
            ConfigError: `path` has the wrong type, or the file contains no receipt.
            RunError: The file is missing or cannot be read, or its schema is newer.
        """
        path = Path(check_argument(path, str | Path, "path"))
        missing = f"The receipt {path} does not exist."
        values = read_json_object(path, missing=missing, remedy="Pass the file of a receipt.")
        try:
            version = convert(values.pop("schema_version", None), int, "schema_version")
            require_known_schema(path, version, SCHEMA_VERSION)
            return cls(**_checked(_migrated(values)))
        except ConfigError as error:
            raise ConfigError(f"{path} is not a receipt: {error}") from error

    def differences(self, other: "Receipt") -> list[str]:
        """Return what differs between this receipt and that of a replay, in words."""
        found = [
            f"the {label} is another"
            for name, label in _LABELS.items()
            if getattr(self, name) != getattr(other, name)
        ]
        pairs = zip(self.text_sha256, other.text_sha256, strict=True)
        different = [str(number) for number, (one, two) in enumerate(pairs, start=1) if one != two]
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


def installed_versions() -> dict[str, str]:
    """Return the versions of textgen and of the installed packages that its engines use."""
    found = {package: installed_version(package) for package in _PACKAGES}
    return {"textgen": __version__} | {name: v for name, v in found.items() if v is not None}


def _migrated(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a receipt of any known schema under their present names."""
    current = {"adaptations": [], **_renamed(values, "weights", "weights_format")}
    requests = convert(current.get("requests"), list, "requests")
    current["requests"] = [_renamed(entry, "row", "sample_index") for entry in requests]
    return current


def _renamed(values: Any, old: str, new: str) -> dict[str, Any]:
    values = convert(values, dict, "requests")
    return {new if name == old else name: value for name, value in values.items()}


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Receipt`, or raise `ConfigError` for a wrong type."""
    _require_fields(Receipt, values)
    revived = values | {
        "requests": [_revive(Request, entry) for entry in values["requests"]],
        "adaptations": [
            _revive(Adaptation, entry)
            for entry in convert(values["adaptations"], list, "adaptations")
        ],
    }
    hints = get_type_hints(Receipt).items()
    checked = {
        name: convert(revived[name], dict if get_origin(hint) is dict else hint, name)
        for name, hint in hints
    }
    for version in checked["versions"].values():
        convert(version, str, "versions")
    if len(checked["text_sha256"]) != len(checked["requests"]):
        raise ConfigError(
            f"`text_sha256` must have one hash for each of {len(checked['requests'])} requests. "
            f"Received: {len(checked['text_sha256'])}."
        )
    return checked


def _revive(cls: type[T], values: Any) -> T:
    _require_fields(cls, convert(values, dict, cls.__name__))
    return from_values(cls, values)


def _require_fields(cls: Any, values: dict[str, Any]) -> None:
    names = {field.name for field in fields(cls)}
    if values.keys() != names:
        raise ConfigError(
            f"{cls.__name__} must have the keys {', '.join(sorted(names))}. "
            f"Received: {', '.join(sorted(values)) or 'none'}."
        )

"""The run directory: everything that a training run consists of, loaded by its path alone.

```
config.json           the resolved RunConfig, with schema_version
environment.json      versions, devices, the kernel that ran and why
tokenizer/            tokenizer.json, and spm.model for subwords
corpus.safetensors    the token ids of both splits
model.safetensors     the best weights by validation loss
checkpoints/          everything needed to resume training exactly
metrics.jsonl         one object per line, one line per validation
quantized/            the best weights in int8 and int4, quantized when first needed
passages.safetensors  index of the training text, built when first needed
measurements/         results measured with the best weights when first needed
samples/  tensorboard/
```

No file contains the path of the run, so copying the folder moves the run. This module knows the
files and when they are complete. It does NOT know how to train or to generate.
"""

import json
import logging
import math
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from textgen.config import QuantizedFormat, RunConfig, check_argument
from textgen.config.migrations import migrate_environment
from textgen.corpora import CORPUS_FILE, TokenizedCorpus
from textgen.corpora.passages import PASSAGES_FILE, PassageIndex
from textgen.errors import ConfigError, RunError
from textgen.models.quantized import QuantizedWeights
from textgen.models.quantized_file import load_quantized, serialize_quantized
from textgen.models.weights import ModelWeights
from textgen.models.weights_file import load_weights, serialize_weights
from textgen.storage import (
    is_temporary,
    parse_json_object,
    read_json_object,
    read_regular_file,
    write_atomically,
    write_if_possible,
    write_json_atomically,
)
from textgen.tokenizers import Tokenizer, load_tokenizer

RUNS_FOLDER = Path("runs")
CHECKPOINT_FILE = "checkpoints/latest.safetensors"

_log = logging.getLogger("textgen")
_CONFIG_FILE = "config.json"
_ENVIRONMENT_FILE = "environment.json"
_METRICS_FILE = "metrics.jsonl"
_WEIGHTS_FILE = "model.safetensors"
_MEASUREMENTS_FOLDER = "measurements"
_QUANTIZED_FOLDER = "quantized"
# Names of the entries of a run directory.
_PARTS = (
    _CONFIG_FILE,
    _ENVIRONMENT_FILE,
    "tokenizer",
    CORPUS_FILE,
    _WEIGHTS_FILE,
    "checkpoints",
    _METRICS_FILE,
    _QUANTIZED_FOLDER,
    PASSAGES_FILE,
    _MEASUREMENTS_FOLDER,
    "samples",
    "tensorboard",
)
# A row has 300 bytes, so this is almost a million validations.
_MAX_METRICS_BYTES = 2**28


@dataclass(frozen=True)
class RunDirectory:
    """One run on disk.

    Attributes:
        path: The folder; a string is accepted.
    """

    path: Path

    def __post_init__(self) -> None:
        path = check_argument(self.path, str | Path, "path")
        object.__setattr__(self, "path", Path(path))

    @property
    def checkpoint_path(self) -> Path:
        """The file from which training is resumed."""
        return self.path / CHECKPOINT_FILE

    @property
    def metrics_path(self) -> Path:
        """The log of the validations: one JSON object per line."""
        return self.path / _METRICS_FILE

    @property
    def weights_path(self) -> Path:
        """The best weights by validation loss."""
        return self.path / _WEIGHTS_FILE

    def is_occupied(self) -> bool:
        """Return whether the path exists and is not an empty folder."""
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    def check_free(self, *, overwrite: bool) -> None:
        """Raise unless the run directory may be created or replaced.

        Args:
            overwrite: Whether an existing run may be replaced. A folder that contains anything
                else is never replaced.

        Raises:
            RunError: The path is occupied and may not be replaced.
        """
        if not self.is_occupied():
            return
        if self.path.is_file():
            raise RunError(
                f"`run_dir` must be a folder. Received: the file {self.path}. "
                "Pass another `run_dir`."
            )
        if not self._contains_only_a_run():
            raise RunError(
                f"{self.path} contains files that do not belong to a run, so it is not replaced. "
                "Pass another `run_dir`."
            )
        if not overwrite:
            raise RunError(
                f"{self.path} already contains a run. Pass `resume` to continue it, `overwrite` "
                "to replace it, or another `run_dir`."
            )

    def create(self, *, overwrite: bool = False) -> None:
        """Create the run directory, empty.

        Args:
            overwrite: Whether an existing run may be replaced, as in `check_free`.

        Raises:
            RunError: The path is occupied and may not be replaced.
        """
        self.check_free(overwrite=overwrite)
        if self.is_occupied():
            self.remove()
        self.path.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Delete the folder and its contents."""
        shutil.rmtree(self.path)

    def _contains_only_a_run(self) -> bool:
        return (self.path / _CONFIG_FILE).is_file() and all(
            entry.name in _PARTS or is_temporary(entry.name, _PARTS)
            for entry in self.path.iterdir()
        )

    def write_config(self, config: RunConfig) -> None:
        """Store the resolved configuration."""
        write_json_atomically(self.path / _CONFIG_FILE, config.to_dict())

    def read_config(self) -> RunConfig:
        """Read `config.json`.

        Returns:
            The configuration of the run, with the current names of its settings.

        Raises:
            RunError: There is no run at the path, or its configuration is missing, damaged,
                invalid, or was written by a newer textgen.
        """
        if not self.path.is_dir():
            raise RunError(
                f"No run directory at {self.path}. Pass the path of one, or train first."
            )
        values = self._read_json(_CONFIG_FILE)
        try:
            return RunConfig.from_dict(values)
        except ConfigError as error:
            raise RunError(f"{self.path / _CONFIG_FILE}: {error}") from error

    def write_environment(self, values: Mapping[str, Any]) -> None:
        """Store the software and hardware that the run was trained on."""
        write_json_atomically(self.path / _ENVIRONMENT_FILE, values)

    def read_environment(self) -> dict[str, Any]:
        """Read `environment.json`.

        Returns:
            What `write_environment` stored, with the current names of its keys.

        Raises:
            RunError: The file is missing, damaged, or was written by a newer textgen.
        """
        values = self._read_json(_ENVIRONMENT_FILE)
        try:
            return migrate_environment(values)
        except ConfigError as error:
            raise RunError(f"{self.path / _ENVIRONMENT_FILE}: {error}") from error

    def _read_json(self, name: str) -> dict[str, Any]:
        missing = (
            f"{self.path} is not a complete run: {name} is missing. "
            "Restore it from a copy, or pass the path of another run."
        )
        return read_json_object(self.path / name, missing=missing)

    def write_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Store the tokenizer."""
        for name, content in tokenizer.files().items():
            write_atomically(self.path / "tokenizer" / name, content)

    def read_tokenizer(self) -> Tokenizer:
        """Return the run's tokenizer; raises `RunError` if it is missing or damaged."""
        return load_tokenizer(self.path / "tokenizer")

    def write_corpus(self, corpus: TokenizedCorpus) -> None:
        """Store the token ids of both splits."""
        write_atomically(self.path / CORPUS_FILE, corpus.to_bytes())

    def read_corpus(self) -> TokenizedCorpus:
        """Return the token ids of both splits; raises `RunError` if they are missing or damaged."""
        return TokenizedCorpus.load(self.path / CORPUS_FILE)

    def write_weights(self, weights: ModelWeights, tokenizer: Tokenizer) -> None:
        """Replace the best weights, stored with the fingerprint of their tokenizer."""
        write_atomically(self.weights_path, serialize_weights(weights, tokenizer.fingerprint()))

    def read_weights(self, tokenizer: Tokenizer) -> ModelWeights:
        """Read `model.safetensors`.

        Args:
            tokenizer: The run's tokenizer.

        Returns:
            The best weights.

        Raises:
            RunError: The weights are missing, damaged, or were trained with another tokenizer.
        """
        if not self.weights_path.exists():
            raise RunError(
                f"{self.path} is not a complete run: {_WEIGHTS_FILE} is missing. "
                "Continue its training with `resume` until the first validation."
            )
        return load_weights(self.weights_path, tokenizer.fingerprint())

    def write_quantized(self, quantized: QuantizedWeights) -> None:
        """Store quantized weights, or log that the run directory cannot be written."""
        path = self._quantized_path(quantized.weights_format)
        write_if_possible(path, serialize_quantized(quantized))

    def read_quantized(
        self, weights_format: QuantizedFormat, weights_sha256: str
    ) -> QuantizedWeights | None:
        """Return what `write_quantized` stored.

        Args:
            weights_format: Format of the quantized weights.
            weights_sha256: Hash of the values of the float32 weights.

        Returns:
            The quantized weights; None if none were made from these weights.

        Raises:
            RunError: The file is damaged.
        """
        return load_quantized(self._quantized_path(weights_format), weights_format, weights_sha256)

    def _quantized_path(self, weights_format: QuantizedFormat) -> Path:
        return self.path / _QUANTIZED_FOLDER / f"{weights_format}.safetensors"

    def write_measurement(
        self, name: str, weights_sha256: str, values: Mapping[str, float]
    ) -> None:
        """Store results measured with the best weights, or log that they cannot be written.

        Args:
            name: Name of the measurement.
            weights_sha256: Hash of the weights' values.
            values: The results by name.
        """
        content = json.dumps({"weights_sha256": weights_sha256, **values}, indent=2)
        write_if_possible(self._measurement_path(name), f"{content}\n".encode())

    def read_measurement(self, name: str, weights_sha256: str) -> dict[str, float] | None:
        """Return what `write_measurement` stored.

        Args:
            name: Name of the measurement.
            weights_sha256: Hash of the weights' values.

        Returns:
            The results by name; None if there is no measurement of these weights.

        Raises:
            RunError: The file is damaged.
        """
        path = self._measurement_path(name)
        if not path.exists():
            return None
        missing = f"{path} was deleted while it was read. Try again."
        remedy = "Delete it: it is measured again when it is needed."
        values = read_json_object(path, missing=missing, remedy=remedy)
        if values.pop("weights_sha256", None) != weights_sha256:
            return None
        return {key: float(value) for key, value in values.items() if _is_finite(value)}

    def _measurement_path(self, name: str) -> Path:
        return self.path / _MEASUREMENTS_FOLDER / f"{name}.json"

    def read_passages(self, tokenizer: Tokenizer) -> PassageIndex:
        """Return the index of the training text, built and stored if there is none.

        Args:
            tokenizer: The run's tokenizer.

        Returns:
            The index.

        Raises:
            RunError: The corpus or the stored index is missing or damaged.
        """
        text = tokenizer.decode(self.read_corpus().train)
        path = self.path / PASSAGES_FILE
        if path.exists():
            return PassageIndex.load(path, text)
        index = PassageIndex.build(text)
        write_if_possible(path, index.to_bytes())
        return index

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one row to `metrics.jsonl`; NaN and infinity become null."""
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, allow_nan=False) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl` in order; damaged lines are skipped and logged."""
        return [row for _, row in self._metrics() if row is not None]

    def best_metrics(self) -> dict[str, Any] | None:
        """Return the row of `metrics.jsonl` with the lowest validation loss, None without rows."""
        rows = [row for row in self.read_metrics() if _is_finite(row.get("validation_loss"))]
        return min(rows, key=lambda row: row["validation_loss"], default=None)

    def keep_metrics_until(self, step: int) -> None:
        """Remove the rows after `step`, which a resumed run writes again.

        Damaged lines are kept, except a last line that was written incompletely.
        """
        kept = [
            line.removesuffix(b"\n") + b"\n"
            for line, row in self._metrics()
            if (line.endswith(b"\n") if row is None else row["step"] <= step)
        ]
        write_atomically(self.metrics_path, b"".join(kept))

    def _metrics(self) -> list[tuple[bytes, dict[str, Any] | None]]:
        """Return the lines of `metrics.jsonl`, each with its row, or with None if it is damaged."""
        if not self.metrics_path.exists():
            return []
        missing = f"{self.metrics_path} was deleted while it was read. Try again."
        content = read_regular_file(
            self.metrics_path, max_bytes=_MAX_METRICS_BYTES, missing=missing
        )
        lines = [(line, _metrics_row(line)) for line in BytesIO(content)]
        damaged = [number for number, (_, row) in enumerate(lines, start=1) if row is None]
        if damaged:
            _note_damaged_lines(self.metrics_path, tuple(damaged))
        return lines

    def write_sample(self, step: int, text: str) -> None:
        """Store a text generated at `step`."""
        write_atomically(
            self.path / "samples" / f"step_{step:07d}.txt", text.encode("utf-8", "replace")
        )


def newest_run(folder: Path = RUNS_FOLDER, *, part: str = _WEIGHTS_FILE) -> RunDirectory:
    """Return the run that was started or resumed last.

    Args:
        folder: The folder of the run directories.
        part: A file that the run must contain: its weights, or the checkpoint to resume from.

    Returns:
        The run.

    Raises:
        RunError: No run in `folder` contains that file.
    """
    configs = sorted(
        (path for path in folder.glob(f"*/{_CONFIG_FILE}") if (path.parent / part).exists()),
        key=lambda path: path.stat().st_mtime_ns,
    )
    if not configs:
        raise RunError(
            f"No run in {folder}/ has {part}. Train one first, or pass the path of a run directory."
        )
    return RunDirectory(configs[-1].parent)


def unused_run(sources: Iterable[str], folder: Path = RUNS_FOLDER) -> RunDirectory:
    """Return a run directory in `folder` that does not exist yet, named after the first source."""
    stem = _name_of(next(iter(sources), "run"))
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "run"
    return RunDirectory(next(path for path in _numbered(folder / name) if not path.exists()))


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


def _name_of(source: str) -> str:
    """Return the name of a corpus: `tale` for old/tale.txt, `lm1b` for tfds:lm1b:train."""
    if source == "-":
        return "stdin"
    scheme, colon, rest = source.partition(":")
    if colon and scheme in ("builtin", "tfds"):
        return rest.partition(":")[0]
    return Path(source).stem


def _metrics_row(line: bytes) -> dict[str, Any] | None:
    """Return the row of one line; None if it is damaged."""
    try:
        row = parse_json_object(line)
    except ValueError:
        return None
    step = row.get("step")
    return row if isinstance(step, int) and not isinstance(step, bool) else None


@cache
def _note_damaged_lines(path: Path, numbers: tuple[int, ...]) -> None:
    _log.warning(
        "%s: skipped %d damaged lines, the first is line %d", path, len(numbers), numbers[0]
    )


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # `math.isfinite` raises for integers that exceed a float.
    return is_number and -sys.float_info.max <= value <= sys.float_info.max

"""The run directory: all that a training run is, found by its path alone.

```
config.json         the resolved RunConfig, with schema_version
environment.json    versions, device, which kernel ran and why
tokenizer/          tokenizer.json, and spm.model for subwords
corpus.safetensors  the token ids of both splits
model.safetensors   the best weights by validation loss
checkpoints/        everything needed to go on exactly where it stopped
metrics.jsonl       one object a line
passages.safetensors  where each passage of the training text stands, once it was asked for
measurements/       what was measured of the best weights, once it was asked for
samples/  tensorboard/
```

No path is stored inside, so a run is moved by copying its folder. This module
knows where things lie and when they are whole; it starts no training and writes
no text.
"""

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textgen.config import RunConfig
from textgen.corpora import CORPUS_FILE, TokenizedCorpus
from textgen.corpora.passages import PASSAGES_FILE, PassageIndex
from textgen.errors import ConfigError, RunError
from textgen.models.weights import ModelWeights
from textgen.models.weights_file import load_weights, serialize_weights
from textgen.storage import write_atomically, write_json_atomically
from textgen.tokenizers import Tokenizer, load_tokenizer

RUNS_FOLDER = Path("runs")

_PARTS = (
    "config.json",
    "environment.json",
    "tokenizer",
    CORPUS_FILE,
    "model.safetensors",
    "checkpoints",
    "metrics.jsonl",
    PASSAGES_FILE,
    "measurements",
    "samples",
    "tensorboard",
)


@dataclass(frozen=True)
class RunDirectory:
    """One run on disk.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def checkpoint_path(self) -> Path:
        """The file from which training goes on."""
        return self.path / "checkpoints" / "latest.safetensors"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line, one line a validation."""
        return self.path / "metrics.jsonl"

    @property
    def weights_path(self) -> Path:
        """The best weights by validation loss."""
        return self.path / "model.safetensors"

    def is_occupied(self) -> bool:
        """Return whether anything lies at the path already."""
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    def check_free(self, *, overwrite: bool) -> None:
        """Refuse to go on if the folder may not be made anew.

        Args:
            overwrite: Whether a run that lies there may be replaced. A folder that
                holds anything else is refused all the same.

        Raises:
            RunError: Something lies at the path and may not be removed.
        """
        if not self.is_occupied():
            return
        if self.path.is_file():
            raise RunError(f"{self.path} is a file. A run is a folder: pass another --run-dir.")
        if not self._holds_a_run_alone():
            raise RunError(
                f"{self.path} holds files that are not a run's, so it is left alone. "
                "Pass another --run-dir."
            )
        if not overwrite:
            raise RunError(
                f"{self.path} already holds a run. "
                "Pass --resume to go on with it, --overwrite to replace it, or another --run-dir."
            )

    def create(self, *, overwrite: bool = False) -> None:
        """Make the folder, empty; see `check_free`."""
        self.check_free(overwrite=overwrite)
        if self.is_occupied():
            self.remove()
        self.path.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.path)

    def _holds_a_run_alone(self) -> bool:
        return (self.path / "config.json").is_file() and all(
            entry.name.lstrip(".").startswith(_PARTS) for entry in self.path.iterdir()
        )

    def write_config(self, config: RunConfig) -> None:
        """Store the resolved configuration."""
        write_json_atomically(self.path / "config.json", config.to_dict())

    def read_config(self) -> RunConfig:
        """Read `config.json`.

        Returns:
            The configuration the run was made from.

        Raises:
            RunError: No run lies at the path, its configuration cannot be read, or it
                was written by a newer textgen.
        """
        if not self.path.is_dir():
            raise RunError(
                f"No run directory at {self.path}. Pass the path of one, or train first."
            )
        try:
            return RunConfig.from_dict(self._read_json("config.json"))
        except (ConfigError, TypeError, AttributeError) as error:
            raise RunError(f"{self.path / 'config.json'}: {error}") from error

    def write_environment(self, values: dict[str, Any]) -> None:
        """Store what the run ran on."""
        write_json_atomically(self.path / "environment.json", values)

    def read_environment(self) -> dict[str, Any]:
        """Return what `write_environment` stored."""
        return self._read_json("environment.json")

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            values = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise RunError(
                f"{self.path} is not a complete run: {name} is missing. "
                "Restore it from a copy, or pass the path of another run."
            ) from None
        except (ValueError, OSError) as error:
            raise RunError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
        if not isinstance(values, dict):
            raise RunError(f"{path} must hold a JSON object. Restore it from a copy.")
        return values

    def write_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Store the tokenizer."""
        for name, content in tokenizer.files().items():
            write_atomically(self.path / "tokenizer" / name, content)

    def read_tokenizer(self) -> Tokenizer:
        """Return the run's tokenizer; raises `RunError` where it is missing or damaged."""
        return load_tokenizer(self.path / "tokenizer")

    def write_corpus(self, corpus: TokenizedCorpus) -> None:
        """Store the token ids of both splits."""
        write_atomically(self.path / CORPUS_FILE, corpus.to_bytes())

    def read_corpus(self) -> TokenizedCorpus:
        """Return the token ids of both splits; raises `RunError` where they are missing."""
        return TokenizedCorpus.load(self.path / CORPUS_FILE)

    def write_weights(self, weights: ModelWeights, tokenizer: Tokenizer) -> None:
        """Replace the best weights; they remember the tokenizer they belong to."""
        write_atomically(self.weights_path, serialize_weights(weights, tokenizer.fingerprint()))

    def read_weights(self, tokenizer: Tokenizer) -> ModelWeights:
        """Read `model.safetensors`.

        Args:
            tokenizer: The run's tokenizer.

        Returns:
            The best weights.

        Raises:
            RunError: They are missing, damaged, or were trained with another tokenizer.
        """
        if not self.weights_path.exists():
            raise RunError(
                f"{self.path} is not a complete run: model.safetensors is missing. "
                "Go on with it by --resume until the first validation."
            )
        return load_weights(self.weights_path, tokenizer.fingerprint())

    def write_measurement(self, name: str, weights_sha256: str, values: dict[str, float]) -> None:
        """Keep what was measured of the best weights, by its name."""
        path = self.path / "measurements" / f"{name}.json"
        write_json_atomically(path, {"weights_sha256": weights_sha256, **values})

    def read_measurement(self, name: str, weights_sha256: str) -> dict[str, Any] | None:
        """Return what `write_measurement` kept; None where there is none of these weights."""
        path = self.path / "measurements" / f"{name}.json"
        if not path.exists():
            return None
        values = self._read_json(f"measurements/{name}.json")
        return values if values.get("weights_sha256") == weights_sha256 else None

    def read_passages(self, tokenizer: Tokenizer) -> PassageIndex:
        """Return the index of the training text; made and stored where there is none yet."""
        text = tokenizer.decode(self.read_corpus().train)
        path = self.path / PASSAGES_FILE
        if path.exists():
            return PassageIndex.from_bytes(path.read_bytes(), text)
        index = PassageIndex.build(text)
        write_atomically(path, index.to_bytes())
        return index

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add one line to `metrics.jsonl`."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl`, first to last; a torn last line is left out."""
        if not self.metrics_path.exists():
            return []
        rows = []
        for line in self.metrics_path.read_text("utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def keep_metrics_until(self, step: int) -> None:
        """Drop the rows after `step`: a resumed run writes them again."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.metrics_path, text.encode())

    def write_sample(self, step: int, text: str) -> None:
        """Store a text written at `step`."""
        write_atomically(
            self.path / "samples" / f"step_{step:07d}.txt", text.encode("utf-8", "replace")
        )


def newest_run(folder: Path = RUNS_FOLDER, *, part: str = "model.safetensors") -> RunDirectory:
    """Find the run that was started last.

    Args:
        folder: Where the runs lie.
        part: The file that a run must have to count: weights, or a checkpoint to go on from.

    Returns:
        The run.

    Raises:
        RunError: There is none.
    """
    configs = sorted(
        (path for path in folder.glob("*/config.json") if (path.parent / part).exists()),
        key=lambda path: path.stat().st_mtime_ns,
    )
    if not configs:
        raise RunError(
            f"No run in {folder}/. Train one first, or pass the path of a run directory."
        )
    return RunDirectory(configs[-1].parent)


def unused_run(sources: Iterable[str], folder: Path = RUNS_FOLDER) -> RunDirectory:
    """Return a run directory in `folder` that does not exist yet, named after the first source."""
    stem = _name_of(next(iter(sources), "run"))
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "run"
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}"
    return RunDirectory(path)


def _name_of(source: str) -> str:
    """Return what to call a corpus: `tale` for old/tale.txt, `lm1b` for tfds:lm1b:train."""
    if source == "-":
        return "stdin"
    scheme, colon, rest = source.partition(":")
    if colon and scheme in ("builtin", "tfds"):
        return rest.partition(":")[0]
    return Path(source).stem

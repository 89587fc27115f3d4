"""Checkpoints: everything that training needs to resume exactly where it stopped, in one file.

A checkpoint contains the weights, the optimizer, the carried state, the random generators of
dropout, and the progress of the run; it is replaced atomically. The position in the corpus is not
stored, because it is a pure function of the step.

```
tensors    GROUP.NUMBER.NAME: GROUP is model, optimizer or loss_scale, NUMBER the position of the
           variable in its group, NAME its name in Keras
metadata   schema_version, progress (JSON), tensors_sha256, tokenizer_sha256
```
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from textgen.errors import RunError
from textgen.storage import (
    damaged_file,
    read_safetensors,
    require_known_schema,
    tensors_sha256,
    write_atomically,
)
from textgen.training.progress import Progress, check_stored

SCHEMA_VERSION = 3

_MIN_SCHEMA_VERSION = 2
# Schema 2 had another name for one variable; the optimizer's copies of it contain the name.
_RENAMED_IN_3 = {"first_state": "learned_initial_state"}
_LOSS_SCALE = "loss_scale"
_MAX_NAMES_SHOWN = 3
_REMEDY = "Restore it from a copy, or start over with `overwrite`."

_Tensors = dict[str, NDArray[Any]]


class _Checkpoint(NamedTuple):
    tensors: _Tensors
    progress: dict[str, Any]
    tokenizer_fingerprint: str


def save_checkpoint(
    path: Path, model: keras.Model, progress: Progress, tokenizer_fingerprint: str
) -> None:
    """Write the whole training state of `model` to `path`, atomically.

    Args:
        path: The checkpoint.
        model: A compiled model whose optimizer is built.
        progress: Progress of the run.
        tokenizer_fingerprint: Fingerprint of the run's tokenizer.
    """
    tensors = {
        name: np.asarray(variable.numpy()) for name, variable in _named_variables(model).items()
    }
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "progress": json.dumps(progress.to_dict()),
        "tensors_sha256": tensors_sha256(tensors),
        "tokenizer_sha256": tokenizer_fingerprint,
    }
    write_atomically(path, safetensors.numpy.save(tensors, metadata))


def load_checkpoint(
    path: Path, model: keras.Model, progress: Progress, tokenizer_fingerprint: str
) -> None:
    """Load the training state at `path` into `model` and `progress`.

    Args:
        path: A file written by `save_checkpoint`, of this schema or the previous one.
        model: A compiled model of the same sizes and parts, whose optimizer is built.
        progress: Updated in place.
        tokenizer_fingerprint: Fingerprint of the run's tokenizer.

    Raises:
        RunError: The file is missing, damaged, or belongs to another model or tokenizer.
    """
    stored = _read(path)
    if stored.tokenizer_fingerprint != tokenizer_fingerprint:
        raise RunError(
            f"{path} must belong to the tokenizer of the run. Received: a checkpoint of another "
            "tokenizer. Restore tokenizer/ and the checkpoint from the same copy."
        )
    tensors, variables = stored.tensors, _named_variables(model)
    _require_same_names(path, variables, tensors)
    # Only a float16 optimizer has a loss scale; a run may be resumed with another dtype.
    shared = {name: variables[name] for name in tensors if name in variables}
    for name, variable in shared.items():
        if tuple(variable.shape) != tensors[name].shape:
            raise RunError(
                f"{path}: {name} must have the shape {tuple(variable.shape)}. "
                f"Received: {tensors[name].shape}. {_REMEDY}"
            )
    for name, variable in shared.items():
        variable.assign(tensors[name])
    progress.restore(stored.progress)


def _read(path: Path) -> _Checkpoint:
    """Return the content of a file, its tensors under the names of this schema."""
    missing = f"{path} is missing: there is nothing to resume. Start over with `overwrite`."
    metadata, tensors = read_safetensors(path, missing=missing, remedy=_REMEDY)
    version = require_known_schema(path, metadata.get("schema_version"), SCHEMA_VERSION, _REMEDY)
    if version < _MIN_SCHEMA_VERSION:
        raise RunError(
            f"{path} must have a schema_version of at least {_MIN_SCHEMA_VERSION} to be resumed. "
            f"Received: {version}. The weights of the run remain usable; to train further, start "
            "over with `overwrite`."
        )
    try:
        progress = check_stored(json.loads(metadata["progress"]))
        digest, fingerprint = metadata["tensors_sha256"], metadata["tokenizer_sha256"]
    except (KeyError, ValueError, RecursionError) as error:
        raise damaged_file(path, f"its metadata is incomplete: {error}", _REMEDY) from error
    if digest != tensors_sha256(tensors):
        raise damaged_file(path, "its tensors do not match their sha256", _REMEDY)
    return _Checkpoint(_renamed(tensors) if version < 3 else tensors, progress, fingerprint)


def _renamed(tensors: _Tensors) -> _Tensors:
    """Return the tensors of schema 2 under the names of schema 3."""
    for old, new in _RENAMED_IN_3.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    return tensors


def _require_same_names(path: Path, expected: Iterable[str], received: Iterable[str]) -> None:
    """Raise unless a checkpoint has the variables of the model, ignoring the loss scale."""
    required, found = (
        {name for name in names if not name.startswith(_LOSS_SCALE)}
        for names in (expected, received)
    )
    if required == found:
        return
    missing = Counter(map(_without_number, required)) - Counter(map(_without_number, found))
    unknown = Counter(map(_without_number, found)) - Counter(map(_without_number, required))
    raise RunError(
        f"{path} must have the variables of the run's model. Received: missing {_shown(missing)}; "
        f"unknown {_shown(unknown)}. Restore config.json and the checkpoint from the same copy, "
        "or start over with `overwrite`."
    )


def _without_number(name: str) -> str:
    """Return `GROUP.NAME` for `GROUP.NUMBER.NAME`: one more variable shifts all numbers."""
    return re.sub(r"\.\d+\.", ".", name)


def _shown(names: Counter[str]) -> str:
    sorted_names = sorted(names.elements())
    more = len(sorted_names) - _MAX_NAMES_SHOWN
    shown = sorted_names[:_MAX_NAMES_SHOWN] + ([f"{more} more"] if more > 0 else [])
    return ", ".join(shown) or "none"


def _named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return every variable of training under a name that is the same in every process."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    own = {id(variable) for variable in optimizer.variables}
    scale = [variable for variable in model.optimizer.variables if id(variable) not in own]
    groups = {"model": model.variables, "optimizer": optimizer.variables, _LOSS_SCALE: scale}
    metrics = {id(variable) for metric in model.metrics for variable in metric.variables}
    return {
        f"{group}.{number:03d}.{variable.name}": variable
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
        if id(variable) not in metrics
    }

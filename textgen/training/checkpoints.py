"""Everything needed to go on exactly where training stopped, in one file.

Weights, optimizer, carried state, the random generators of dropout, and the
progress of the run; replaced atomically. The position in the corpus needs no entry:
it is a pure function of the step.
"""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from textgen.errors import RunError
from textgen.storage import tensors_sha256, write_atomically
from textgen.training.progress import Progress

_SCHEMA_VERSION = 2
_SCALE = "loss_scale"


def save_checkpoint(
    path: Path, model: keras.Model, progress: Progress, tokenizer_fingerprint: str
) -> None:
    """Write the whole training state of `model` to `path`, atomically.

    Args:
        path: The checkpoint.
        model: A compiled model whose optimizer is built.
        progress: How far the run has come.
        tokenizer_fingerprint: Of the tokenizer that the model belongs to.
    """
    tensors = {
        name: np.asarray(variable.numpy()) for name, variable in _named_variables(model).items()
    }
    metadata = {
        "schema_version": str(_SCHEMA_VERSION),
        "progress": json.dumps(progress.to_dict()),
        "tensors_sha256": tensors_sha256(tensors),
        "tokenizer_sha256": tokenizer_fingerprint,
    }
    write_atomically(path, safetensors.numpy.save(tensors, metadata))


def load_checkpoint(
    path: Path, model: keras.Model, progress: Progress, tokenizer_fingerprint: str
) -> None:
    """Put the training state in `path` back into `model` and `progress`.

    Args:
        path: What `save_checkpoint` wrote.
        model: A compiled model whose optimizer is built, of the same shape.
        progress: Takes over how far the run had come.
        tokenizer_fingerprint: Of the run's tokenizer.

    Raises:
        RunError: The file is missing, damaged, or belongs to another model.
    """
    tensors, metadata = _read(path)
    if metadata["tokenizer_sha256"] != tokenizer_fingerprint:
        raise RunError(f"{path} belongs to another tokenizer. Restore it from a copy.")
    variables = _named_variables(model)
    # the scale of the loss belongs to float16: a run may go on in another precision
    different = {name for name in set(tensors) ^ set(variables) if not name.startswith(_SCALE)}
    if different:
        raise RunError(f"{path} belongs to a model of another shape. Train anew with --overwrite.")
    variables = {name: variables[name] for name in tensors if name in variables}
    for name, variable in variables.items():
        if tuple(variable.shape) != tensors[name].shape:
            raise RunError(
                f"{path}: {name} must have shape {tuple(variable.shape)}. "
                f"Received: {tensors[name].shape}. Train anew with --overwrite."
            )
    for name, variable in variables.items():
        variable.assign(tensors[name])
    progress.restore(metadata["progress"])


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if not path.exists():
        raise RunError(f"Nothing to resume: {path} is missing. Train anew with --overwrite.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata["progress"] = json.loads(metadata["progress"])
        whole = metadata["tensors_sha256"] == tensors_sha256(tensors)
        version = int(metadata["schema_version"])
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise RunError(
            f"{path} is damaged: {error}. Restore it from a copy, or train anew with --overwrite."
        ) from error
    if version > _SCHEMA_VERSION:
        raise RunError(f"{path} was written by a newer textgen: upgrade to resume it.")
    if version < _SCHEMA_VERSION:
        raise RunError(
            f"{path} was written by an older textgen, whose checkpoints named the layers "
            "differently. Its weights can be used as ever; to go on, train anew with --overwrite."
        )
    if not whole:
        raise RunError(f"{path} is damaged: its hash is another. Restore it from a copy.")
    return tensors, metadata


def _named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return every variable of training by a name that is the same in the next process."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    own = {id(variable) for variable in optimizer.variables}
    scale = [variable for variable in model.optimizer.variables if id(variable) not in own]
    groups = {"model": model.variables, "optimizer": optimizer.variables, _SCALE: scale}
    metrics = {id(variable) for metric in model.metrics for variable in metric.variables}
    return {
        f"{group}.{number:03d}.{variable.name}": variable
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
        if id(variable) not in metrics
    }

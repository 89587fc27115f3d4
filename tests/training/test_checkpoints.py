"""Checkpoints: the training state is restored bit for bit; other files are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from tests.training.helpers import assert_bitwise_equal, make_model, make_windows
from textgen.config import ModelConfig
from textgen.errors import RunError
from textgen.storage import tensors_sha256
from textgen.training.checkpoints import SCHEMA_VERSION, load_checkpoint, save_checkpoint

# Every kind of variable: average, resets, dropout's generators, learned initial state.
PARTS = {"ema_decay": 0.9, "state_reset_probability": 0.3}
LEARNED = ModelConfig(initial_state="learned", num_layers=2, output_gate=True)


def trained(model_config=LEARNED, steps=3, **training):
    model = make_model(model_config, **(PARTS | training))
    for window in make_windows(steps):
        model.train_step(window)
    model.progress.count_steps(steps)
    model.progress.record_validation(1.25)
    return model


def read(path):
    """The tensors and the metadata of a checkpoint."""
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def rewrite(path, *, rename=lambda name: name, **metadata):
    """Replace names and metadata of a checkpoint, with a matching hash."""
    tensors, stored = read(path)
    tensors = {rename(name): tensor for name, tensor in tensors.items()}
    stored |= {"tensors_sha256": tensors_sha256(tensors)} | metadata
    path.write_bytes(safetensors.numpy.save(tensors, stored))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "latest.safetensors"
    model = trained()
    save_checkpoint(path, model, model.progress, "a tokenizer")
    return path


def load(path, model=None, fingerprint="a tokenizer"):
    model = model or make_model(LEARNED, **PARTS)
    load_checkpoint(path, model, model.progress, fingerprint)
    return model


def test_a_checkpoint_is_loaded_and_saved_again_bit_for_bit(path, tmp_path):
    again = tmp_path / "again.safetensors"
    model = load(path)
    save_checkpoint(again, model, model.progress, "a tokenizer")
    assert_bitwise_equal(read(path)[0], read(again)[0])
    assert (model.progress.step, model.progress.best_loss, model.progress.best_step) == (3, 1.25, 3)


def test_training_continues_as_if_it_had_not_stopped(path):
    whole = trained(steps=3)
    resumed = load(path)
    for window in make_windows(4, seed=8):
        whole.train_step(window)
        resumed.train_step(window)
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        if "seed_generator" not in one.path:
            np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)


def test_the_checkpoint_of_the_previous_version_is_loaded(path):
    expected = load(path).variables

    def old_name(name):
        return name.replace("learned_initial_state", "first_state")

    rewrite(path, rename=old_name, schema_version="2")
    # The variable, its moving average and its two moments.
    assert sum("first_state" in name for name in read(path)[0]) == 4
    for variable, other in zip(expected, load(path).variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), other.numpy(), err_msg=variable.path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"schema_version": "1"}, "at least 2.*Received: 1"),
        ({"schema_version": str(SCHEMA_VERSION + 1)}, f"at most {SCHEMA_VERSION}"),
        ({"schema_version": "three"}, "no schema_version"),
        ({"progress": "[]"}, r"object, not \[\]"),
        ({"progress": json.dumps({"step": 1})}, "seconds"),
        ({"progress": "{"}, "damaged"),
        ({"progress": "[" * 100_000}, "damaged"),
        ({"tensors_sha256": "0"}, "do not match their sha256"),
    ],
)
def test_metadata_of_another_format_is_refused(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(RunError, match=message):
        load(path)


def test_a_damaged_or_missing_file_is_refused(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=r"damaged.*`overwrite`"):
        load(path)
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    with pytest.raises(RunError, match=r"damaged.*`overwrite`"):
        load(path)
    path.unlink()
    with pytest.raises(RunError, match=r"nothing to resume.*`overwrite`"):
        load(path)


def test_another_tokenizer_is_refused(path):
    with pytest.raises(RunError, match=r"Received: a checkpoint of another tokenizer\. Restore"):
        load(path, fingerprint="another")


def test_a_model_of_other_parts_is_refused_with_the_variables_that_differ(path):
    with pytest.raises(RunError, match=r"missing none; unknown model\.learned_initial_state, "):
        load(path, make_model(ModelConfig(num_layers=2, output_gate=True), **PARTS))
    with pytest.raises(RunError, match=r"missing model\.bias, .*, \d+ more; unknown none\."):
        load(path, make_model(replace(LEARNED, num_layers=3), **PARTS))


def test_a_tensor_of_another_shape_is_refused(path):
    tensors, metadata = read(path)
    name = next(name for name in tensors if name.endswith("embeddings"))
    tensors[name] = tensors[name][:-1]
    metadata["tensors_sha256"] = tensors_sha256(tensors)
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
    with pytest.raises(RunError, match=r"embeddings must have the shape \(7, 4\).*\(6, 4\)"):
        load(path)


@pytest.mark.parametrize("first, then", [("float16", "float32"), ("float32", "float16")])
def test_only_the_loss_scale_may_be_missing_or_unknown(tmp_path, first, then):
    path = tmp_path / "latest.safetensors"
    model = trained(matmul_dtype=first)
    save_checkpoint(path, model, model.progress, "a tokenizer")
    other = load(path, make_model(LEARNED, matmul_dtype=then, **PARTS))
    trainable = (m.language_model.trainable_variables for m in (model, other))
    for one, loaded in zip(*trainable, strict=True):
        np.testing.assert_array_equal(one.numpy(), loaded.numpy())

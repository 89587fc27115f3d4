"""The file of quantized weights: round trips bit for bit, stale files, and refusal of others."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.builders import make_quantized, make_weights
from textgen.errors import RunError
from textgen.models.quantized import QuantizationLoss
from textgen.models.quantized_file import load_quantized, serialize_quantized
from textgen.storage import tensors_sha256

FORMATS = ("int8", "int4")
LOSS = QuantizationLoss(float32=1.1, quantized=1.1000000000000003)


@pytest.fixture(params=FORMATS)
def quantized(request):
    weights = make_weights(num_layers=2, cell="lstm", hidden_size=40)
    return replace(make_quantized(weights, request.param), loss=LOSS)


def metadata_of(content):
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header["__metadata__"]


def write(folder, quantized, metadata=None, tensors=None):
    """Write a file with some entries replaced and a matching hash."""
    content = serialize_quantized(quantized)
    tensors = load(content) | (tensors or {})
    tensors = {name: array for name, array in tensors.items() if array is not None}
    entries = metadata_of(content) | {"tensors_sha256": tensors_sha256(tensors)}
    entries = {k: v for k, v in (entries | (metadata or {})).items() if v is not None}
    path = folder / f"{quantized.weights_format}.safetensors"
    path.write_bytes(save(tensors, entries))
    return path


def read(path, quantized):
    return load_quantized(path, quantized.weights_format, quantized.weights_sha256)


@pytest.mark.parametrize("loss", [LOSS, None])
def test_arrays_and_losses_are_loaded_unchanged(tmp_path, quantized, loss):
    quantized = replace(quantized, loss=loss)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(serialize_quantized(quantized))
    loaded = read(path, quantized)
    assert loaded.loss == loss
    assert loaded.weights_format == quantized.weights_format
    for actual, expected in zip(loaded.products, quantized.products, strict=True):
        assert type(actual) is type(expected)
        assert vars(actual).keys() == vars(expected).keys()
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(actual, name), value)
    assert serialize_quantized(loaded) == path.read_bytes()


def test_equal_weights_give_equal_bytes(quantized):
    assert serialize_quantized(quantized) == serialize_quantized(replace(quantized))


def test_the_metadata_has_the_documented_entries(quantized):
    metadata = metadata_of(serialize_quantized(quantized))
    tensors = load(serialize_quantized(quantized))
    assert metadata == {
        "schema_version": "1",
        "format": quantized.weights_format,
        "rows": "40",
        "weights_sha256": quantized.weights_sha256,
        "tensors_sha256": tensors_sha256(tensors),
        "loss_float32": "1.1",
        "loss_quantized": "1.1000000000000003",
    }
    assert len(tensors) == 4


def test_a_missing_file_and_a_stale_file_give_none(tmp_path, quantized):
    assert read(tmp_path / "missing.safetensors", quantized) is None
    path = write(tmp_path, quantized)
    assert load_quantized(path, quantized.weights_format, "another hash") is None


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"schema_version": None}, "it has no schema_version. Delete it: "),
        ({"schema_version": "2"}, "must be at most 1. Received: 2"),
        ({"tensors_sha256": "0"}, "sha256"),
        ({"tensors_sha256": None}, "sha256"),
        ({"format": "int3"}, "its format must be int., not int3"),
        ({"loss_float32": "low"}, "could not convert"),
        ({"loss_float32": None}, "two numbers"),
        ({"rows": "many"}, "invalid literal"),
        ({"rows": None}, "it lacks 'rows'"),
    ],
)
def test_wrong_metadata_is_refused(tmp_path, quantized, metadata, message):
    with pytest.raises(RunError, match=message):
        read(write(tmp_path, quantized, metadata), quantized)


@pytest.mark.parametrize(
    "tensors",
    [
        {"product_0.scales": None},
        {"extra": np.zeros(1, np.float32)},
        {"product_0.scales": np.full(3, np.inf, np.float32)},
        {"product_1.scales": np.zeros((1, 1), np.float64)},
    ],
    ids=str,
)
def test_tensors_of_another_form_are_refused_with_a_way_out(tmp_path, quantized, tensors):
    path = write(tmp_path, quantized, tensors=tensors)
    with pytest.raises(RunError, match=rf"{path.name} is damaged: .* Delete it: "):
        read(path, quantized)


@pytest.mark.parametrize("size", [0, 7, 200, -1])
def test_a_truncated_file_is_refused_with_a_way_out(tmp_path, quantized, size):
    path = write(tmp_path, quantized)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunError, match=r"is damaged: .* Delete it: "):
        read(path, quantized)


def test_a_flipped_bit_of_the_tensors_is_detected(tmp_path, quantized):
    path = write(tmp_path, quantized)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for position in np.random.default_rng(0).integers(start, len(content), 20):
        changed = bytearray(content)
        changed[position] ^= 16
        path.write_bytes(changed)
        with pytest.raises(RunError, match="sha256"):
            read(path, quantized)

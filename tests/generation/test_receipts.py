"""Receipts: saved and loaded unchanged, read from older schemas, refused if damaged."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgen.config import DynamicConfig, SamplingConfig
from textgen.errors import ConfigError, RunError
from textgen.generation import Request
from textgen.generation.receipts import Adaptation, Receipt, installed_versions, text_hashes
from textgen.version import __version__

RECEIPT = Receipt(
    run="runs/tales",
    weights_sha256="a" * 64,
    tokenizer_sha256="b" * 64,
    engine="onnx",
    weights_format="int8",
    unknown="skip",
    requests=(
        Request(prompt="Once", sampling=SamplingConfig(stop=("\n", "The end"), bias=("a=-2",))),
        Request(prompt="漢 \x00", sampling=SamplingConfig(temperature=0), sample_index=3),
    ),
    text_sha256=("c" * 64, "d" * 64),
    versions={"textgen": "0.1.0", "numpy": "2.0"},
    adaptations=(
        Adaptation(
            text="owls dream",
            passes=2,
            settings=DynamicConfig(segment=16, clip_norm=None),
            unknown="error",
            weights_sha256="e" * 64,
        ),
    ),
)
# As schema 2 was written: other names of the format, and of the sample's index.
OLD_NAMES = {"weights_format": "weights", "sample_index": "row"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "receipt.json"


def old_values(receipt, schema_version):
    """The content of the file that an older version wrote."""

    def renamed(values):
        return {OLD_NAMES.get(name, name): value for name, value in values.items()}

    values = renamed(asdict(receipt)) | {"schema_version": schema_version}
    values["requests"] = [renamed(request) for request in values["requests"]]
    if schema_version < 2:
        del values["adaptations"]
    return values


def test_a_saved_receipt_is_loaded_unchanged_with_its_schema(path):
    RECEIPT.save(path)
    assert Receipt.load(path) == RECEIPT
    assert json.loads(path.read_text("utf-8"))["schema_version"] == 3


@pytest.mark.parametrize("schema_version", [1, 2])
def test_a_receipt_of_an_older_schema_is_loaded_under_the_present_names(path, schema_version):
    receipt = RECEIPT if schema_version > 1 else replace(RECEIPT, adaptations=())
    path.write_text(json.dumps(old_values(receipt, schema_version)), "utf-8")
    assert Receipt.load(path) == receipt


def test_a_setting_that_an_older_receipt_lacks_has_its_default(path):
    values = old_values(RECEIPT, 2)
    for request in values["requests"]:
        del request["sampling"]["stop_at_document"]
    path.write_text(json.dumps(values), "utf-8")
    assert Receipt.load(path) == RECEIPT


def test_a_newer_schema_is_refused(path):
    path.write_text(json.dumps(asdict(RECEIPT) | {"schema_version": 4}), "utf-8")
    with pytest.raises(RunError, match=r"at most 3\. Received: 4"):
        Receipt.load(path)


def every_place(values, place=()):
    """The places of all values in nested dictionaries and lists."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for name, value in items:
        yield (*place, name)
        if isinstance(value, dict | list):
            yield from every_place(value, (*place, name))


VALUES = json.loads(json.dumps(asdict(RECEIPT) | {"schema_version": 3}))


@given(place=st.sampled_from(list(every_place(VALUES))), value=st.sampled_from([[], {}, True, 1.5]))
def test_a_value_of_another_type_is_refused_in_one_line(tmp_path_factory, place, value):
    damaged = json.loads(json.dumps(VALUES))
    *parents, last = place
    parent = damaged
    for name in parents:
        parent = parent[name]
    before, parent[last] = parent[last], value
    if type(before) is type(value) or (value == 1.5 and isinstance(before, int | float | None)):
        return
    path = tmp_path_factory.mktemp("receipts") / "receipt.json"
    path.write_text(json.dumps(damaged), "utf-8")
    with pytest.raises(ConfigError, match=r"receipt\.json is not a receipt: ") as error:
        Receipt.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in VALUES if name != "schema_version"])
def test_a_receipt_without_a_key_is_refused(path, name):
    values = {key: value for key, value in VALUES.items() if key != name}
    path.write_text(json.dumps(values), "utf-8")
    if name == "adaptations":
        assert Receipt.load(path) == replace(RECEIPT, adaptations=())
    else:
        with pytest.raises(ConfigError, match="is not a receipt"):
            Receipt.load(path)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", RunError),
        ("nonsense", RunError),
        ("[" * 5_000, RunError),
        ("[]", RunError),
        ("{}", ConfigError),
        ('{"schema_version": "3"}', ConfigError),
        ('{"schema_version": 3}', ConfigError),
        (json.dumps(VALUES | {"surplus": 1}), ConfigError),
        (json.dumps(VALUES | {"text_sha256": ["c"]}), ConfigError),
        (json.dumps(VALUES | {"engine": "abacus"}), ConfigError),
        (json.dumps(VALUES | {"requests": [{"row": 0}] * 2}), ConfigError),
    ],
)
def test_what_is_no_receipt_is_refused_in_one_line(path, content, error):
    path.write_text(content, "utf-8")
    with pytest.raises(error, match=r"receipt\.json") as caught:
        Receipt.load(path)
    assert "\n" not in str(caught.value)


def test_its_path_is_a_string_or_a_path(path):
    RECEIPT.save(str(path))
    assert Receipt.load(str(path)) == RECEIPT
    for call in (Receipt.load, RECEIPT.save):
        with pytest.raises(ConfigError, match=r"`path` must be a string or a Path\. Received: 5 "):
            call(5)


def test_a_missing_file_is_reported_as_missing(path):
    with pytest.raises(RunError, match=r"The receipt .*receipt\.json does not exist"):
        Receipt.load(path)


def test_every_difference_is_reported_and_versions_are_not_compared():
    assert RECEIPT.differences(replace(RECEIPT, versions={}, run="elsewhere")) == []
    other = replace(RECEIPT, weights_sha256="0", engine="numpy", text_sha256=("c" * 64, "0"))
    assert RECEIPT.differences(other) == [
        "the model is another",
        "the engine is another",
        "text 2 differs",
    ]
    other = replace(RECEIPT, tokenizer_sha256="0", weights_format="int4", text_sha256=("0", "1"))
    assert RECEIPT.differences(other) == [
        "the tokenizer is another",
        "the format of the weights is another",
        "text 1, 2 differs",
    ]


def test_text_hashes_are_sha256_of_utf8():
    # echo -n "" | sha256sum; echo -n "é" | sha256sum
    assert text_hashes(["", "é"]) == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c",
    )


def test_versions_are_of_textgen_and_of_installed_packages():
    versions = installed_versions()
    assert versions["textgen"] == __version__
    assert (
        {"numpy", "onnxruntime"}
        <= set(versions)
        <= {"textgen", "numpy", "onnxruntime", "tensorflow"}
    )

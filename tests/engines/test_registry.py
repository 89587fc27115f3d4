"""Engines by name, the choice between them, and the pool that makes each of them once."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from tests.builders import make_quantized
from textgen.config import EngineName, SamplingConfig
from textgen.engines import EnginePool, choose_engine, make_engine, registry, require_engine
from textgen.engines.numpy_engine import NumpyEngine
from textgen.engines.onnx.engine import OnnxEngine
from textgen.engines.reference_engine import ReferenceEngine
from textgen.engines.tensorflow_engine import TensorFlowEngine
from textgen.errors import ConfigError

CLASSES = {
    "auto": OnnxEngine,
    "numpy": NumpyEngine,
    "onnx": OnnxEngine,
    "reference": ReferenceEngine,
    "tensorflow": TensorFlowEngine,
}


@pytest.mark.parametrize("name", get_args(EngineName))
def test_every_name_of_the_setting_makes_its_engine(random_weights, name):
    assert type(make_engine(name, random_weights())) is CLASSES[name]


def test_an_unknown_engine_or_format_is_refused(random_weights):
    message = "`engine` must be auto, numpy, onnx, reference or tensorflow. Received: 'torch'"
    with pytest.raises(ConfigError, match=message):
        make_engine("torch", random_weights())
    with pytest.raises(ConfigError, match=message):
        EnginePool(random_weights(), preferred="torch")
    with pytest.raises(ConfigError, match="`weights_format` must be float32, int8 or int4"):
        require_engine("onnx", "int3")


@pytest.mark.parametrize("name", ["numpy", "reference", "tensorflow"])
def test_only_onnx_computes_with_quantized_weights(random_weights, name):
    weights = random_weights()
    quantized = make_quantized(weights, "int8")
    message = f"`weights_format` must be float32 with the engine {name}. Received: int8"
    with pytest.raises(ConfigError, match=message):
        require_engine(name, "int8")
    with pytest.raises(ConfigError, match=message):
        make_engine(name, weights, quantized)
    with pytest.raises(ConfigError, match=message):
        EnginePool(weights, quantized, preferred=name)
    require_engine(name, "float32")
    for other in ("auto", "onnx"):
        require_engine(other, "int8")
        assert isinstance(make_engine(other, weights, quantized), OnnxEngine)


@pytest.mark.parametrize(
    "hidden_size, weights_format, num_streams, max_new_tokens, stepwise, name",
    [
        (6, "float32", 1, 500, False, "numpy"),
        (6, "float32", 1, 5_000, False, "onnx"),
        (6, "float32", 8, 500, False, "onnx"),
        (6, "float32", 8, 500, True, "numpy"),
        (6, "int8", 1, 500, True, "onnx"),
        (512, "float32", 1, 5_000, False, "numpy"),
        (512, "float32", 2, 5_000, False, "onnx"),
    ],
)
def test_auto_chooses_by_the_measured_crossing_points(
    random_weights, hidden_size, weights_format, num_streams, max_new_tokens, stepwise, name
):
    weights = random_weights(hidden_size=hidden_size)
    choice = choose_engine(weights, weights_format, num_streams, max_new_tokens, stepwise=stepwise)
    assert choice == name


@pytest.mark.parametrize(
    ("settings", "stepwise", "name"),
    [
        ([{}], False, "numpy"),
        ([{"max_new_tokens": 9_000}], False, "onnx"),
        ([{}, {"max_new_tokens": 9_000}], False, "onnx"),
        ([{}, {}], False, "onnx"),
        ([{}, {}], True, "numpy"),
        ([{}, {"mirostat": 3.0}], False, "numpy"),
        ([{}, {"stop": ("a",), "ban": ("b",), "top_k": 3}], False, "onnx"),
        ([], False, "onnx"),
    ],
)
def test_a_pool_chooses_by_its_requests(random_weights, settings, stepwise, name):
    pool = EnginePool(random_weights())
    samplings = [SamplingConfig(**values) for values in settings]
    assert pool.choose(samplings, stepwise=stepwise) == name
    chosen = EnginePool(random_weights(), preferred="reference")
    assert chosen.choose(samplings, stepwise=stepwise) == "reference"


def test_a_pool_makes_each_engine_once_even_for_many_threads(random_weights, monkeypatch):
    made = []
    make = registry.make_engine
    monkeypatch.setattr(
        registry, "make_engine", lambda *arguments: made.append(arguments[0]) or make(*arguments)
    )
    pool = EnginePool(random_weights())
    with ThreadPoolExecutor(8) as threads:
        engines = list(threads.map(pool.engine, ["numpy", "onnx", "auto", None] * 8))
    assert sorted(made) == ["numpy", "onnx"]
    assert len(set(map(id, engines))) == 2
    assert pool.engine() is pool.engine("onnx") is pool.engine("auto")


def test_the_engines_of_a_pool_have_its_format(random_weights):
    weights = random_weights()
    quantized = make_quantized(weights, "int4")
    pool = EnginePool(weights, quantized, preferred="onnx")
    assert pool.weights_format == "int4"
    assert EnginePool(weights).weights_format == "float32"
    with pytest.raises(ConfigError, match="`weights_format` must be float32 with the engine numpy"):
        pool.engine("numpy")
    assert EnginePool(weights, preferred="numpy").engine() is not pool.engine()


def test_a_pool_prints_without_its_arrays(random_weights):
    weights = random_weights()
    assert repr(EnginePool(weights)) == "EnginePool(float32, preferred='auto')"
    pool = EnginePool(weights, make_quantized(weights, "int4"), preferred="onnx")
    assert repr(pool) == "EnginePool(int4, preferred='onnx')"


def test_choosing_and_making_the_numpy_engine_imports_no_onnx():
    code = """
import sys
from tests.builders import make_weights
from textgen.config import SamplingConfig
from textgen.engines import EnginePool
pool = EnginePool(make_weights())
pool.engine(pool.choose([SamplingConfig()]))
print(sorted({"onnx", "onnxruntime", "tensorflow"} & set(sys.modules)))
"""
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"

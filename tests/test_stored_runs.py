"""Runs made by earlier versions: they load, generate and score as they did, and resume.

Each folder in `tests/stored_runs` is a run directory as the version before schema 2 wrote it, and
`expected.json`, which that version computed from it. No uniform of the stored texts is closer than
4e-5 to a boundary of the cumulative probabilities, which float32 rounding moves by about 1e-6, so
the texts are the same on every CPU.
"""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import textgen
from textgen.config import SamplingConfig
from textgen.runs import RunDirectory

STORED_RUNS = Path(__file__).parent / "stored_runs"
NAMES = ("gru_learned_schema_1", "subword_lstm_schema_1")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def expected(name):
    return json.loads((STORED_RUNS / name / "expected.json").read_text("utf-8"))


@pytest.fixture
def run(name, tmp_path):
    """A copy of a stored run."""
    ignore = shutil.ignore_patterns("expected.json")
    return RunDirectory(shutil.copytree(STORED_RUNS / name, tmp_path / "run", ignore=ignore))


@pytest.mark.parametrize("engine", ["numpy", "onnx", "reference"])
def test_the_same_seed_gives_the_same_text(run, expected, engine):
    model = textgen.load(run.path, engine=engine)
    assert model.generate("", SamplingConfig(**expected["sampling"])) == expected["text"]


def test_the_validation_split_has_the_same_score(run, expected):
    score = textgen.load(run.path).score_split("validation")
    # The engines of both versions compute in float32.
    assert score.loss == pytest.approx(expected["validation"]["loss"], abs=1e-5)
    assert score.bits_per_char == pytest.approx(expected["validation"]["bits_per_char"], abs=2e-5)
    assert score.tokens == expected["validation"]["tokens"]


def test_settings_have_their_present_names():
    config = RunDirectory(STORED_RUNS / NAMES[0]).read_config()
    model, training = config.model, config.training
    assert (model.initial_state, model.forget_bias, model.output_gate) == ("learned", 1.0, True)
    assert (training.ema_decay, training.state_reset_probability) == (0.9, 0.1)
    assert (training.activation_penalty, training.temporal_penalty) == (0.5, 0.5)
    assert (training.kernel, training.matmul_dtype) == ("fused", "float32")
    assert config.corpus.document_end == "<|end|>"
    config = RunDirectory(STORED_RUNS / NAMES[1]).read_config()
    assert (config.tokenizer.tokenizer, config.model.cell) == ("subword", "lstm")


def test_the_environment_has_its_present_names(run):
    environment = run.read_environment()
    assert (environment["kernel"], environment["kernel_reason"]) == ("fused", "asked for")
    assert environment["matmul_dtype"] == "float32"
    assert environment["matmul_dtype_reason"] == "asked for"
    assert not {"gru_kernel", "gru_kernel_reason", "precision"} & set(environment)


def test_training_resumes_for_one_more_epoch(run):
    from textgen.training import resume

    before = run.read_metrics()
    config = run.read_config()
    training = replace(config.training, epochs=config.training.epochs + 1)
    resume(run.path, training=training)
    rows = run.read_metrics()
    assert rows[: len(before)] == before
    last = rows[-1]
    steps_per_epoch = before[-1]["step"] // config.training.epochs
    assert last["step"] == before[-1]["step"] + steps_per_epoch
    assert last["epoch"] == config.training.epochs + 1
    # Training continued from the stored weights and moments, not from new ones: one epoch at the
    # lowest learning rate changes the loss by less than 0.02 nats.
    assert math.isfinite(last["loss"])
    assert last["validation_loss"] == pytest.approx(before[-1]["validation_loss"], abs=0.02)
    assert json.loads((run.path / "config.json").read_text("utf-8"))["schema_version"] == 2

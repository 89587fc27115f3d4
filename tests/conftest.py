"""Shared fixtures: a tiny trained run, models and a tokenizer; quiet TensorFlow."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import hypothesis
import pytest

from tests.builders import (
    FEW_MODELS,
    MODELS,
    PieceTokenizer,
    make_lively_weights,
    make_weights,
)
from textgen.config import ModelConfig, RunConfig, TrainingConfig

# The same examples in every run, and no limit on their time: a test reads neither seed nor clock.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

TEXT = "".join(
    f"{number} green bottles hang on the wall, and {number % 7} of them fall.\n"
    for number in range(120)
)


@pytest.fixture(scope="session")
def tiny_config():
    """A model that trains in a second."""
    return RunConfig(
        model=ModelConfig(embedding_dim=8, hidden_size=16, dropout=0.3),
        training=TrainingConfig(
            batch_size=8,
            seq_len=20,
            epochs=2,
            validate_every=36,
            learning_rate=0.01,
            warmup_steps=2,
            sample_length=10,
        ),
    )


@pytest.fixture(scope="session")
def text():
    """A text that is easy to learn."""
    return TEXT


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tmp_path_factory):
    """A run that was trained for two epochs; tests must not change it."""
    from textgen.training import train

    return train(tiny_config, tmp_path_factory.mktemp("runs") / "tiny", text=TEXT)


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def parts(request):
    """Every kind of model, as arguments of `random_weights`."""
    return request.param


@pytest.fixture(params=FEW_MODELS.values(), ids=FEW_MODELS)
def few_parts(request):
    """Each cell plain, in one layer and in three, and with everything."""
    return request.param


@pytest.fixture
def random_weights():
    return make_weights


@pytest.fixture
def lively_weights():
    return make_lively_weights


@pytest.fixture
def tokenizer():
    return PieceTokenizer()

"""Helpers of the training tests: a manual clock, interruption, small compiled models."""

import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import safetensors.numpy

from textgen.config import ModelConfig, TrainingConfig
from textgen.corpora import TokenizedCorpus
from textgen.models.kernels import Execution
from textgen.models.language_model import build_language_model
from textgen.training.carried_state import CarriedStateModel
from textgen.training.optimizer import make_optimizer
from textgen.training.progress import Progress

FLOAT32 = Execution(kernel="reference", matmul_dtype="float32")
VOCAB_SIZE = 7
LANES = 3


class Clock:
    """A clock that only moves when a test moves it."""

    def __init__(self, now=100.0):
        self.now = now

    def __call__(self):
        return self.now


class CallAtStep(keras.callbacks.Callback):
    """Calls `action` once, after the call of the step function that reaches `step`."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_end(self, batch, logs=None):
        if self.action is not None and self.model.progress.step >= self.step:
            action, self.action = self.action, None
            action()


def interrupt():
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def with_training(config, **changes):
    return replace(config, training=replace(config.training, **changes))


def read_checkpoint(run):
    return safetensors.numpy.load_file(run.checkpoint_path)


def assert_bitwise_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def make_corpus(train=50, validation=20, characters_per_token=2):
    """Random token ids; every token represents `characters_per_token` ASCII characters."""
    draw = np.random.default_rng(0).integers
    counts = {
        "train_characters": characters_per_token * train,
        "train_bytes": characters_per_token * train,
        "validation_characters": characters_per_token * validation,
        "validation_bytes": characters_per_token * validation,
    }
    return TokenizedCorpus(
        train=draw(0, VOCAB_SIZE, train).astype(np.uint8),
        validation=draw(0, VOCAB_SIZE, validation).astype(np.uint8),
        **counts,
    )


def make_model(model=None, *, optimizer=None, matmul_dtype="float32", compiled=True, **training):
    """A small compiled model on three lanes, in float32 and without dropout."""
    config = TrainingConfig(**({"learning_rate": 0.01} | training))
    model = replace(model or ModelConfig(), embedding_dim=4, hidden_size=5, dropout=0.0)
    carried = CarriedStateModel(
        build_language_model(model, VOCAB_SIZE, seed=config.seed, execution=FLOAT32),
        config,
        make_corpus(),
        batch_size=LANES,
        validation_lanes=1,
        progress=Progress(total_steps=10, tokens_per_step=12, clock=Clock()),
    )
    if compiled:
        optimizer = optimizer or make_optimizer(config, matmul_dtype)
        carried.compile(optimizer=optimizer, jit_compile=False, steps_per_execution=4)
        carried.optimizer.build(carried.language_model.trainable_variables)
    return carried


def make_windows(count, *, lanes=LANES, time=4, seed=0, restart_first=True):
    """Random windows as `fit` takes them: `({"token_ids", "restart"}, targets)`."""
    token_ids = np.random.default_rng(seed).integers(0, VOCAB_SIZE, (count, lanes, time + 1))
    return [
        (
            {"token_ids": ids[:, :-1].astype(np.int32), "restart": restart_first and index == 0},
            ids[:, 1:].astype(np.int32),
        )
        for index, ids in enumerate(token_ids)
    ]


def fake_model(**attributes):
    """A stand-in for `keras.Model` with the attributes that a callback uses."""
    return SimpleNamespace(stop_training=False, **attributes)

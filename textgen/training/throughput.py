"""Measured training throughput of a model on this machine."""

import statistics
import time
from collections.abc import Callable

import tensorflow as tf

from textgen.config import ModelConfig, TrainingConfig
from textgen.models.kernels import Execution
from textgen.models.language_model import build_language_model
from textgen.training.optimizer import make_optimizer

_NUM_STEPS = 5


def measure_tokens_per_second(
    model_config: ModelConfig,
    vocab_size: int,
    training: TrainingConfig,
    execution: Execution,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Time whole training steps on random tokens.

    Args:
        model_config: Sizes and dropout.
        vocab_size: Number of token ids.
        training: Batch size, window length and the optimizer's settings.
        execution: Kernel and matmul dtype.
        clock: Returns monotonic seconds; read before and after each step.

    Returns:
        Tokens per second, from the median of five steps that follow the first, which traces.
    """
    model = build_language_model(model_config, vocab_size, execution=execution)
    optimizer = make_optimizer(training, execution.matmul_dtype)
    optimizer.build(model.trainable_variables)

    def step(tokens: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses, state = model.token_losses(tokens, tokens, state, training=True)
            loss = optimizer.scale_loss(tf.reduce_mean(losses))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return state

    compiled = tf.function(step)
    shape = [training.batch_size, training.seq_len]
    tokens = tf.random.stateless_uniform(shape, [1, 2], 0, vocab_size, tf.int32)
    state = compiled(tokens, model.initial_state(training.batch_size))
    seconds = []
    for _ in range(_NUM_STEPS):
        started = clock()
        state = compiled(tokens, state)
        state.numpy()
        seconds.append(clock() - started)
    return training.batch_size * training.seq_len / statistics.median(seconds)

"""How many tokens a second a model trains on this machine, by trying."""

import statistics
import time

import tensorflow as tf

from textgen.config import ModelConfig, TrainingConfig
from textgen.models.kernels import Execution
from textgen.models.language_model import build_language_model
from textgen.training.optimizer import make_optimizer

_STEPS = 5


def measure_tokens_per_second(
    model_config: ModelConfig, vocab_size: int, training: TrainingConfig, execution: Execution
) -> float:
    """Time whole training steps on random tokens.

    Args:
        model_config: Sizes and dropout.
        vocab_size: Number of token ids.
        training: Batch size, window length and the optimizer's settings.
        execution: The kernel and precision to try.

    Returns:
        Tokens per second, from the median of a few steps after the first, which traces.
    """
    model = build_language_model(model_config, vocab_size, execution=execution)
    optimizer = make_optimizer(training, execution.precision)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(tokens, state):
        with tf.GradientTape() as tape:
            losses, state = model.token_losses(tokens, tokens, state, training=True)
            loss = optimizer.scale_loss(tf.reduce_mean(losses))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return state

    shape = [training.batch_size, training.seq_len]
    tokens = tf.random.stateless_uniform(shape, [1, 2], 0, vocab_size, tf.int32)
    state = step(tokens, model.initial_state(training.batch_size))
    seconds = []
    for _ in range(_STEPS):
        begun = time.perf_counter()
        state = step(tokens, state)
        state.numpy()
        seconds.append(time.perf_counter() - begun)
    return tokens.shape.num_elements() / statistics.median(seconds)

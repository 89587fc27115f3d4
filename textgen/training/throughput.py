"""How many tokens a second a model trains on this machine, by trying; and sizes chosen by it."""

import logging
import statistics
import time
from dataclasses import replace

import tensorflow as tf

from textgen.config import ModelConfig, RunConfig, TrainingConfig
from textgen.corpora import split_text
from textgen.models.kernels import Execution, choose_execution, limit_threads
from textgen.models.language_model import build_language_model
from textgen.training.optimizer import make_optimizer
from textgen.training.sizing import CHOSEN, DEFAULT_MINUTES, REFERENCE, choose_settings

_STEPS = 5
_CHARACTERS_PER_SUBWORD = 3.0
_log = logging.getLogger("textgen")


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
    optimizer = make_optimizer(training, execution.matmul_dtype)
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


def size_to_fit(config: RunConfig, text: str) -> RunConfig:
    """Return the settings of the preset `auto` for a text, a time and this machine.

    A few training steps of a reference model are timed, some seconds in all.

    Args:
        config: Gives corpus, tokenizer, kernel, precision and `max_minutes` (3 if None).
        text: The whole corpus.

    Returns:
        `config` with sizes, dropout, schedule and limits chosen.

    Raises:
        CorpusError: The text is too short to be split.
        DeviceError: The kernel or the precision cannot be had here.
    """
    asked = config.training
    limit_threads()
    execution = choose_execution(asked.kernel, asked.matmul_dtype)
    training_text, _ = split_text(text, config.corpus.validation_fraction)
    characters = config.tokenizer.tokenizer == "char"
    vocab_size = len(set(text)) if characters else config.tokenizer.vocab_size
    tokens = len(training_text) / (1.0 if characters else _CHARACTERS_PER_SUBWORD)
    rate = measure_tokens_per_second(REFERENCE.model, vocab_size, REFERENCE.training, execution)
    chosen = choose_settings(
        tokens=round(tokens),
        vocab_size=vocab_size,
        minutes=asked.max_minutes or DEFAULT_MINUTES,
        tokens_per_second=rate,
    )
    _log.info("auto: this machine trains 512 units on %s tokens per second", f"{rate:,.0f}")
    found = {name: getattr(chosen.training, name) for name in CHOSEN}
    return replace(config, model=chosen.model, training=replace(asked, **found))

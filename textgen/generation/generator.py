"""From a prompt to new text: prefill once, then draw, decode, draw, decode.

It knows tokenizers, engines and samplers by their protocols. It does NOT know where a
model lies on disk, how an engine computes, or who reads the text. A token costs the
same time and memory whatever has been written before it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from textgen.config import SamplingConfig, UnknownPolicy
from textgen.errors import ConfigError, RunError
from textgen.generation.engine import Engine, State
from textgen.generation.processors import ProcessorStep, build_processors
from textgen.generation.sampling import pick, pick_greedy, step_uniforms
from textgen.tokenizers.base import TextDecoder, Tokenizer


def generate(
    engine: Engine,
    tokenizer: Tokenizer,
    prompt: str,
    config: SamplingConfig,
    num_samples: int = 1,
    unknown: UnknownPolicy = "error",
) -> list[str]:
    """Write texts that go on from a prompt.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        prompt: Any text; one without tokens stands for the beginning of a text.
        config: How to draw, and how long.
        num_samples: Texts to write side by side; text `r` does not depend on how many
            there are, but for float32 rounding in the engine.
        unknown: What to do with a character of the prompt outside the vocabulary.

    Returns:
        `num_samples` texts without the prompt, of `config.max_new_tokens` tokens each.

    Raises:
        TokenizerError: The prompt has an unknown character, and `unknown` is `"error"`.
        ConfigError: `num_samples` is below 1.
        RunError: Tokenizer and engine have vocabularies of different sizes.
    """
    prompt_ids = _prompt_ids(engine, tokenizer, prompt, unknown)
    steps = generate_tokens(engine, prompt_ids, config, tokenizer.banned_ids, num_samples)
    decoders = [tokenizer.decoder() for _ in range(num_samples)]
    pieces: list[list[str]] = [[] for _ in range(num_samples)]
    for token_ids in steps:
        for row, token_id in enumerate(token_ids.tolist()):
            pieces[row].append(decoders[row].feed(token_id))
    return ["".join(row) + decoder.flush() for row, decoder in zip(pieces, decoders, strict=True)]


def stream(
    engine: Engine,
    tokenizer: Tokenizer,
    prompt: str,
    config: SamplingConfig,
    unknown: UnknownPolicy = "error",
) -> Iterator[str]:
    """Write one text piece by piece, as it comes.

    Args:
        engine: The model.
        tokenizer: The one it was trained with.
        prompt: Any text; one without tokens stands for the beginning of a text.
        config: How to draw, and how long.
        unknown: What to do with a character of the prompt outside the vocabulary.

    Returns:
        An iterator of non-empty pieces of whole characters; joined they are what
        `generate` returns for one sample. What is wrong with the arguments is raised
        by the call, not by the first piece.

    Raises:
        TokenizerError: The prompt has an unknown character, and `unknown` is `"error"`.
        RunError: Tokenizer and engine have vocabularies of different sizes.
    """
    prompt_ids = _prompt_ids(engine, tokenizer, prompt, unknown)
    steps = generate_tokens(engine, prompt_ids, config, tokenizer.banned_ids)
    return _pieces(tokenizer.decoder(), steps)


def generate_tokens(
    engine: Engine,
    prompt_ids: NDArray[np.integer],
    config: SamplingConfig,
    banned_ids: Sequence[int] = (),
    num_samples: int = 1,
) -> Iterator[NDArray[np.int32]]:
    """Draw tokens that go on from a prompt, one step at a time.

    Args:
        engine: The model.
        prompt_ids: `[time]`, at least one token. It is read once, at the first step.
        config: How to draw, and how many steps.
        banned_ids: Ids that never come, at temperature 0 neither.
        num_samples: Rows drawn side by side.

    Returns:
        An iterator of `[num_samples]` token ids, `config.max_new_tokens` of them.

    Raises:
        ConfigError: `prompt_ids` is empty, or `num_samples` is below 1.
    """
    if len(prompt_ids) == 0:
        raise ConfigError(
            "`prompt_ids` must hold at least 1 token. Received: 0. "
            "Begin with the tokenizer's start_id."
        )
    if num_samples < 1:
        raise ConfigError(
            f"`num_samples` must be at least 1. Received: {num_samples}. Pass --num-samples."
        )
    if config.max_new_tokens == 0:
        return iter(())
    return _draw(engine, prompt_ids, config, build_processors(config, banned_ids), num_samples)


def _draw(
    engine: Engine,
    prompt_ids: NDArray[np.integer],
    config: SamplingConfig,
    processors: tuple[ProcessorStep, ...],
    num_samples: int,
) -> Iterator[NDArray[np.int32]]:
    logits, state = _read_prompt(engine, prompt_ids, num_samples)
    uniforms = step_uniforms(config.seed, num_samples)
    for remaining in reversed(range(config.max_new_tokens)):
        for process in processors:
            logits = process(logits)
        token_ids = pick(logits, next(uniforms)) if config.temperature else pick_greedy(logits)
        yield token_ids
        if remaining:
            logits, state = engine.decode_step(token_ids, state)


def _read_prompt(
    engine: Engine, prompt_ids: NDArray[np.integer], num_samples: int
) -> tuple[NDArray[np.float32], State]:
    """Read the prompt as one row, whatever the number of samples, and repeat what it left."""
    logits, state = engine.prefill(prompt_ids[None, :], engine.initial_state(1))
    return np.repeat(logits, num_samples, axis=0), np.repeat(state, num_samples, axis=1)


def _pieces(decoder: TextDecoder, steps: Iterator[NDArray[np.int32]]) -> Iterator[str]:
    for token_ids in steps:
        if piece := decoder.feed(int(token_ids[0])):
            yield piece
    if rest := decoder.flush():
        yield rest


def _prompt_ids(
    engine: Engine, tokenizer: Tokenizer, prompt: str, unknown: UnknownPolicy
) -> NDArray[np.int32]:
    if tokenizer.vocab_size != engine.vocab_size:
        raise RunError(
            f"The tokenizer must have the model's {engine.vocab_size} tokens. "
            f"Received: {tokenizer.vocab_size}. Use the tokenizer it was trained with."
        )
    token_ids = tokenizer.encode(prompt, unknown)
    return token_ids if len(token_ids) else np.array([tokenizer.start_id], np.int32)

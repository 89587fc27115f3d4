"""Training from a text to a run directory, and resuming a run.

The run directory is created only after the corpus has been read and tokenized; a `Session` then
trains the model. This module does NOT know how progress is shown: callbacks show it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import keras

from textgen.config import ModelConfig, RunConfig, TrainingConfig, convert, require
from textgen.corpora import (
    LanePlan,
    TokenizedCorpus,
    plan_lanes,
    read_corpus,
    split_text,
    tokenize_corpus,
)
from textgen.errors import ConfigError, describe_value
from textgen.models.kernels import Execution, choose_execution, gpu_names, limit_threads
from textgen.models.memory import available_bytes, require_memory
from textgen.presets import require_applied
from textgen.runs import RunDirectory, unused_run
from textgen.tokenizers import Tokenizer, build_tokenizer
from textgen.training.session import Session, build_session

_log = logging.getLogger("textgen")

# The position in the corpus and the variables in a checkpoint depend on these.
_FIXED_FOR_A_RUN = (
    "batch_size",
    "seq_len",
    "seq_len_jitter",
    "seed",
    "validate_every",
    "ema_decay",
    "state_reset_probability",
)


def train(
    config: RunConfig,
    run_dir: str | Path | None = None,
    *,
    text: str | None = None,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    clock: Callable[[], float] = time.monotonic,
) -> RunDirectory:
    """Train a language model and return its run directory.

    With `epochs` as the limit, the same seed gives the same weights on the same machine; with
    `max_minutes`, the learning rate depends on the clock. On a CPU, TensorFlow's threads are
    configured for the fused kernel, unless they have already started. Keras's global seed is set.

    Args:
        config: All settings.
        run_dir: Path of the run; None: a free name under `runs/`.
        text: The corpus itself; `config.corpus.sources` then only names it.
        overwrite: Replace an existing run at `run_dir`.
        callbacks: Keras callbacks of your own. They find `loss` (nats per token) and
            `bits_per_char` in the logs, `val_loss` and `val_bits_per_char` after a
            validation, and the network at `self.model.language_model`. A "batch" is up to
            ten steps of a small model; `self.model.progress.step` is the number of steps.
        clock: Returns monotonic seconds, from which `max_minutes` is measured.

    Returns:
        The run, with the best weights by validation loss.

    Raises:
        ConfigError: An argument has the wrong type, or a setting does not fit the text.
        CorpusError: The text cannot be read or is too short.
        DeviceError: The kernel or dtype is unavailable, or the model does not fit in memory.
        RunError: `run_dir` contains something else.
        TokenizerError: No vocabulary can be built from the text.
        TrainingError: The validation loss is not finite.
        KeyboardInterrupt: Ctrl-C; the run is saved and can be resumed.
    """
    _check_train_arguments(config, run_dir, text, overwrite, callbacks)
    _check_clock(clock)
    require_applied(config)
    run = unused_run(config.corpus.sources) if run_dir is None else RunDirectory(Path(run_dir))
    run.check_free(overwrite=overwrite)
    execution = _choose_execution(config)
    tokenizer, corpus = _tokenize(config, text)
    plan = _plan(config.training, corpus)
    _require_memory(config.model, tokenizer, plan)
    run.create(overwrite=overwrite)
    _log.info("run: %s", run.path)
    try:
        run.write_config(config)
        run.write_tokenizer(tokenizer)
        run.write_corpus(corpus)
        build_session(run, config, tokenizer, corpus, plan, execution, clock=clock).fit(callbacks)
    except BaseException:
        if not run.checkpoint_path.exists() and not run.weights_path.exists():
            run.remove()
        raise
    return run


def resume(
    run_dir: str | Path,
    *,
    training: TrainingConfig | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    clock: Callable[[], float] = time.monotonic,
) -> RunDirectory:
    """Resume a run exactly where its last checkpoint was saved.

    Args:
        run_dir: Path of the run.
        training: New training settings, for example more epochs; None: the run's own. Settings
            that determine the position in the corpus or the variables of a checkpoint cannot
            change, such as `batch_size`, `seq_len`, `seed` and `ema_decay`.
        callbacks: Keras callbacks of your own.
        clock: Returns monotonic seconds, from which `max_minutes` is measured.

    Returns:
        The run.

    Raises:
        RunError: There is no run, or it has no checkpoint, or it is damaged.
        ConfigError: An argument has the wrong type, or a setting was changed that cannot change
            within a run.
        DeviceError: The kernel or dtype is unavailable, or the model does not fit in memory.
        TrainingError: The validation loss is not finite.
        KeyboardInterrupt: Ctrl-C; the run is saved and can be resumed.
    """
    convert(run_dir, str | Path, "run_dir")
    convert(training, TrainingConfig | None, "training")
    _check_callbacks(callbacks)
    _check_clock(clock)
    run = RunDirectory(Path(run_dir))
    session = _load_session(run, training, clock)
    if session.progress.fraction >= 1:
        _log.info("the run is complete; raise `epochs` or `max_minutes` to train further")
        return run
    _log.info("resuming at step %s", f"{session.progress.step:,}")
    run.write_config(session.config)
    session.fit(callbacks)
    return run


def _check_train_arguments(
    config: object, run_dir: object, text: object, overwrite: object, callbacks: object
) -> None:
    """Raise `ConfigError` unless the arguments of `train` have the documented types."""
    if not isinstance(config, RunConfig):
        raise ConfigError(
            f"`config` must be a RunConfig. Received: {describe_value(config)}. To train on a "
            'file, pass RunConfig(corpus=CorpusConfig(sources=["tale.txt"])).'
        )
    convert(run_dir, str | Path | None, "run_dir")
    # `convert` would accept a path as a string.
    require(
        text is None or isinstance(text, str), "text", "a string, or None", describe_value(text)
    )
    convert(overwrite, bool, "overwrite")
    _check_callbacks(callbacks)


def _check_callbacks(callbacks: object) -> None:
    expected = "a list of keras.callbacks.Callback"
    require(isinstance(callbacks, list | tuple), "callbacks", expected, describe_value(callbacks))
    for callback in cast(Sequence[object], callbacks):
        is_callback = isinstance(callback, keras.callbacks.Callback)
        require(is_callback, "callbacks", expected, describe_value(callback))


def _check_clock(clock: object) -> None:
    require(callable(clock), "clock", "a function", describe_value(clock))


def _load_session(
    run: RunDirectory, training: TrainingConfig | None, clock: Callable[[], float]
) -> Session:
    """Return the session of a run at its last checkpoint, with new training settings."""
    config = run.read_config()
    if training is not None:
        _require_fixed(config.training, training)
        config = replace(config, training=training)
    execution = _choose_execution(config)
    tokenizer, corpus = run.read_tokenizer(), run.read_corpus()
    plan = _plan(config.training, corpus)
    session = build_session(run, config, tokenizer, corpus, plan, execution, clock=clock)
    session.restore()
    return session


def _require_fixed(old: TrainingConfig, new: TrainingConfig) -> None:
    """Raise `ConfigError` if a setting that cannot change within a run has changed."""
    for name in _FIXED_FOR_A_RUN:
        if getattr(old, name) != getattr(new, name):
            raise ConfigError(
                f"`{name}` cannot change within a run and must be {getattr(old, name)}. "
                f"Received: {getattr(new, name)}. Leave it out, or start a new run."
            )


def _tokenize(config: RunConfig, text: str | None) -> tuple[Tokenizer, TokenizedCorpus]:
    """Read the corpus, build its tokenizer, and encode both splits."""
    text = read_corpus(config.corpus) if text is None else text
    training_text, validation_text = split_text(text, config.corpus.validation_fraction)
    tokenizer = build_tokenizer(config.tokenizer, training_text, text)
    corpus = tokenize_corpus(training_text, validation_text, tokenizer, config.tokenizer)
    _log.info(
        "corpus: %s characters for training, %s for validation; vocabulary of %s",
        f"{corpus.train_characters:,}",
        f"{corpus.validation_characters:,}",
        f"{tokenizer.vocab_size:,}",
    )
    return tokenizer, corpus


def _plan(config: TrainingConfig, corpus: TokenizedCorpus) -> LanePlan:
    plan = plan_lanes(
        len(corpus.train), config.batch_size, config.seq_len, config.seed, config.seq_len_jitter
    )
    if plan.batch_size < config.batch_size:
        _log.info("the corpus is short: %d lanes instead of %d", plan.batch_size, config.batch_size)
    return plan


def _choose_execution(config: RunConfig) -> Execution:
    """Choose and log the kernel and the matmul dtype, after limiting TensorFlow's threads."""
    training = config.training
    if training.kernel != "reference" and not limit_threads():
        _log.info("TensorFlow has already started its threads: training may be slower")
    execution = choose_execution(training.kernel, training.matmul_dtype, config.model.cell)
    _log.info("kernel: %s (%s)", execution.kernel, execution.kernel_reason)
    _log.info("matmul_dtype: %s (%s)", execution.matmul_dtype, execution.matmul_dtype_reason)
    return execution


def _require_memory(config: ModelConfig, tokenizer: Tokenizer, plan: LanePlan) -> None:
    """Raise `DeviceError` if training exceeds the main memory.

    On a GPU, TensorFlow reports exhaustion itself.
    """
    if gpu_names():
        return
    require_memory(
        config,
        tokenizer.vocab_size,
        batch_size=plan.batch_size,
        seq_len=plan.seq_len,
        available=available_bytes(),
    )

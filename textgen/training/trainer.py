"""Training from a text to a run directory, and going on with one.

The order of work: read and tokenize the corpus, and only when that has succeeded
make the run directory; then build, compile and `fit`. This module knows how training
goes and nothing of how its progress is shown: that comes in as callbacks.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from textgen.config import ModelConfig, RunConfig, TrainingConfig
from textgen.corpora import (
    LanePlan,
    TokenizedCorpus,
    plan_lanes,
    read_corpus,
    scoring_dataset,
    split_text,
    tokenize_corpus,
    training_dataset,
)
from textgen.errors import ConfigError, DeviceError
from textgen.models.kernels import Execution, choose_execution, gpu_names, limit_threads
from textgen.models.language_model import build_language_model
from textgen.models.memory import available_bytes, require_memory, training_bytes
from textgen.runs import RunDirectory, unused_run
from textgen.tokenizers import Tokenizer, build_tokenizer
from textgen.training.callbacks import StopOnInterrupt, training_callbacks
from textgen.training.carried_state import CarriedStateModel
from textgen.training.checkpoints import load_checkpoint, save_checkpoint
from textgen.training.environment import describe_environment
from textgen.training.optimizer import make_optimizer
from textgen.training.progress import Progress
from textgen.training.stretches import FitStretch, fit_stretches, steps_per_call

_log = logging.getLogger("textgen")

# the position in the corpus and what a checkpoint holds depend on these
_LASTING = (
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
) -> RunDirectory:
    """Train a language model and return its run directory.

    With `epochs` as the limit the same seed gives the same weights on one machine; with
    `max_minutes` the learning rate follows the clock. On a CPU TensorFlow's threads are
    set for the fused kernel, if they have not started; Keras's global seed is set.

    Args:
        config: All settings.
        run_dir: Where the run goes; None: a free name under `runs/`.
        text: The corpus itself; `config.corpus.sources` is then only what it is called.
        overwrite: Replace the run that lies at `run_dir`.
        callbacks: Keras callbacks of your own. They find `loss` (nats per token) and
            `bits_per_char` in the logs, `val_loss` and `val_bits_per_char` after a
            validation, and the network at `self.model.language_model`. A "batch" is up to
            ten steps of a small model; `self.model.progress.step` has the true count.

    Returns:
        The run, with the best weights by validation loss.

    Raises:
        CorpusError: The text cannot be read or is too short.
        ConfigError: A setting does not fit the text.
        DeviceError: The kernel, the precision or the size cannot be had here.
        RunError: `run_dir` holds something else.
        TokenizerError: A vocabulary cannot be made from the text.
        TrainingError: The loss is no longer a number.
        KeyboardInterrupt: Ctrl-C; the run is saved and can be resumed.
    """
    run = unused_run(config.corpus.sources) if run_dir is None else RunDirectory(Path(run_dir))
    run.check_free(overwrite=overwrite)
    execution = _choose_execution(config)
    tokenizer, corpus = _prepare(config, text)
    plan = _plan(config.training, corpus)
    _require_memory(config.model, tokenizer, plan)
    run.create(overwrite=overwrite)
    _log.info("run: %s", run.path)
    try:
        run.write_config(config)
        run.write_tokenizer(tokenizer)
        run.write_corpus(corpus)
        return _Session(run, config, tokenizer, corpus, plan, execution).fit(callbacks)
    except BaseException:
        if not run.checkpoint_path.exists() and not run.weights_path.exists():
            run.remove()
        raise


def resume(
    run_dir: str | Path,
    *,
    training: TrainingConfig | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> RunDirectory:
    """Go on with a run exactly where its last checkpoint stands.

    Args:
        run_dir: The run.
        training: New training settings, for example more epochs; None: the run's own.
            Batch size, window length and seed must stay.
        callbacks: Keras callbacks of your own.

    Returns:
        The run.

    Raises:
        RunError: There is no run, or no checkpoint in it, or it is damaged.
        ConfigError: A setting was changed that cannot change within a run.
        KeyboardInterrupt: Ctrl-C; the run is saved and can be resumed.
    """
    run = RunDirectory(Path(run_dir))
    config = run.read_config()
    if training is not None:
        _refuse_changes(config.training, training)
        config = replace(config, training=training)
    execution = _choose_execution(config)
    tokenizer, corpus = run.read_tokenizer(), run.read_corpus()
    plan = _plan(config.training, corpus)
    session = _Session(run, config, tokenizer, corpus, plan, execution)
    session.restore()
    if session.progress.fraction >= 1:
        _log.info("the run is finished: pass more --epochs or --max-minutes to go on")
        return run
    _log.info("going on at step %s", f"{session.progress.step:,}")
    run.write_config(config)
    return session.fit(callbacks)


def _refuse_changes(old: TrainingConfig, new: TrainingConfig) -> None:
    for name in _LASTING:
        if getattr(old, name) != getattr(new, name):
            raise ConfigError(
                f"`{name}` cannot change within a run: it was {getattr(old, name)}. "
                f"Received: {getattr(new, name)}. Leave it out, or train anew."
            )


def _prepare(config: RunConfig, text: str | None) -> tuple[Tokenizer, TokenizedCorpus]:
    """Read the corpus, make its tokenizer, and encode both splits."""
    text = read_corpus(config.corpus) if text is None else text
    training_text, validation_text = split_text(text, config.corpus.validation_fraction)
    tokenizer = build_tokenizer(config.tokenizer, training_text, text)
    corpus = tokenize_corpus(training_text, validation_text, tokenizer, config.tokenizer)
    _log.info(
        "corpus: %s characters to train on, %s to validate; vocabulary of %s",
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
    """Decide how to compute, and say so; the threads must be set before the first device is."""
    asked = config.training
    if asked.kernel != "reference" and not limit_threads():
        _log.info("TensorFlow had started its threads already: training may be slower")
    execution = choose_execution(asked.kernel, asked.matmul_dtype, config.model.cell)
    _log.info("kernel: %s (%s)", execution.kernel, execution.kernel_reason)
    _log.info("matmul_dtype: %s (%s)", execution.matmul_dtype, execution.matmul_dtype_reason)
    return execution


def _require_memory(config: ModelConfig, tokenizer: Tokenizer, plan: LanePlan) -> None:
    if gpu_names():
        return  # the free memory of a GPU is TensorFlow's to tell, when it is taken
    require_memory(
        config,
        tokenizer.vocab_size,
        batch_size=plan.batch_size,
        seq_len=plan.seq_len,
        available=available_bytes(),
    )


class _Session:
    """One sitting of a run: the compiled model and all it is fitted with."""

    def __init__(
        self,
        run: RunDirectory,
        config: RunConfig,
        tokenizer: Tokenizer,
        corpus: TokenizedCorpus,
        plan: LanePlan,
        execution: Execution,
    ):
        self.run, self.config, self.tokenizer = run, config, tokenizer
        self.corpus, self.plan, self.execution = corpus, plan, execution
        training = config.training
        self.progress = Progress(
            total_steps=training.total_steps(plan.steps_per_epoch),
            tokens_per_step=plan.batch_size * plan.seq_len,
            max_seconds=training.max_minutes and 60 * training.max_minutes,
        )
        self.validation, lanes = scoring_dataset(corpus.validation, tokenizer.start_id)
        keras.utils.set_random_seed(training.seed)
        language_model = build_language_model(
            config.model, tokenizer.vocab_size, seed=training.seed, execution=execution
        )
        if config.model.dense_bias == "frequencies":
            counts = np.bincount(corpus.train, minlength=tokenizer.vocab_size)
            language_model.init_dense_bias(counts)
        self.model = CarriedStateModel(
            language_model,
            training,
            corpus,
            batch_size=plan.batch_size,
            validation_lanes=lanes,
            progress=self.progress,
        )
        optimizer = make_optimizer(training, execution.matmul_dtype)
        self.model.compile(
            optimizer=optimizer,
            jit_compile=False,
            steps_per_execution=steps_per_call(config.model, plan, execution),
        )
        self.model.optimizer.build(language_model.trainable_variables)

    def restore(self) -> None:
        """Take over the checkpoint, and drop what the log holds beyond it."""
        load_checkpoint(
            self.run.checkpoint_path, self.model, self.progress, self.tokenizer.fingerprint()
        )
        self.run.keep_metrics_until(self.progress.step)

    def fit(self, callbacks: Sequence[keras.callbacks.Callback]) -> RunDirectory:
        """Train to the end, to a limit, or to Ctrl-C."""
        training = self.config.training
        interval = training.validation_interval(self.plan.steps_per_epoch)
        interrupt = StopOnInterrupt()
        own = training_callbacks(
            config=training,
            run=self.run,
            tokenizer=self.tokenizer,
            corpus=self.corpus,
            steps_per_epoch=self.plan.steps_per_epoch,
            interval=interval,
            progress=self.progress,
        )
        self.run.write_environment(describe_environment(self.execution, training.seed))
        try:
            with interrupt.listening():
                for stretch in fit_stretches(
                    self.progress.step, self.progress.total_steps, interval
                ):
                    self._fit_stretch(stretch, [*own, *callbacks, interrupt])
                    if self.model.stop_training:
                        break
        except KeyboardInterrupt:
            if interrupt.state_is_whole:
                self._save_unfinished()
            raise
        except tf.errors.ResourceExhaustedError as error:
            raise self._out_of_memory() from error
        return self.run

    def _fit_stretch(self, stretch: FitStretch, callbacks) -> None:
        counted = stretch.counted_steps(self.model.steps_per_execution)
        first_step = self.progress.step
        self.model.fit(
            # Keras begins the data anew where it believes that they have ended
            training_dataset(self.corpus.train, self.plan, first_step, first_step + counted),
            initial_epoch=stretch.initial_epoch,
            epochs=stretch.epochs,
            steps_per_epoch=stretch.steps,
            validation_data=self.validation,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        )

    def _out_of_memory(self) -> DeviceError:
        size = training_bytes(
            self.config.model, self.tokenizer.vocab_size, self.progress.tokens_per_step
        )
        return DeviceError(
            f"Out of memory with batch_size {self.plan.batch_size} and seq_len "
            f"{self.plan.seq_len}; a step takes about {size / 2**30:.1f} GiB. "
            "Lower --batch-size, --seq-len or --hidden-size."
        )

    def _save_unfinished(self) -> None:
        """Save where training stands; weights too if no validation has written any yet."""
        fingerprint = self.tokenizer.fingerprint()
        save_checkpoint(self.run.checkpoint_path, self.model, self.progress, fingerprint)
        if not self.run.weights_path.exists():
            self.model.put_average_in()
            weights = self.model.language_model.model_weights()
            self.run.write_weights(weights, self.tokenizer)

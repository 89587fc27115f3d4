"""A training session: a compiled model and its data, trained until a limit or an interruption.

`build_session` builds and compiles the parts, which a `Session` puts together. This module does
NOT know the source of the text, or how progress is shown: callbacks show it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from textgen.config import RunConfig
from textgen.corpora import LanePlan, TokenizedCorpus, scoring_dataset, training_dataset
from textgen.errors import DeviceError
from textgen.models.kernels import Execution
from textgen.models.language_model import LanguageModel, build_language_model
from textgen.models.memory import training_bytes
from textgen.runs import RunDirectory
from textgen.tokenizers import Tokenizer
from textgen.training.callbacks import DeferInterrupt, training_callbacks
from textgen.training.carried_state import CarriedStateModel
from textgen.training.checkpoints import load_checkpoint, save_checkpoint
from textgen.training.environment import describe_environment
from textgen.training.fit_calls import FitCall, max_steps_per_execution, plan_fit_calls
from textgen.training.optimizer import make_optimizer
from textgen.training.progress import Progress


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """The parts of one call of `train` or `resume`.

    Attributes:
        run: The run directory.
        config: All settings.
        tokenizer: The run's tokenizer.
        corpus: Both splits as token ids.
        plan: The tokens that each step reads.
        execution: Kernel and matmul dtype.
        model: The compiled model; its optimizer is built.
        validation: The windows of the validation split.
        progress: Progress of the run, shared with the callbacks.
    """

    run: RunDirectory
    config: RunConfig
    tokenizer: Tokenizer
    corpus: TokenizedCorpus
    plan: LanePlan
    execution: Execution
    model: CarriedStateModel
    validation: tf.data.Dataset
    progress: Progress

    def restore(self) -> None:
        """Load the checkpoint of the run, and drop the metrics of later steps."""
        fingerprint = self.tokenizer.fingerprint()
        load_checkpoint(self.run.checkpoint_path, self.model, self.progress, fingerprint)
        self.run.keep_metrics_until(self.progress.step)

    def fit(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Train until the run is complete.

        Args:
            callbacks: Keras callbacks that run after those of training itself.

        Raises:
            DeviceError: A step does not fit in memory.
            KeyboardInterrupt: Ctrl-C; the state is saved.
            TrainingError: The validation loss is not finite.
        """
        interrupt = DeferInterrupt()
        every = [*self._own_callbacks(), *callbacks, interrupt]
        seed = self.config.training.seed
        self.run.write_environment(describe_environment(self.execution, seed))
        try:
            with interrupt.handling_sigint():
                self._fit_all(every)
        except KeyboardInterrupt:
            if interrupt.is_consistent:
                self._save_incomplete()
            raise
        except tf.errors.ResourceExhaustedError as error:
            raise self._out_of_memory() from error

    @property
    def _interval(self) -> int:
        """Steps between two validations."""
        return self.config.training.validation_interval(self.plan.steps_per_epoch)

    def _own_callbacks(self) -> list[keras.callbacks.Callback]:
        return training_callbacks(
            config=self.config.training,
            run=self.run,
            tokenizer=self.tokenizer,
            corpus=self.corpus,
            steps_per_epoch=self.plan.steps_per_epoch,
            interval=self._interval,
            progress=self.progress,
        )

    def _fit_all(self, callbacks: list[keras.callbacks.Callback]) -> None:
        progress = self.progress
        for call in plan_fit_calls(progress.step, progress.total_steps, self._interval):
            self._fit(call, callbacks)
            if self.model.stop_training:
                return

    def _fit(self, call: FitCall, callbacks: list[keras.callbacks.Callback]) -> None:
        first_step = self.progress.step
        # Keras restarts a data set that has fewer elements than the steps it counts.
        last_step = first_step + call.counted_steps(self.model.steps_per_execution)
        self.model.fit(
            training_dataset(self.corpus.train, self.plan, first_step, last_step),
            initial_epoch=call.initial_epoch,
            epochs=call.epochs,
            steps_per_epoch=call.steps,
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
            f"A training step must fit in memory. Received: `batch_size` {self.plan.batch_size} "
            f"and `seq_len` {self.plan.seq_len}, which need about {size / 2**30:.1f} GiB. "
            "Lower `batch_size`, `seq_len` or `hidden_size`."
        )

    def _save_incomplete(self) -> None:
        """Save a checkpoint, and the weights unless a validation has already saved some."""
        fingerprint = self.tokenizer.fingerprint()
        save_checkpoint(self.run.checkpoint_path, self.model, self.progress, fingerprint)
        if not self.run.weights_path.exists():
            self.model.load_ema_weights()
            weights = self.model.language_model.model_weights()
            self.run.write_weights(weights, self.tokenizer)


def build_session(
    run: RunDirectory,
    config: RunConfig,
    tokenizer: Tokenizer,
    corpus: TokenizedCorpus,
    plan: LanePlan,
    execution: Execution,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Session:
    """Build and compile the model of a run. Sets Keras's global seed.

    Args:
        run: The run directory.
        config: All settings.
        tokenizer: The run's tokenizer.
        corpus: Both splits as token ids.
        plan: The tokens that each step reads.
        execution: Kernel and matmul dtype.
        clock: Returns monotonic seconds.

    Returns:
        A session at step 0.
    """
    progress = _make_progress(config, plan, clock)
    validation, validation_lanes = scoring_dataset(corpus.validation, tokenizer.start_id)
    keras.utils.set_random_seed(config.training.seed)
    model = CarriedStateModel(
        _make_language_model(config, tokenizer, corpus, execution),
        config.training,
        corpus,
        batch_size=plan.batch_size,
        validation_lanes=validation_lanes,
        progress=progress,
    )
    _compile(model, config, plan, execution)
    return Session(
        run=run,
        config=config,
        tokenizer=tokenizer,
        corpus=corpus,
        plan=plan,
        execution=execution,
        model=model,
        validation=validation,
        progress=progress,
    )


def _make_progress(config: RunConfig, plan: LanePlan, clock: Callable[[], float]) -> Progress:
    minutes = config.training.max_minutes
    return Progress(
        total_steps=config.training.total_steps(plan.steps_per_epoch),
        tokens_per_step=plan.batch_size * plan.seq_len,
        max_seconds=None if minutes is None else 60 * minutes,
        clock=clock,
    )


def _make_language_model(
    config: RunConfig, tokenizer: Tokenizer, corpus: TokenizedCorpus, execution: Execution
) -> LanguageModel:
    """Return the model with its initial weights."""
    vocab_size = tokenizer.vocab_size
    model = build_language_model(
        config.model, vocab_size, seed=config.training.seed, execution=execution
    )
    if config.model.dense_bias == "frequencies":
        model.init_dense_bias(np.bincount(corpus.train, minlength=vocab_size))
    return model


def _compile(
    model: CarriedStateModel, config: RunConfig, plan: LanePlan, execution: Execution
) -> None:
    model.compile(
        optimizer=make_optimizer(config.training, execution.matmul_dtype),
        jit_compile=False,
        steps_per_execution=max_steps_per_execution(config.model, plan, execution),
    )
    # A checkpoint can be loaded only into variables that exist.
    model.optimizer.build(model.language_model.trainable_variables)

"""`train`: train a model on a text, or resume a run."""

import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from textgen.cli.arguments import flag_value, parse
from textgen.config import CorpusConfig, RunConfig
from textgen.corpora import read_corpus
from textgen.errors import ConfigError
from textgen.presets import AUTO, get_preset
from textgen.runs import CHECKPOINT_FILE, RunDirectory, newest_run, unused_run
from textgen.startup import import_tensorflow_quietly

_log = logging.getLogger("textgen")


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a language model on a text; the end of the text is held out for validation."""

    run_dir: Path | None = None
    """Run directory; None: a new one under runs/, or the newest run with --resume."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the run at --run-dir."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Resume a run from its last checkpoint."""
    config: RunConfig = field(default_factory=RunConfig)


def run(arguments: list[str], prog: str) -> int:
    """Train, and report the score of the model and the command to generate with it."""
    command, text = parse_train(arguments, prog)
    if command.resume and command.overwrite:
        raise ConfigError("--resume continues a run and --overwrite removes it. Pass only one.")
    if command.overwrite and command.run_dir is None:
        raise ConfigError("--overwrite replaces the run at --run-dir. Pass --run-dir as well.")
    target = _target(command.run_dir, resume=command.resume, sources=command.config.corpus.sources)
    if not command.resume:
        target.check_free(overwrite=command.overwrite)
        text = _read_early(command.config.corpus) if text is None else text
    try:
        _train(command, target, text)
    except KeyboardInterrupt:
        if target.checkpoint_path.exists():
            folder = shlex.quote(str(target.path))
            _log.info("stopped; resume with: %s --resume --run-dir %s", prog, folder)
        return 130
    _report(target, prog)
    return 0


def _train(command: TrainCommand, target: RunDirectory, text: str | None) -> None:
    import_tensorflow_quietly()
    from textgen.cli.progress import ProgressBar, SampleWriter
    from textgen.training import resume, train

    with ProgressBar() as bar:
        callbacks = [bar, SampleWriter(target)]
        if command.resume:
            resume(target.path, training=command.config.training, callbacks=callbacks)
        else:
            train(
                command.config,
                target.path,
                text=text,
                overwrite=command.overwrite,
                callbacks=callbacks,
            )


def parse_train(arguments: list[str], prog: str) -> tuple[TrainCommand, str | None]:
    """Return the command, and the corpus if the settings depend on it.

    The preset or the run to resume determines the defaults of all other flags, so that a flag is
    checked together with the settings it will be used with.

    Args:
        arguments: The words after `train`.
        prog: What the user typed before them.

    Returns:
        The command; and the corpus, or None if it has not been read yet.

    Raises:
        TextgenError: A flag, the corpus or the run to resume is invalid.
    """
    if {"-h", "--help"} & set(arguments):
        return _parse_with_defaults(RunConfig(), arguments, prog), None
    if flag_value(TrainCommand, arguments, "--resume") is not None:
        return _parse_resume(arguments, prog), None
    preset = flag_value(TrainCommand, arguments, "--preset")
    if preset == AUTO:
        return _parse_auto(arguments, prog)
    if preset in (None, "None", ""):
        return _parse_with_defaults(RunConfig(), arguments, prog), None
    defaults = _without_replaced_limit(get_preset(preset), arguments)
    return _parse_with_defaults(defaults, arguments, prog), None


def _parse_with_defaults(defaults: RunConfig, arguments: list[str], prog: str) -> TrainCommand:
    command = TrainCommand(config=defaults)
    return parse(TrainCommand, arguments, prog=prog, default=command, switches=())


def _without_replaced_limit(preset: RunConfig, arguments: list[str]) -> RunConfig:
    """Drop the preset's limit if the user gives the other kind: epochs for minutes, or minutes."""
    epochs = flag_value(TrainCommand, arguments, "--epochs")
    minutes = flag_value(TrainCommand, arguments, "--max-minutes")
    training = preset.training
    if epochs and not minutes and training.max_minutes is not None:
        _log.info("`epochs` replaces the preset's limit of %g minutes", training.max_minutes)
        return replace(preset, training=replace(training, max_minutes=None))
    # The epochs that auto chooses are for this many minutes: they stay.
    if minutes and not epochs and training.epochs is not None and preset.preset != AUTO:
        _log.info("`max_minutes` replaces the preset's limit of %d epochs", training.epochs)
        return replace(preset, training=replace(training, epochs=None))
    return preset


def _parse_resume(arguments: list[str], prog: str) -> TrainCommand:
    run_dir = flag_value(TrainCommand, arguments, "--run-dir")
    stored = _target(Path(run_dir) if run_dir else None, resume=True).read_config()
    command = _parse_with_defaults(stored, arguments, prog)
    parts = [part.name for part in dataclasses.fields(RunConfig) if part.name != "training"]
    changed = [p for p in parts if getattr(command.config, p) != getattr(stored, p)]
    if changed:
        raise ConfigError(
            f"A resumed run keeps its {', '.join(changed)}. Leave those settings out, or start a "
            "new run. --run-dir names the run to resume; without it, the newest one is resumed."
        )
    return command


def _parse_auto(arguments: list[str], prog: str) -> tuple[TrainCommand, str]:
    """Choose the settings for this text and this machine; flags override them."""
    config = _parse_with_defaults(RunConfig(preset=AUTO), arguments, prog).config
    import_tensorflow_quietly()
    from textgen.models.kernels import limit_threads
    from textgen.training import size_to_fit

    # Before a tfds: source starts TensorFlow's threads, whose number is then fixed.
    limit_threads()
    text = read_corpus(config.corpus)
    sized = _without_replaced_limit(size_to_fit(config, text), arguments)
    command = _parse_with_defaults(sized, arguments, prog)
    model, training = command.config.model, command.config.training
    _log.info(
        "auto: %d units, dropout %.2f, %d lanes of %d tokens, learning rate %g",
        model.hidden_size,
        model.dropout,
        training.batch_size,
        training.seq_len,
        training.learning_rate,
    )
    return command, text


def _read_early(corpus: CorpusConfig) -> str | None:
    """Return the corpus before TensorFlow is imported, so that a bad path fails immediately.

    A tfds: source needs TensorFlow, and is left to training: None.
    """
    if any(source.startswith("tfds:") for source in corpus.sources):
        return None
    return read_corpus(corpus)


def _target(run_dir: Path | None, *, resume: bool, sources: Sequence[str] = ()) -> RunDirectory:
    if run_dir is not None:
        return RunDirectory(run_dir)
    if resume:
        return newest_run(part=CHECKPOINT_FILE)
    return unused_run(sources)


def _report(target: RunDirectory, prog: str) -> None:
    best = target.best_metrics()
    if best is None:
        return
    print(
        f"validation: {best['bits_per_char']:.3f} bits per character "
        f"({best['validation_loss']:.4f} nats per token) at step {best['step']:,}\n"
        f"generate with: {prog.replace('train', 'generate')} {shlex.quote(str(target.path))}",
        file=sys.stderr,
    )

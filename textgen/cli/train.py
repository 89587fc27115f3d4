"""`train`: from a text to a run directory, or on with a run."""

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from textgen.cli.arguments import parse
from textgen.config import CorpusConfig, RunConfig
from textgen.corpora import read_corpus
from textgen.errors import ConfigError
from textgen.presets import AUTO, get_preset
from textgen.runs import RunDirectory, newest_run, unused_run
from textgen.startup import import_tensorflow_quietly

_log = logging.getLogger("textgen")


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a language model on a text; the text's end is held out to validate."""

    run_dir: Path | None = None
    """Folder of the run; None: a free name under runs/, or the newest run with --resume."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the run that lies at --run-dir."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with a run where its last checkpoint stands."""
    config: RunConfig = field(default_factory=RunConfig)


def run(arguments: list[str], prog: str) -> int:
    """Train, and say where the run is and how good it became."""
    command, text = parse_train(arguments, prog)
    if command.resume and command.overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite removes it. Pass only one.")
    if command.overwrite and command.run_dir is None:
        raise ConfigError("--overwrite replaces the run at --run-dir. Pass --run-dir, too.")
    target = _target(command.run_dir, resume=command.resume, sources=command.config.corpus.sources)
    if not command.resume:
        target.check_free(overwrite=command.overwrite)
        text = _read_early(command.config.corpus) if text is None else text
    import_tensorflow_quietly()
    from textgen.cli.progress import ProgressBar, SampleWriter
    from textgen.training import resume, train

    try:
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
    except KeyboardInterrupt:
        if target.checkpoint_path.exists():
            folder = shlex.quote(str(target.path))
            _log.info("stopped; go on with: %s --resume --run-dir %s", prog, folder)
        return 130
    _report(target)
    return 0


def parse_train(arguments: list[str], prog: str) -> tuple[TrainCommand, str | None]:
    """Return the command, and the text if it had to be read for its settings.

    The preset, or the run to resume, gives the defaults of all other flags, so that a flag is
    judged beside them and not beside settings that nobody asked for.

    Args:
        arguments: The words after `train`.
        prog: What the user typed.

    Returns:
        The command; and the text, or None where it has not been read yet.

    Raises:
        TextgenError: A flag, the text or the run to resume is not as it should be.
    """
    helps = {"-h", "--help"} & set(arguments)
    if _asked(arguments, "--resume") is not None and not helps:
        return _parse_resume(arguments, prog), None
    preset = _asked(arguments, "--preset")
    if preset == AUTO and not helps:
        return _parse_auto(arguments, prog)
    defaults = get_preset(preset) if preset and preset != AUTO else RunConfig()
    return _parse_beside(defaults, arguments, prog), None


def _parse_beside(defaults: RunConfig, arguments: list[str], prog: str) -> TrainCommand:
    command = TrainCommand(config=defaults)
    return parse(TrainCommand, arguments, prog=prog, default=command, switches=())


def _asked(arguments: list[str], flag: str) -> str | None:
    """Return the word behind a flag, `""` if it is the last, None if it is not there."""
    for index, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag:  # tyro takes either
            return value if equals else next(iter(arguments[index + 1 :]), "")
    return None


def _parse_resume(arguments: list[str], prog: str) -> TrainCommand:
    run_dir = _asked(arguments, "--run-dir")
    stored = _target(Path(run_dir) if run_dir else None, resume=True).read_config()
    command = _parse_beside(stored, arguments, prog)
    changed = [
        name
        for name in ("corpus", "tokenizer", "model", "preset")
        if getattr(command.config, name) != getattr(stored, name)
    ]
    if changed:
        raise ConfigError(
            f"A resumed run keeps its {', '.join(changed)}: leave those settings out, or train "
            "anew. The run itself is named by --run-dir; without it the newest is taken."
        )
    return command


def _parse_auto(arguments: list[str], prog: str) -> tuple[TrainCommand, str]:
    """Choose the settings for this text and this machine; flags change them."""
    config = _parse_beside(RunConfig(preset=AUTO), arguments, prog).config
    import_tensorflow_quietly()
    from textgen.models.kernels import limit_threads
    from textgen.training import size_to_fit

    limit_threads()  # before a tfds: source starts other ones
    text = read_corpus(config.corpus)
    command = _parse_beside(size_to_fit(config, text), arguments, prog)
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
    """Read the corpus before TensorFlow is imported, so that a wrong file is told at once."""
    if any(source.startswith("tfds:") for source in corpus.sources):
        return None
    return read_corpus(corpus)


def _target(run_dir: Path | None, *, resume: bool, sources: Sequence[str] = ()) -> RunDirectory:
    if run_dir is not None:
        return RunDirectory(run_dir)
    if resume:
        return newest_run(part="checkpoints/latest.safetensors")
    return unused_run(sources)


def _report(target: RunDirectory) -> None:
    rows = target.read_metrics()
    if not rows:
        return
    best = min(rows, key=lambda row: row["validation_loss"])
    print(
        f"validation: {best['bits_per_char']:.3f} bits per character "
        f"({best['validation_loss']:.4f} nats per token) at step {best['step']:,}\n"
        f"write with it: python generate.py {shlex.quote(str(target.path))}",
        file=sys.stderr,
    )

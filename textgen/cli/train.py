"""`train`: from a text to a run directory, or on with a run."""

import logging
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from textgen.cli.arguments import parse
from textgen.config import CorpusConfig, RunConfig
from textgen.corpora import read_corpus
from textgen.errors import ConfigError
from textgen.presets import get_preset
from textgen.runs import RunDirectory, newest_run, unused_run
from textgen.startup import import_tensorflow_quietly

_log = logging.getLogger("textgen")


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a language model on a text; the text's end is held out to validate."""

    run_dir: Path | None = None
    """Folder of the run; None: a free name under runs/, or the newest run with --resume."""
    overwrite: bool = False
    """Replace the run that lies at --run-dir."""
    resume: bool = False
    """Go on with a run where its last checkpoint stands."""
    config: RunConfig = field(default_factory=RunConfig)


def run(arguments: list[str], prog: str) -> int:
    """Train, and say where the run is and how good it became."""
    command = _parse(arguments, prog)
    if command.resume and command.overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite removes it. Pass only one.")
    if command.overwrite and command.run_dir is None:
        raise ConfigError("--overwrite replaces the run at --run-dir. Pass --run-dir, too.")
    target, text = _target(command), None
    if not command.resume:
        target.check_free(overwrite=command.overwrite)
        text = _read_early(command.config.corpus)
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


def _parse(arguments: list[str], prog: str) -> TrainCommand:
    """Parse twice: the preset, or the run to resume, gives the defaults of the second time."""
    first = parse(TrainCommand, arguments, prog=prog)
    if first.resume:
        stored = _target(first).read_config()
        command = parse(TrainCommand, arguments, prog=prog, default=TrainCommand(config=stored))
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
    if first.config.preset is None:
        return first
    preset = TrainCommand(config=get_preset(first.config.preset))
    return parse(TrainCommand, arguments, prog=prog, default=preset)


def _read_early(corpus: CorpusConfig) -> str | None:
    """Read the corpus before TensorFlow is imported, so that a wrong file is told at once."""
    if any(source.startswith("tfds:") for source in corpus.sources):
        return None
    return read_corpus(corpus)


def _target(command: TrainCommand) -> RunDirectory:
    if command.run_dir is not None:
        return RunDirectory(command.run_dir)
    if command.resume:
        return newest_run(part="checkpoints/latest.safetensors")
    return unused_run(command.config.corpus.sources)


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

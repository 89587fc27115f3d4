"""`train`: from a text to a run directory, or on with a run."""

import logging
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from textgen.cli.arguments import parse
from textgen.config import RunConfig
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
    target = _target(command)
    if not command.resume:
        target.check_free(overwrite=command.overwrite)
    import_tensorflow_quietly()
    from textgen.cli.progress import ProgressBar, SampleWriter
    from textgen.training import resume, train

    _log.info("run: %s", target.path)
    try:
        with ProgressBar() as bar:
            callbacks = [bar, SampleWriter(target)]
            if command.resume:
                resume(target.path, training=command.config.training, callbacks=callbacks)
            else:
                train(command.config, target.path, overwrite=command.overwrite, callbacks=callbacks)
    except KeyboardInterrupt:
        _log.info("stopped; go on with: %s --resume --run-dir %s", prog, target.path)
        return 130
    _report(target)
    return 0


def _parse(arguments: list[str], prog: str) -> TrainCommand:
    """Parse twice: the preset, or the run to resume, gives the defaults of the second time."""
    first = parse(TrainCommand, arguments, prog=prog)
    if first.resume:
        stored = _target(first).read_config()
        command = parse(TrainCommand, arguments, prog=prog, default=TrainCommand(config=stored))
        if replace(command.config, training=stored.training) != stored:
            raise ConfigError(
                "A resumed run keeps its corpus, tokenizer, model and preset; only the length of "
                "training and its rates can change. Leave the other flags out, or train anew."
            )
        return command
    if first.config.preset is None:
        return first
    preset = TrainCommand(config=get_preset(first.config.preset))
    return parse(TrainCommand, arguments, prog=prog, default=preset)


def _target(command: TrainCommand) -> RunDirectory:
    if command.run_dir is not None:
        return RunDirectory(command.run_dir)
    return newest_run() if command.resume else unused_run(command.config.corpus.sources)


def _report(target: RunDirectory) -> None:
    rows = target.read_metrics()
    best = min(rows, key=lambda row: row["validation_loss"])
    print(
        f"validation: {best['bits_per_char']:.3f} bits per character "
        f"({best['validation_loss']:.4f} nats per token) at step {best['step']:,}\n"
        f"write with it: python generate.py {target.path}",
        file=sys.stderr,
    )

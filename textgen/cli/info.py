"""`info`: describe a run."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from textgen.cli.arguments import parse, run_and_rest
from textgen.errors import ConfigError
from textgen.models.memory import num_parameters
from textgen.runs import RunDirectory

_SCORES = ("validation_loss", "bits_per_char", "bits_per_byte")


@dataclass(frozen=True, kw_only=True)
class InfoCommand:
    """Describe a run: its corpus, tokenizer, model, training and best score.

    Without a RUN, the newest one under runs/ is used.
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = ()
    """A run directory."""
    json: bool = False
    """Print one JSON object."""


def run(arguments: list[str], prog: str) -> int:
    """Print the description to stdout."""
    command = parse(InfoCommand, arguments, prog=prog)
    run_dir, rest = run_and_rest(command.words)
    if rest:
        raise ConfigError(
            f"Expected at most one run directory. Received: {' '.join(command.words)}."
        )
    facts = _describe(run_dir)
    if command.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        width = max(map(len, facts))
        print(
            "\n".join(
                f"{name.replace('_', ' '):<{width}}  {_shown(value)}"
                for name, value in facts.items()
            )
        )
    return 0


def _describe(run_dir: RunDirectory) -> dict[str, Any]:
    """Return the facts about a run, in the order in which they are printed."""
    config = run_dir.read_config()
    tokenizer = run_dir.read_tokenizer()
    weights = run_dir.read_weights(tokenizer)
    rows, best = run_dir.read_metrics(), run_dir.best_metrics()
    environment = run_dir.read_environment()
    facts: dict[str, Any] = {
        "run": str(run_dir.path),
        "preset": config.preset,
        "corpus": list(config.corpus.sources),
        "tokenizer": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "embedding_dim": config.model.embedding_dim,
        "cell": config.model.cell,
        "hidden_size": config.model.hidden_size,
        "num_layers": config.model.num_layers,
        "parameters": num_parameters(config.model, weights.vocab_size),
        "kernel": environment.get("kernel"),
        "tensorflow": environment.get("packages", {}).get("tensorflow"),
    }
    if best is not None:
        facts |= {
            "steps": rows[-1]["step"],
            "epochs": rows[-1].get("epoch"),
            "training_seconds": rows[-1].get("seconds"),
            "best_step": best["step"],
            **{name: best.get(name) for name in _SCORES},
        }
    return facts


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)

"""`textgen.train` as the command line runs it, within a budget of wall-clock seconds.

The clock starts with the process, so starting the interpreter, importing, reading, compiling and
writing count. Training validates on a small part of the training text; the held-out text is scored
after training. The last weights are scored, not the best ones. The weights of each validation are
kept in memory and scored at the end, for the curve of loss over time.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import keras
import psutil

import textgen
from textgen.cli.train import parse_train
from textgen.config import ScoringProtocol
from textgen.engines import EnginePool
from textgen.models.memory import num_parameters
from textgen.models.weights import ModelWeights
from textgen.runs import RunDirectory
from textgen.training import train

# Reserved after training for a short validation, the weights and a checkpoint.
_SECONDS_RESERVED = 3.0
_VALIDATION_FRACTION = 0.002
CURVE = "curve"


class WeightsRecorder(keras.callbacks.Callback):
    """Keeps the weights of every validation in memory, with their time and step."""

    def __init__(self, started: float) -> None:
        super().__init__()
        self._started = started
        self.recorded: list[tuple[float, int, ModelWeights]] = []

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Copy the weights that were validated."""
        weights = self.model.language_model.model_weights()
        step = self.model.progress.step
        self.recorded.append((time.time() - self._started, step, weights))


def main() -> None:
    """Train within the budget, score, and print one line of JSON."""
    started = psutil.Process().create_time()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument(
        "protocols", help=f"scoring protocols, comma-separated; {CURVE}: score every validation"
    )
    arguments, train_arguments = parser.parse_known_args()
    config = parse_train(train_arguments, "train.py")[0].config
    seconds_left = arguments.seconds - (time.time() - started) - _SECONDS_RESERVED
    training = replace(
        config.training, max_minutes=seconds_left / 60, sample_length=0, checkpoint_minutes=None
    )
    corpus = replace(config.corpus, validation_fraction=_VALIDATION_FRACTION)
    recorder = WeightsRecorder(started)
    run = train(
        replace(config, corpus=corpus, training=training),
        arguments.run_dir,
        overwrite=True,
        callbacks=[recorder],
    )
    _, step, weights = recorder.recorded[-1]
    result: dict[str, Any] = {"seconds": time.time() - started, "steps": step}
    tokenizer = run.read_tokenizer()
    run.write_weights(weights, tokenizer)
    result["parameters"] = num_parameters(config.model, tokenizer.vocab_size)
    protocols = arguments.protocols.split(",")
    print(json.dumps(result | _scores(run, arguments.held_out, protocols, recorder)))


def _scores(
    run: RunDirectory, held_out: Path, protocols: Sequence[str], recorder: WeightsRecorder
) -> dict[str, Any]:
    """Return nats per character: of the last weights by protocol, and of those of the curve."""
    bundle, text = textgen.load(run.path), held_out.read_text("utf-8")
    scores: dict[str, Any] = {
        protocol: bundle.score(text, protocol=cast(ScoringProtocol, protocol)).nats_per_char
        for protocol in protocols
        if protocol != CURVE
    }
    if CURVE in protocols:
        scores[CURVE] = [
            (seconds, replace(bundle, engines=EnginePool(weights)).score(text).nats_per_char)
            for seconds, _, weights in recorder.recorded
        ]
    return scores


if __name__ == "__main__":
    main()

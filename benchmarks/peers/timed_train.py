"""`textgen.train` as the command line runs it, held to a budget of wall-clock seconds.

The clock starts with the process: interpreter, imports, reading, compiling and writing count.
What training itself validates on is a scrap of the training text; the held-out text is looked
at when training is over. Nothing is chosen: the last weights count. Those of the validations on
the way are set aside, and scored for the curve, after the last second too.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import keras
import psutil

import textgen
from textgen.cli.train import parse_train
from textgen.models.memory import num_parameters
from textgen.models.weights import ModelWeights
from textgen.training import train

# what is left when training stops: a short validation, the weights, a checkpoint
_SECONDS_TO_END = 3.0
_SCRAP = 0.002


class SetAside(keras.callbacks.Callback):
    """Keeps the weights of every validation in memory, with their time and step."""

    def __init__(self, begun: float):
        super().__init__()
        self.begun = begun
        self.kept: list[tuple[float, int, ModelWeights]] = []

    def on_test_end(self, logs=None):
        """Take a copy of the weights that are being validated."""
        weights = self.model.language_model.model_weights()
        step = self.model.progress.step
        self.kept.append((time.time() - self.begun, step, weights))


def main() -> None:
    """Train within the budget, score, and print one line of JSON."""
    begun = psutil.Process().create_time()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("protocols", help="joined by commas; curve: the weights on the way, too")
    known, words = parser.parse_known_args()
    config = parse_train(words, "train.py")[0].config
    left = known.seconds - (time.time() - begun) - _SECONDS_TO_END
    training = replace(
        config.training, max_minutes=left / 60, sample_length=0, checkpoint_minutes=None
    )
    corpus = replace(config.corpus, validation_fraction=_SCRAP)
    aside = SetAside(begun)
    run = train(
        replace(config, corpus=corpus, training=training),
        known.run_dir,
        overwrite=True,
        callbacks=[aside],
    )
    result = {"seconds": time.time() - begun, "steps": aside.kept[-1][1]}
    run.write_weights(aside.kept[-1][2], run.read_tokenizer())
    result["parameters"] = num_parameters(config.model, run.read_tokenizer().vocab_size)
    print(json.dumps(result | _scores(run, known.held_out, known.protocols.split(","), aside)))


def _scores(run, held_out: Path, protocols: list[str], aside: SetAside) -> dict[str, object]:
    """Return the nats per character of the last weights by protocol, and those on the way."""
    bundle, text = textgen.load(run.path), held_out.read_text("utf-8")
    scores: dict[str, object] = {
        protocol: bundle.score(text, protocol=protocol).nats_per_char
        for protocol in protocols
        if protocol != "curve"
    }
    if "curve" in protocols:
        scores["curve"] = [
            (seconds, replace(bundle, weights=weights).score(text).nats_per_char)
            for seconds, _, weights in aside.kept
        ]
    return scores


if __name__ == "__main__":
    main()

"""`generate`: generate text with a trained model."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from textgen.bundle import Bundle, load
from textgen.cli.arguments import parse, run_and_rest
from textgen.cli.prompts import one_prompt, requests_from
from textgen.cli.writing import print_copies, print_json_lines, print_texts
from textgen.config import (
    EngineName,
    LengthPenalty,
    NumAlternatives,
    NumBeams,
    NumSamples,
    Passes,
    SamplingConfig,
    UnknownPolicy,
    WeightsFormat,
    check_settings,
)
from textgen.errors import ConfigError
from textgen.generation import Request, longest_copies, require_beam_settings
from textgen.generation.receipts import Receipt
from textgen.sampling import FILTER_SETTINGS, build_processors


@dataclass(frozen=True, kw_only=True)
class GenerateCommand:
    """Generate text with a trained model.

    Without a RUN, the newest one under runs/ is used. Without a prompt, the model starts a new
    text. The prompt is printed before the generated text.
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN] [-]")] = ()
    """A run directory; and - to read the prompt from standard input."""
    prompt: str | None = None
    """Text to continue."""
    prompt_file: Path | None = None
    """UTF-8 file with the text to continue."""
    prompts: Path | None = None
    """File with one prompt per line, or one JSON object per line with "prompt" and settings; - for
    standard input. All texts are generated in parallel."""
    num_samples: NumSamples = 1
    """Number of texts per prompt (also -n)."""
    stream: bool = False
    """Print the text while it is generated."""
    output: Literal["text", "jsonl"] = "text"
    """Print text, or one JSON object per text."""
    logprobs: NumAlternatives | None = None
    """With --output jsonl: add each token's log-probability, rank, entropy, and this many
    alternatives."""
    show: Literal["surprise", "copies", "order"] | None = None
    """surprise: color the text by its surprise; copies: report the longest span copied from the
    training text; order: print the order in which logits are processed, and generate nothing."""
    receipt: Path | None = None
    """Write a receipt to this file: all that is needed to generate the texts again and compare."""
    replay: Path | None = None
    """Generate again what a receipt records, and report whether the text is the same."""
    adapt: Passes | None = None
    """Train on the prompt for this many passes before generating; None: off. The run itself does
    not change."""
    beams: NumBeams | None = None
    """Search for the most probable texts with this many beams instead of sampling, and print the
    best -n of them; None: off."""
    length_penalty: LengthPenalty = 0.6
    """Beam search ranks texts by log-probability / length ** this; larger values favor longer
    texts."""
    unknown: UnknownPolicy = "error"
    """What to do with a character of the prompt that the vocabulary lacks."""
    engine: EngineName = "auto"
    """Implementation that computes the logits; all agree up to float rounding."""
    weights_format: WeightsFormat = "float32"
    """Numeric format of the weights; int8 and int4 are faster, and refused if they cost more than
    0.005 nats per token."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.stream and (self.num_samples > 1 or self.prompts is not None):
            raise ConfigError("--stream prints a single text. Leave out -n and --prompts.")
        if self.stream and (self.output != "text" or self.show or self.receipt or self.beams):
            raise ConfigError(
                "--stream prints text only. Leave out --output, --show, --receipt and --beams."
            )
        if self.beams is not None:
            self._check_beams()
        if self.adapt is not None:
            self._check_adapt()
        if self.receipt is not None and self.receipt.exists() and not self.receipt.is_file():
            raise ConfigError(f"--receipt must be a file. Received: {self.receipt}.")

    def _check_adapt(self) -> None:
        """Raise unless there is one prompt to adapt to."""
        if self.prompts is not None:
            raise ConfigError(
                "--adapt trains on one prompt. Leave out --prompts, and pass --prompt or "
                "--prompt-file."
            )
        if self.replay is not None:
            raise ConfigError("--replay adapts as its receipt records. Leave out --adapt.")

    def _check_beams(self) -> None:
        """Raise if a setting is given that beam search does not use."""
        require_beam_settings(self.sampling)
        others = (self.prompts, self.show, self.receipt, self.logprobs)
        if self.output != "text" or any(other is not None for other in others):
            raise ConfigError(
                "--beams searches for the most probable text of one prompt. Leave out --prompts, "
                "--show, --receipt, --logprobs and --output."
            )


def run(arguments: list[str], prog: str) -> int:
    """Print the texts to stdout."""
    command = parse(GenerateCommand, arguments, prog=prog)
    if command.show == "order":
        print("\n".join(_processing_order(command.sampling)))
        return 0
    if command.replay is not None:
        return _replay(command, Receipt.load(command.replay))
    run_dir, rest = run_and_rest(command.words)
    requests = _requests(command, rest)
    for note in _contradictions(command):
        print(f"note: {note}", file=sys.stderr)
    bundle = load(run_dir.path, engine=command.engine, weights_format=command.weights_format)
    if command.adapt is not None:
        bundle = bundle.adapt(requests[0].prompt, command.adapt, unknown=command.unknown)
    if command.stream:
        _stream(bundle, requests[0], command)
    elif command.beams is not None:
        _search(bundle, requests[0], command)
    else:
        _generate(bundle, requests, command)
    return 0


def _processing_order(sampling: SamplingConfig) -> list[str]:
    """Return the steps applied to the logits, in order; those before the penalties need a model."""
    first = ("ban", "bias", "regex", "max_copy")
    restraints = [
        f"{name}({getattr(sampling, name)!r})" for name in first if getattr(sampling, name)
    ]
    return restraints + [str(step) for step in build_processors(sampling)]


def _requests(command: GenerateCommand, rest: list[str]) -> list[Request]:
    if rest not in ([], ["-"]):
        raise ConfigError(
            f"Expected at most a run directory and -. Received: {' '.join(command.words)}. "
            "Pass a prompt with --prompt or --prompt-file."
        )
    if command.prompts is not None:
        if command.prompt is not None or command.prompt_file is not None or rest:
            raise ConfigError("Pass either --prompts or a single prompt, not both.")
        return requests_from(command.prompts, command.sampling, command.num_samples)
    prompt = one_prompt(command.prompt, command.prompt_file, bool(rest))
    return [
        Request(prompt=prompt, sampling=command.sampling, sample_index=index)
        for index in range(command.num_samples)
    ]


def _contradictions(command: GenerateCommand) -> list[str]:
    """Return notes about settings that cancel each other."""
    sampling, notes = command.sampling, []
    if sampling.temperature == 0:
        if command.num_samples > 1:
            notes.append(f"at temperature 0 the {command.num_samples} texts are equal")
        idle = [name for name in FILTER_SETTINGS if getattr(sampling, name) is not None]
        if idle:
            flags = ", ".join("--" + name.replace("_", "-") for name in idle)
            notes.append(f"at temperature 0 {flags} changes nothing")
    if sampling.min_new_tokens > sampling.max_new_tokens:
        notes.append("--min-new-tokens exceeds --max-new-tokens: no stop condition applies")
    return notes


def _stream(bundle: Bundle, request: Request, command: GenerateCommand) -> None:
    pieces = bundle.stream(request.prompt, request.sampling, unknown=command.unknown)
    print(request.prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _search(bundle: Bundle, request: Request, command: GenerateCommand) -> None:
    found = bundle.search(
        request.prompt,
        command.beams or 1,
        request.sampling,
        length_penalty=command.length_penalty,
        unknown=command.unknown,
    )
    for beam in found[: command.num_samples]:
        print(request.prompt + beam.text)
        print(f"log-probability {beam.log_prob:.3f}, score {beam.score:.3f}", file=sys.stderr)


def _generate(bundle: Bundle, requests: list[Request], command: GenerateCommand) -> None:
    logprobs = command.logprobs
    if command.show == "surprise" and logprobs is None:
        logprobs = 0
    texts = bundle.generate_batch(requests, unknown=command.unknown, logprobs=logprobs)
    copies = None
    if command.show == "copies":
        copies = longest_copies(bundle.passages, [generated.text for generated in texts])
    if command.output == "jsonl":
        print_json_lines(requests, texts, copies)
    else:
        print_texts(requests, texts, colored=command.show == "surprise")
        if copies is not None:
            print_copies(texts, copies)
    if command.receipt is not None:
        receipt = bundle.receipt(requests, [generated.text for generated in texts], command.unknown)
        receipt.save(command.receipt)


def _replay(command: GenerateCommand, receipt: Receipt) -> int:
    """Generate again, print the texts, and report whether they are the same; return 1 if not."""
    path = command.words[0] if command.words else receipt.run
    bundle = load(path, engine=receipt.engine, weights_format=receipt.weights_format)
    bundle = bundle.replay_adaptations(receipt.adaptations)
    requests = list(receipt.requests)
    texts = bundle.generate_batch(requests, unknown=receipt.unknown)
    print_texts(requests, texts, colored=False)
    again = bundle.receipt(requests, [generated.text for generated in texts], receipt.unknown)
    differences = receipt.differences(again)
    print(
        "the same text" if not differences else f"not the same: {'; '.join(differences)}",
        file=sys.stderr,
    )
    return 1 if differences else 0

"""`generate`: write text with a trained model."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from textgen.bundle import Bundle, load
from textgen.cli.arguments import parse, run_and_rest
from textgen.cli.prompts import one_prompt, requests_from
from textgen.cli.writing import print_copies, print_json_lines, print_texts
from textgen.config import EngineName, SamplingConfig, UnknownPolicy, WeightsFormat
from textgen.errors import ConfigError
from textgen.generation import Request, longest_copies
from textgen.generation.receipts import Receipt
from textgen.sampling import build_processors

_MOST_SAMPLES = 100_000
_MOST_BEAMS = 512


@dataclass(frozen=True, kw_only=True)
class GenerateCommand:
    """Write text with a trained model.

    Without a RUN the newest one under runs/ is taken. An empty prompt starts where a
    text begins. The prompt is printed before the text.
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN] [-]")] = ()
    """A run directory; and - to read the prompt from standard input."""
    prompt: str | None = None
    """The text to go on from."""
    prompt_file: Path | None = None
    """A UTF-8 file with the text to go on from."""
    prompts: Path | None = None
    """A file with a prompt a line, or a JSON object a line with "prompt" and settings; - for
    standard input. All are written side by side."""
    num_samples: int = 1
    """How many texts to write for each prompt (also -n)."""
    stream: bool = False
    """Print the text while it is written."""
    output: Literal["text", "jsonl"] = "text"
    """Print text, or a JSON object for each text."""
    logprobs: int | None = None
    """With jsonl: for each token its probability, rank, entropy, and so many alternatives."""
    show: Literal["surprise", "copies", "order"] | None = None
    """Colour the text by how it surprised the model; or tell the longest span that stands in the
    training text; or print in which order the logits are processed, and write nothing."""
    receipt: Path | None = None
    """Write to this file what is needed to write the text again and to compare."""
    replay: Path | None = None
    """Write again what a receipt tells of, and say whether it is the same."""
    adapt: int | None = None
    """Learn from the prompt before writing, in so many passes over it; None: not. The run stays
    as it is."""
    beams: int | None = None
    """Search with so many beams for the most probable text instead of drawing one."""
    length_penalty: float = 0.6
    """How much beam search favours long texts; 0: not."""
    unknown: UnknownPolicy = "error"
    """What to do with a character of the prompt that the model never saw."""
    engine: EngineName = "auto"
    """Which implementation writes; all write the same."""
    weights_format: WeightsFormat = "float32"
    """Precision of the weights; less is faster, and refused where it costs over 0.005 nats."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.num_samples <= _MOST_SAMPLES:
            raise ConfigError(
                f"`num_samples` must be in [1, {_MOST_SAMPLES:,}]. "
                f"Received: {self.num_samples}. Pass -n."
            )
        if self.stream and (self.num_samples > 1 or self.prompts is not None):
            raise ConfigError("--stream shows one text while it is written. Leave out -n.")
        if self.stream and (self.output != "text" or self.show or self.receipt or self.beams):
            raise ConfigError(
                "--stream prints text alone. Leave out --output, --show, --receipt and --beams."
            )
        if self.beams is not None:
            self._check_beams()
        if self.adapt is not None:
            self._check_adapt()
        if self.receipt is not None and self.receipt.exists() and not self.receipt.is_file():
            raise ConfigError(
                f"`receipt` must be a file. Received: {self.receipt}. Pass --receipt."
            )
        if self.logprobs is not None and not 0 <= self.logprobs <= 1000:
            raise ConfigError(
                f"`logprobs` must be in [0, 1000]. Received: {self.logprobs}. Pass --logprobs."
            )

    def _check_adapt(self) -> None:
        """Refuse what has not one prompt to learn from."""
        if (self.adapt or 0) < 1:
            raise ConfigError(f"`adapt` must be at least 1. Received: {self.adapt}. Pass --adapt.")
        if self.prompts is not None:
            raise ConfigError(
                "--adapt learns from one prompt. Leave out --prompts, and pass --prompt or "
                "--prompt-file."
            )
        if self.replay is not None:
            raise ConfigError("--replay adapts as its receipt says. Leave out --adapt.")

    def _check_beams(self) -> None:
        """Refuse what beam search would pass over: it draws nothing and looks at no setting."""
        if not 1 <= (self.beams or 0) <= _MOST_BEAMS:
            raise ConfigError(
                f"`beams` must be in [1, {_MOST_BEAMS}]. Received: {self.beams}. Pass --beams."
            )
        plain = SamplingConfig(max_new_tokens=self.sampling.max_new_tokens)
        others = (self.prompts, self.show, self.receipt, self.logprobs)
        if self.sampling != plain or self.output != "text" or any(o is not None for o in others):
            raise ConfigError(
                "--beams searches for the most probable text of one prompt and takes "
                "--max-new-tokens, --length-penalty, --adapt and -n alone. Leave out the others."
            )


def run(arguments: list[str], prog: str) -> int:
    """Write the texts to stdout."""
    command = parse(GenerateCommand, arguments, prog=prog)
    if command.show == "order":
        print("\n".join(_order(command.sampling)))
        return 0
    if command.replay is not None:
        return _replay(command, Receipt.load(command.replay))
    run_dir, rest = run_and_rest(command.words)
    requests = _requests(command, rest)
    for warning in _contradictions(command):
        print(f"note: {warning}", file=sys.stderr)
    bundle = load(run_dir.path, engine=command.engine, weights_format=command.weights_format)
    if command.adapt is not None:
        bundle = bundle.adapt(requests[0].prompt, command.adapt, unknown=command.unknown)
    if command.stream:
        _stream(bundle, requests[0], command)
    elif command.beams is not None:
        _search(bundle, requests[0], command)
    else:
        _write(bundle, requests, command)
    return 0


def _order(sampling: SamplingConfig) -> list[str]:
    """Return what is done to the logits, first to last; the first rows need the model."""
    first = ("regex", "max_copy", "ban", "bias")
    restraints = [
        f"{name}({getattr(sampling, name)!r})" for name in first if getattr(sampling, name)
    ]
    return restraints + [str(step) for step in build_processors(sampling)]


def _requests(command: GenerateCommand, rest: list[str]) -> list[Request]:
    if rest not in ([], ["-"]):
        raise ConfigError(
            f"Expected a RUN, a folder, and - at most. Received: {' '.join(command.words)}. "
            "A text to go on from is given with --prompt or --prompt-file."
        )
    if command.prompts is not None:
        if command.prompt is not None or command.prompt_file is not None or rest:
            raise ConfigError("Pass --prompts, or one prompt, and not both.")
        return requests_from(command.prompts, command.sampling, command.num_samples)
    prompt = one_prompt(command.prompt, command.prompt_file, bool(rest))
    rows = range(command.num_samples)
    return [Request(prompt=prompt, sampling=command.sampling, sample_index=row) for row in rows]


def _contradictions(command: GenerateCommand) -> list[str]:
    """Return what settings do not do together what one might expect."""
    sampling, found = command.sampling, []
    filters = ("top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc_probability", "mirostat")
    if sampling.temperature == 0:
        if command.num_samples > 1:
            found.append(f"at temperature 0 the {command.num_samples} texts are equal")
        idle = [name for name in filters if getattr(sampling, name) is not None]
        if idle:
            flags = ", ".join("--" + name.replace("_", "-") for name in idle)
            found.append(f"at temperature 0 {flags} changes nothing")
    if sampling.min_new_tokens > sampling.max_new_tokens:
        found.append("--min-new-tokens is above --max-new-tokens: nothing stops the text early")
    return found


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
        command.sampling.max_new_tokens,
        length_penalty=command.length_penalty,
        unknown=command.unknown,
    )
    for text, beam in found[: command.num_samples]:
        print(request.prompt + text)
        print(f"log-probability {beam.log_prob:.3f}, score {beam.score:.3f}", file=sys.stderr)


def _write(bundle: Bundle, requests: list[Request], command: GenerateCommand) -> None:
    logprobs = command.logprobs
    if command.show == "surprise" and logprobs is None:
        logprobs = 0
    texts = bundle.generate_batch(requests, unknown=command.unknown, logprobs=logprobs)
    copies = None
    if command.show == "copies":
        copies = longest_copies(bundle.passages, [written.text for written in texts])
    if command.output == "jsonl":
        print_json_lines(requests, texts, copies)
    else:
        print_texts(requests, texts, coloured=command.show == "surprise")
        if copies is not None:
            print_copies(texts, copies)
    if command.receipt is not None:
        receipt = bundle.receipt(requests, [written.text for written in texts], command.unknown)
        receipt.save(command.receipt)


def _replay(command: GenerateCommand, receipt: Receipt) -> int:
    """Write again, print it, and say whether it is the same; the status says it as well."""
    path = command.words[0] if command.words else receipt.run
    bundle = load(path, engine=receipt.engine, weights_format=receipt.weights_format)
    bundle = bundle.replay_adaptations(receipt.adaptations)
    requests = list(receipt.requests)
    texts = bundle.generate_batch(requests, unknown=receipt.unknown)
    print_texts(requests, texts, coloured=False)
    again = bundle.receipt(requests, [written.text for written in texts], receipt.unknown)
    differences = receipt.differences(again)
    print(
        "the same text" if not differences else f"not the same: {'; '.join(differences)}",
        file=sys.stderr,
    )
    return 1 if differences else 0

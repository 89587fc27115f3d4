"""All that a training run is made from; it is stored in the run directory."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import tyro

from textgen.config.checks import from_values, require
from textgen.errors import ConfigError

SCHEMA_VERSION = 1

UnknownPolicy = Literal["error", "skip", "unk"]
GruKernel = Literal["auto", "cudnn", "fused", "reference"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Cell = Literal["gru", "lstm", "rnn"]
Schedule = Literal["cosine", "linear", "constant"]

DEFAULT_EPOCHS = 20
DEFAULT_STEPS = 1000
UNLIMITED_EPOCHS = 100_000
_LEAST_INTERVAL = 100
_NOT_NEGATIVE = (
    "warmup_steps",
    "sample_length",
    "weight_decay",
    "seq_len_jitter",
    "activation_penalty",
    "change_penalty",
)
_DROPOUTS = ("input_dropout", "embedding_dropout", "layer_dropout", "dropout", "weight_drop")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Where the text comes from and how it is split."""

    sources: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[FILE ...]")
    ] = ("builtin:python-docs",)
    """UTF-8 text files, - for standard input, builtin:python-docs, or tfds:NAME[:SPLIT]."""
    validation_fraction: float = 0.1
    """Share of the text, taken from its end, that is held out for validation."""
    text_feature: str = "text"
    """Name of the feature that holds the text in a tfds: source."""
    tfds_data_dir: str | None = None
    """Folder of prepared TFDS data sets; None: the default of TFDS."""

    document_end: str | None = None
    """Text such as <|endoftext|> that is put behind each file and each tfds: example, so that
    writing can stop there; None: the corpus is one text."""

    def __post_init__(self) -> None:
        require(self.document_end != "", "document_end", "a text that is not empty", "an empty one")
        require(
            0 < self.validation_fraction < 1,
            "validation_fraction",
            "above 0 and below 1",
            self.validation_fraction,
        )


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text becomes token ids."""

    tokenizer: Literal["char", "subword"] = "char"
    """One token a character, or SentencePiece subwords."""
    vocab_size: int = 2048
    """The most subwords, the 256 byte pieces included; characters ignore it."""
    subword_algorithm: Literal["bpe", "unigram"] = "bpe"
    """How SentencePiece finds its subwords."""
    min_count: int | None = None
    """Characters seen fewer times become UNK; None: every character has its own id."""
    unknown: UnknownPolicy = "error"
    """What to do with a character outside the alphabet; unk needs --min-count."""

    def __post_init__(self) -> None:
        require(self.vocab_size >= 260, "vocab_size", "at least 260", self.vocab_size)
        if self.min_count is not None:
            require(self.min_count >= 2, "min_count", "at least 2", self.min_count)
        if self.unknown == "unk" and self.min_count is None and self.tokenizer == "char":
            raise ConfigError(
                "`unknown=unk` needs a model that has learnt an UNK token. "
                "Received: min_count=None. Pass --min-count 2, or --unknown skip."
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: Embedding, `num_layers` recurrent layers, Dense."""

    embedding_dim: int = 256
    """Width of a token's vector."""
    hidden_size: int = 512
    """Units of each recurrent layer."""
    num_layers: int = 1
    """Recurrent layers on top of each other."""
    cell: Cell = "gru"
    """What a recurrent layer computes: a GRU, an LSTM, or the plain tanh cell."""
    output_gate: bool = False
    """Gate what a layer passes on: sigmoid(W [h_before, x] + b) * tanh(h)."""
    residual: bool = False
    """Each layer but the first adds its input to what it passes on."""
    layer_norm: bool = False
    """Each layer but the first normalises its input."""
    tie_weights: bool = False
    """The Dense layer's kernel is the embedding; needs --embedding-dim = --hidden-size."""
    dense_bias: Literal["frequencies", "zeros"] = "frequencies"
    """Initial bias of the Dense layer: the log frequencies of the training text's tokens, or 0."""
    first_state: Literal["zeros", "learnt"] = "zeros"
    """The state at the beginning of a text."""
    keep_bias: float | None = None
    """Initial bias of the gate that keeps the state, update or forget; None: 0, of an LSTM 1."""
    input_dropout: float = 0.0
    """Share of the embedded tokens' features dropped in training, the same all along a window."""
    embedding_dropout: float = 0.0
    """Share of the vocabulary whose vectors are dropped in a training step."""
    layer_dropout: float | None = None
    """Share of what one layer passes to the next dropped likewise; None: as --dropout."""
    dropout: float = 0.2
    """Share of the last layer's outputs dropped in training, the same all along a window."""
    weight_drop: float = 0.0
    """Share of each recurrent kernel's entries dropped in a training step."""

    @property
    def state_size(self) -> int:
        """Values that a layer carries from token to token."""
        return self.hidden_size * (2 if self.cell == "lstm" else 1)

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "hidden_size", "num_layers"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in _DROPOUTS:
            value = getattr(self, name)
            require(value is None or 0 <= value < 1, name, "at least 0 and below 1", value)
        if self.keep_bias is not None:
            require(math.isfinite(self.keep_bias), "keep_bias", "finite", self.keep_bias)
            require(self.cell != "rnn", "keep_bias", "None for the cell rnn", self.keep_bias)
        if self.tie_weights:
            limit = f"{self.hidden_size}, the hidden size, with --tie-weights"
            fits = self.embedding_dim == self.hidden_size
            require(fits, "embedding_dim", limit, self.embedding_dim)
        if self.residual or self.layer_norm or self.layer_dropout is not None:
            limit = "at least 2 with --residual, --layer-norm or --layer-dropout, between layers"
            require(self.num_layers >= 2, "num_layers", limit, self.num_layers)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the weights are found."""

    batch_size: int = 32
    """Lanes of the corpus that are read side by side."""
    seq_len: int = 64
    """Tokens a lane gives to one step."""
    seq_len_jitter: int = 0
    """Tokens by which each border between two windows is moved at random, either way."""
    epochs: int | None = None
    """Passes over the corpus; None: what --max-minutes allows, else 20, or 1,000 steps if more."""
    max_minutes: float | None = None
    """Wall-clock limit; the schedule follows whichever of this and --epochs ends first."""
    learning_rate: float = 2e-3
    """Peak of the schedule."""
    warmup_steps: int = 50
    """Steps in which the learning rate climbs to its peak, a twentieth of the run at most."""
    schedule: Schedule = "cosine"
    """How the learning rate falls from its peak."""
    final_learning_rate_fraction: float = 0.02
    """Where the schedule ends, as a share of the peak."""
    weight_decay: float = 0.02
    """Decoupled weight decay of AdamW, on the matrices alone."""
    clip_norm: float | None = 1.0
    """Largest global norm of the gradient; None: no clipping."""
    average: float | None = None
    """Decay of the moving average of the weights, which is validated and kept, shorter while
    training is young; None: no average."""
    state_reset: float = 0.0
    """Share of the lanes that each training step begins as a text begins, their past forgotten."""
    activation_penalty: float = 0.0
    """Weight in the loss of the mean square of what the Dense layer reads (AR)."""
    change_penalty: float = 0.0
    """Weight in the loss of the mean square of its change from token to token (TAR)."""
    validate_every: int | None = None
    """Steps between validations; None: after each epoch, or after 100 steps of shorter ones."""
    patience: int | None = None
    """Validations without a better loss before training stops; None: never."""
    checkpoint_minutes: float | None = 2.0
    """Minutes between checkpoints; None: only at validations."""
    sample_prompt: str = ""
    """What the sample after each validation begins with."""
    sample_length: int = 160
    """Tokens of the sample after each validation; 0 writes none."""
    seed: int = 1
    """Seed of weights, window offsets and dropout."""
    gru_kernel: GruKernel = "auto"
    """What computes the recurrent layers; auto: cuDNN on a GPU, else the fused kernels for CPUs."""
    precision: Precision = "auto"
    """Dtype of a training step's matrix products; auto: bfloat16 if the CPU has a unit for it."""

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the steps that `epochs` stands for, where an epoch has `steps_per_epoch`."""
        if self.epochs is not None:
            return self.epochs * steps_per_epoch
        if self.max_minutes is not None:
            return UNLIMITED_EPOCHS * steps_per_epoch
        return max(DEFAULT_EPOCHS * steps_per_epoch, DEFAULT_STEPS)

    def validation_interval(self, steps_per_epoch: int) -> int:
        """Return the steps between two validations."""
        epochs = -(-_LEAST_INTERVAL // steps_per_epoch)
        return self.validate_every or epochs * steps_per_epoch

    def __post_init__(self) -> None:
        for name in ("batch_size", "seq_len"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(0 <= self.seed < 2**32, "seed", "in [0, 2**32)", self.seed)
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            require(0 <= value < math.inf, name, "a number of at least 0", value)
        limit = f"below a quarter of seq_len, {self.seq_len / 4:g}"
        require(
            4 * self.seq_len_jitter < self.seq_len, "seq_len_jitter", limit, self.seq_len_jitter
        )
        reset = self.state_reset
        require(0 <= reset < 1, "state_reset", "at least 0 and below 1", reset)
        if self.change_penalty:
            require(self.seq_len >= 2, "seq_len", "at least 2 with --change-penalty", self.seq_len)
        average = self.average
        require(average is None or 0 < average < 1, "average", "above 0 and below 1", average)
        for name in (
            "epochs",
            "max_minutes",
            "learning_rate",
            "clip_norm",
            "validate_every",
            "patience",
            "checkpoint_minutes",
        ):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, name, "a number above 0", value)
        fraction = self.final_learning_rate_fraction
        require(0 <= fraction <= 1, "final_learning_rate_fraction", "between 0 and 1", fraction)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that a training run is made from."""

    preset: str | None = None
    """Named settings that the other flags change: demo, shakespeare, small, medium, large, subword,
    poetry, code, gpu; or auto: chosen for the text, --max-minutes and the speed of this machine."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, `schema_version` first; JSON can hold them."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild what `to_dict` gave.

        Args:
            values: Nested plain values, as JSON gives them.

        Returns:
            The configuration; what is absent takes its default.

        Raises:
            ConfigError: The schema is newer than this program, or a key is unknown.
        """
        version = values.get("schema_version", 0)
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"`schema_version` must be at most {SCHEMA_VERSION}. Received: {version}. "
                "The run was written by a newer textgen: upgrade to read it."
            )
        return from_values(cls, {key: v for key, v in values.items() if key != "schema_version"})

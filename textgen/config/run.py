"""Settings of a training run; they are stored in the run directory."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import tyro

from textgen.config.checks import check_settings, from_values
from textgen.config.limits import (
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    BELOW_ONE,
    FINITE,
    NOT_EMPTY,
    POSITIVE,
    Limits,
    require,
)
from textgen.config.migrations import SCHEMA_VERSION, migrate_config
from textgen.errors import ConfigError

UnknownPolicy = Literal["error", "skip", "unk"]
# The choices after `auto` has been resolved.
ResolvedKernel = Literal["cudnn", "fused", "reference"]
ResolvedDtype = Literal["float32", "bfloat16", "float16"]
Kernel = Literal["auto", ResolvedKernel]
MatmulDtype = Literal["auto", ResolvedDtype]
SubwordAlgorithm = Literal["bpe", "unigram"]
Cell = Literal["gru", "lstm", "rnn"]
Schedule = Literal["cosine", "linear", "constant"]
PresetName = Literal[
    "auto",
    "code",
    "demo",
    "gpu",
    "large",
    "medium",
    "poetry",
    "shakespeare",
    "small",
    "subword",
]

_DEFAULT_EPOCHS = 20
_DEFAULT_STEPS = 1000
_UNLIMITED_EPOCHS = 100_000
_MIN_VALIDATION_INTERVAL = 100

_Probability = Annotated[float, BELOW_ONE]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Sources of the text, and its split."""

    sources: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[FILE ...]")
    ] = ("builtin:python-docs",)
    """UTF-8 text files, - for standard input, builtin:python-docs, or tfds:NAME[:SPLIT]."""
    validation_fraction: Annotated[float, Limits(above=0, below=1)] = 0.1
    """Fraction of the text, taken from its end, that is held out for validation."""
    text_feature: str = "text"
    """Name of the feature that contains the text in a tfds: source."""
    tfds_data_dir: str | None = None
    """Folder of prepared TFDS data sets; None: the default of TFDS."""
    document_end: Annotated[str | None, NOT_EMPTY] = None
    """Text such as <|endoftext|> appended to each file and each tfds: example, so that generation
    can stop there; None: the corpus is one text."""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Conversion of text to token ids."""

    tokenizer: Literal["char", "subword"] = "char"
    """One token per character, or SentencePiece subwords."""
    vocab_size: Annotated[int, Limits(minimum=260, maximum=1_000_000)] = 2048
    """Maximum number of subwords, including the 256 byte pieces; ignored for characters."""
    subword_algorithm: SubwordAlgorithm = "bpe"
    """Algorithm with which SentencePiece learns the subwords."""
    min_count: Annotated[int | None, Limits(minimum=2)] = None
    """Characters that occur fewer times become UNK; None: every character has its own id."""
    unknown: UnknownPolicy = "error"
    """What to do with a character outside the alphabet; unk needs --min-count."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.unknown == "unk" and self.min_count is None and self.tokenizer == "char":
            raise ConfigError(
                "`unknown=unk` needs a vocabulary with an UNK token. Received: `min_count=None`. "
                "Set `min_count=2`, or `unknown=skip`."
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: Embedding, `num_layers` recurrent layers, Dense."""

    embedding_dim: Annotated[int, AT_LEAST_ONE] = 256
    """Size of a token's embedding vector."""
    hidden_size: Annotated[int, AT_LEAST_ONE] = 512
    """Units of each recurrent layer."""
    num_layers: Annotated[int, Limits(minimum=1, maximum=1_000)] = 1
    """Number of stacked recurrent layers."""
    cell: Cell = "gru"
    """Type of the recurrent layers: a GRU, an LSTM, or the plain tanh cell."""
    output_gate: bool = False
    """Gate each layer's output: sigmoid(W [h_prev, x] + b) * tanh(h)."""
    residual: bool = False
    """Add the input of each layer but the first to its output."""
    layer_norm: bool = False
    """Normalize the input of each layer but the first."""
    tie_weights: bool = False
    """Use the embedding as the Dense layer's kernel; needs --embedding-dim = --hidden-size."""
    dense_bias: Literal["frequencies", "zeros"] = "frequencies"
    """Initial bias of the Dense layer: the log frequencies of the training tokens, or 0."""
    initial_state: Literal["zeros", "learned"] = "zeros"
    """State at the start of a text: zeros, or learned in training."""
    forget_bias: Annotated[float | None, FINITE] = None
    """Initial bias of the gate that keeps the state (update or forget gate); None: 0, or 1 for an
    LSTM."""
    input_dropout: _Probability = 0.0
    """Dropout rate of the embedded tokens' features, with one mask per window."""
    embedding_dropout: _Probability = 0.0
    """Fraction of the vocabulary whose vectors are dropped in a training step."""
    layer_dropout: Annotated[float | None, BELOW_ONE] = None
    """Dropout rate between layers, with one mask per window; None: as --dropout."""
    dropout: _Probability = 0.2
    """Dropout rate of the last layer's outputs, with one mask per window."""
    weight_drop: _Probability = 0.0
    """Fraction of each recurrent kernel's entries dropped in a training step (DropConnect)."""

    @property
    def state_size(self) -> int:
        """Number of values that a layer carries from token to token."""
        return self.hidden_size * (2 if self.cell == "lstm" else 1)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.forget_bias is not None:
            require(self.cell != "rnn", "forget_bias", "None for the cell rnn", self.forget_bias)
        if self.tie_weights:
            expected = f"equal to `hidden_size` ({self.hidden_size}) with `tie_weights`"
            equal = self.embedding_dim == self.hidden_size
            require(equal, "embedding_dim", expected, self.embedding_dim)
        if self.residual or self.layer_norm or self.layer_dropout is not None:
            expected = "at least 2 with `residual`, `layer_norm` or `layer_dropout`"
            require(self.num_layers >= 2, "num_layers", expected, self.num_layers)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimization settings."""

    batch_size: Annotated[int, AT_LEAST_ONE] = 32
    """Number of lanes of the corpus that are read in parallel."""
    seq_len: Annotated[int, AT_LEAST_ONE] = 64
    """Tokens per lane and step."""
    seq_len_jitter: Annotated[int, AT_LEAST_ZERO] = 0
    """Maximum number of tokens by which each border between windows is randomly shifted."""
    epochs: Annotated[int | None, Limits(minimum=1, maximum=1_000_000)] = None
    """Passes over the corpus; None: as many as --max-minutes allows, else 20, or 1,000 steps if
    that is more."""
    max_minutes: Annotated[float | None, POSITIVE] = None
    """Wall-clock limit; the schedule follows whichever of this and --epochs ends first."""
    learning_rate: Annotated[float, POSITIVE] = 2e-3
    """Peak learning rate."""
    warmup_steps: Annotated[int, AT_LEAST_ZERO] = 50
    """Steps of linear warmup to the peak, at most a twentieth of the run."""
    schedule: Schedule = "cosine"
    """How the learning rate changes after its peak."""
    final_learning_rate_fraction: Annotated[float, Limits(minimum=0, maximum=1)] = 0.02
    """Final learning rate, as a fraction of the peak."""
    weight_decay: Annotated[float, AT_LEAST_ZERO] = 0.02
    """Decoupled weight decay of AdamW, applied to matrices only."""
    clip_norm: Annotated[float | None, POSITIVE] = 1.0
    """Maximum global norm of the gradient; None: no clipping."""
    ema_decay: Annotated[float | None, Limits(above=0, below=1)] = None
    """Decay of the exponential moving average of the weights, lower in the first steps; the average
    is validated and saved instead of the weights. None: no average."""
    state_reset_probability: _Probability = 0.0
    """Probability, per lane and step, of resetting the state to the initial state."""
    activation_penalty: Annotated[float, AT_LEAST_ZERO] = 0.0
    """Coefficient of activation regularization (AR): the mean square of the Dense layer's input."""
    temporal_penalty: Annotated[float, AT_LEAST_ZERO] = 0.0
    """Coefficient of temporal activation regularization (TAR): the mean square of the change of
    the Dense layer's input from token to token."""
    validate_every: Annotated[int | None, Limits(minimum=1, maximum=1_000_000)] = None
    """Steps between validations; None: one epoch, or as many epochs as make 100 steps."""
    patience: Annotated[int | None, AT_LEAST_ONE] = None
    """Validations without improvement before training stops; None: never stop early."""
    checkpoint_minutes: Annotated[float | None, POSITIVE] = 2.0
    """Minutes between checkpoints; None: only at validations."""
    sample_prompt: str = ""
    """Prompt of the sample that is generated after each validation."""
    sample_length: Annotated[int, AT_LEAST_ZERO] = 160
    """Tokens of that sample; 0: no samples."""
    seed: Annotated[int, Limits(minimum=0, below=2**32)] = 1
    """Seed of weights, window offsets and dropout."""
    kernel: Kernel = "auto"
    """Implementation of the recurrent layers; auto: cuDNN on a GPU, else the fused CPU kernel."""
    matmul_dtype: MatmulDtype = "auto"
    """Dtype of a training step's matrix products; auto: bfloat16 if the CPU has a unit for it."""

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of the run, unless a wall-clock limit ends it earlier."""
        if self.epochs is not None:
            return self.epochs * steps_per_epoch
        if self.max_minutes is not None:
            return _UNLIMITED_EPOCHS * steps_per_epoch
        return max(_DEFAULT_EPOCHS * steps_per_epoch, _DEFAULT_STEPS)

    def validation_interval(self, steps_per_epoch: int) -> int:
        """Return the number of steps between two validations."""
        epochs = -(-_MIN_VALIDATION_INTERVAL // steps_per_epoch)
        return self.validate_every or epochs * steps_per_epoch

    def __post_init__(self) -> None:
        check_settings(self)
        expected = f"less than a quarter of `seq_len` ({self.seq_len / 4:g})"
        jitter = self.seq_len_jitter
        require(4 * jitter < self.seq_len, "seq_len_jitter", expected, jitter)
        if self.temporal_penalty:
            expected = "at least 2 with `temporal_penalty`"
            require(self.seq_len >= 2, "seq_len", expected, self.seq_len)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of a training run."""

    preset: PresetName | None = None
    """Named settings, which the other flags override; auto: chosen for the text, --max-minutes and
    the speed of this machine."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check_settings(self)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON, `schema_version` first."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the configuration that `to_dict` of this or an older version described.

        Args:
            values: Nested plain values, as `json.loads` returns them.

        Returns:
            The configuration; a missing setting takes its default.

        Raises:
            ConfigError: The schema is newer than this program, a key is unknown, or a value has
                the wrong type or is out of range.
        """
        return from_values(cls, migrate_config(values))

"""A trained model ready to use: tokenizer, configuration and weights, loaded together."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from textgen.config import RunConfig, SamplingConfig, UnknownPolicy
from textgen.errors import RunError
from textgen.evaluation import score_text, score_tokens, surprise
from textgen.generation import Engine, EngineName, generate, make_engine, stream
from textgen.metrics import TextScore
from textgen.runs import RunDirectory
from textgen.tokenizers import Tokenizer


@dataclass(frozen=True)
class Bundle:
    """A trained model: text in, text out.

    Attributes:
        run: Where it was loaded from.
        config: The settings it was trained with.
        tokenizer: Text to token ids and back.
        engine: Computes the logits.
    """

    run: RunDirectory
    config: RunConfig
    tokenizer: Tokenizer
    engine: Engine

    def generate(
        self,
        prompt: str = "",
        sampling: SamplingConfig | None = None,
        *,
        unknown: UnknownPolicy = "error",
    ) -> str:
        """Write one text.

        Args:
            prompt: The text to go on from; empty: where a text begins.
            sampling: How to draw; None: the defaults of `SamplingConfig`.
            unknown: What to do with a character the model never saw.

        Returns:
            What was written, without the prompt.

        Raises:
            TokenizerError: The prompt has an unknown character, under `"error"`.
        """
        (text,) = self.generate_many(prompt, 1, sampling, unknown=unknown)
        return text

    def generate_many(
        self,
        prompt: str,
        num_samples: int,
        sampling: SamplingConfig | None = None,
        *,
        unknown: UnknownPolicy = "error",
    ) -> list[str]:
        """Write `num_samples` texts from one prompt; see `generate`."""
        return generate(
            self.engine,
            self.tokenizer,
            prompt,
            sampling or SamplingConfig(),
            num_samples,
            unknown,
        )

    def stream(
        self,
        prompt: str = "",
        sampling: SamplingConfig | None = None,
        *,
        unknown: UnknownPolicy = "error",
    ) -> Iterator[str]:
        """Yield one text piece by piece while it is written; never a part of a character."""
        return stream(self.engine, self.tokenizer, prompt, sampling or SamplingConfig(), unknown)

    def score(self, text: str, *, unknown: UnknownPolicy = "error") -> TextScore:
        """Return what the model pays for `text`, in one pass with carried state.

        A long text is read in up to 32 lanes side by side; each but the first reads 256
        tokens before its predictions count.
        """
        return score_text(self.engine, self.tokenizer, text, unknown)

    def score_split(self, split: Literal["train", "validation"]) -> TextScore:
        """Return what the model pays for a split of the corpus it was trained on."""
        corpus = self.run.read_corpus()
        token_ids = getattr(corpus, split)
        return score_tokens(
            self.engine,
            token_ids,
            self.tokenizer.start_id,
            getattr(corpus, f"{split}_characters"),
            getattr(corpus, f"{split}_bytes"),
        )

    def surprise(self, text: str, *, unknown: UnknownPolicy = "error") -> list[tuple[str, float]]:
        """Return the pieces of `text`, each with what it costs the model in bits."""
        return surprise(self.engine, self.tokenizer, text, unknown)


def load(run_dir: str | Path, *, engine: EngineName = "auto") -> Bundle:
    """Load a run by its path alone.

    Args:
        run_dir: The run directory, wherever it was moved to.
        engine: Which implementation computes; all compute the same.

    Returns:
        The model, ready to write and to score.

    Raises:
        RunError: The run is missing, incomplete, damaged, of a newer schema, or its
            tokenizer does not belong to its weights.
    """
    run = RunDirectory(Path(run_dir))
    config = run.read_config()
    tokenizer = run.read_tokenizer()
    weights = run.read_weights(tokenizer)
    if (weights.hidden_size, weights.num_layers) != (
        config.model.hidden_size,
        config.model.num_layers,
    ):
        raise RunError(f"config.json and model.safetensors of {run.path} do not fit together.")
    return Bundle(run, config, tokenizer, make_engine(engine, weights))

"""A trained model ready to use: tokenizer, configuration and weights, loaded together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from textgen.config import (
    DynamicConfig,
    EngineName,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    ScoringProtocol,
    Split,
    UnknownPolicy,
    WeightsFormat,
)
from textgen.corpora.passages import PassageIndex
from textgen.engines import Engine, choose_engine, make_engine
from textgen.engines.base import unsupported_settings
from textgen.engines.onnx import LOOP_SETTINGS
from textgen.errors import ConfigError, RunError
from textgen.evaluation import (
    EncodedText,
    OnProgress,
    adapt,
    dynamic_score,
    encode_text,
    score_carried,
    score_windows,
    surprise,
)
from textgen.generation import (
    Beam,
    GeneratedText,
    Request,
    beam_search,
    calibrate_temperature,
    generate_texts,
    stream_text,
)
from textgen.generation.receipts import Adaptation, Receipt, installed_versions, text_hashes
from textgen.metrics import TextScore
from textgen.models.weights import ModelWeights
from textgen.runs import RunDirectory
from textgen.storage import tensors_sha256
from textgen.tokenizers import Tokenizer

# What rounding the weights may cost on the validation text, nats per token.
MOST_LOSS = 0.005


@dataclass(frozen=True)
class Bundle:
    """A trained model: text in, text out.

    Attributes:
        run: Where it was loaded from.
        config: The settings it was trained with.
        tokenizer: Text to token ids and back.
        weights: The model.
        engine_name: Which implementation computes.
        weights_format: Of the weights it writes and scores with.
        adaptations: What it has learned since it was loaded, first to last.
    """

    run: RunDirectory
    config: RunConfig
    tokenizer: Tokenizer
    weights: ModelWeights
    engine_name: EngineName = "auto"
    weights_format: WeightsFormat = "float32"
    adaptations: tuple[Adaptation, ...] = ()

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
        requests = [
            Request(prompt=prompt, sampling=sampling or SamplingConfig(), sample_index=row)
            for row in range(num_samples)
        ]
        return [written.text for written in self.generate_batch(requests, unknown=unknown)]

    def generate_batch(
        self,
        requests: Sequence[Request],
        *,
        unknown: UnknownPolicy = "error",
        logprobs: int | None = None,
    ) -> list[GeneratedText]:
        """Write the texts of many requests, of different prompts and settings, side by side.

        Args:
            requests: What to write.
            unknown: What to do with a character the model never saw.
            logprobs: Also return what the model thought of each token, with so many
                alternatives.

        Returns:
            The texts, in the order of the requests.

        Raises:
            ConfigError: Settings that this model cannot fulfil.
            TokenizerError: A prompt has an unknown character, under `"error"`.
        """
        return generate_texts(
            self._engine(self._engine_for(requests, logprobs)),
            self.tokenizer,
            [self.resolve(request) for request in requests],
            unknown=unknown,
            logprobs=logprobs,
            passages=self._passages_for(requests),
        )

    def stream(
        self,
        prompt: str = "",
        sampling: SamplingConfig | None = None,
        *,
        unknown: UnknownPolicy = "error",
    ) -> Iterator[str]:
        """Yield one text piece by piece while it is written; never a part of a character."""
        request = Request(prompt=prompt, sampling=sampling or SamplingConfig())
        return stream_text(
            self._engine(self._engine_for([request])),
            self.tokenizer,
            self.resolve(request),
            unknown=unknown,
            passages=self._passages_for([request]),
        )

    def search(
        self,
        prompt: str = "",
        num_beams: int = 4,
        sampling: SamplingConfig | None = None,
        *,
        length_penalty: float = 0.6,
        unknown: UnknownPolicy = "error",
    ) -> list[tuple[str, Beam]]:
        """Return the most probable texts that beam search finds, best first; see `beam_search`."""
        request = Request(prompt=prompt, sampling=sampling or SamplingConfig())
        beams = beam_search(
            self.engine,
            self.tokenizer,
            prompt,
            num_beams=num_beams,
            sampling=self.resolve(request).sampling,
            length_penalty=length_penalty,
            unknown=unknown,
        )
        return [(beam.text, beam) for beam in beams]

    def receipt(
        self, requests: Sequence[Request], texts: Sequence[str], unknown: UnknownPolicy = "error"
    ) -> Receipt:
        """Return what is needed to write `texts` again and to compare."""
        loaded = self.adaptations[0].weights_sha256 if self.adaptations else self.weights_sha256
        return Receipt(
            run=str(self.run.path),
            weights_sha256=loaded,
            tokenizer_sha256=self.tokenizer.fingerprint(),
            engine=self._engine_for(requests),
            weights_format=self.weights_format,
            unknown=unknown,
            requests=tuple(self.resolve(request) for request in requests),
            text_sha256=text_hashes(texts),
            versions=installed_versions(),
            adaptations=self.adaptations,
        )

    def resolve(self, request: Request) -> Request:
        """Return the request with what only the run knows filled in.

        Args:
            request: Any.

        Returns:
            The request with a number for `temperature="auto"`, and the run's document end
            among the stop texts for `stop_at_document`.

        Raises:
            ConfigError: The run was trained without a document end.
        """
        sampling = request.sampling
        if sampling.temperature == "auto":
            sampling = replace(sampling, temperature=self.temperature)
        if sampling.stop_at_document:
            end = self.config.corpus.document_end
            if end is None:
                raise ConfigError(
                    "`stop_at_document` needs a run that was trained with --document-end. "
                    f"Received: {self.run.path}. Pass --stop with a text that ends one."
                )
            sampling = replace(sampling, stop=(*sampling.stop, end), stop_at_document=False)
        return replace(request, sampling=sampling)

    @cached_property
    def temperature(self) -> float:
        """The temperature of `auto`: measured at the first use, then kept with the run."""
        return float(self._measured("temperature", self._measure_temperature)["temperature"])

    def _measure_temperature(self) -> dict[str, float]:
        held_out = self.tokenizer.decode(self.run.read_corpus().validation)
        calibration = calibrate_temperature(self.engine, self.tokenizer, held_out)
        return {
            "temperature": calibration.temperature,
            "held_out_entropy": calibration.held_out_entropy,
            "written_entropy": calibration.generated_entropy,
        }

    def _measured(self, name: str, measure: Callable[[], dict[str, float]]) -> dict[str, Any]:
        """Return what `measure` gives, kept with the run; of an adapted model it is not kept."""
        if self.adaptations:
            return measure()
        found = self.run.read_measurement(name, self.weights_sha256)
        if found is None:
            found = measure()
            self.run.write_measurement(name, self.weights_sha256, found)
        return found

    @cached_property
    def passages(self) -> PassageIndex:
        """The index of the training text: built at the first use, then kept with the run."""
        return self.run.read_passages(self.tokenizer)

    def _passages_for(self, requests: Sequence[Request]) -> PassageIndex | None:
        wanted = any(request.sampling.max_copy is not None for request in requests)
        return self.passages if wanted else None

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights' values."""
        return tensors_sha256(self.weights.to_tensors())

    @property
    def engine(self) -> Engine:
        """What computes where many tokens are read at once."""
        return self._engine("onnx" if self.engine_name == "auto" else self.engine_name)

    def _engine_for(self, requests: Sequence[Request], logprobs: int | None = None) -> EngineName:
        """Return which engine writes: the one asked for, or the fastest."""
        if self.engine_name != "auto":
            return self.engine_name
        tokens = max((request.sampling.max_new_tokens for request in requests), default=0)
        samplings = [self.resolve(request).sampling for request in requests]
        in_loop = not any(unsupported_settings(s, LOOP_SETTINGS) for s in samplings)
        return choose_engine(
            self.weights,
            self.weights_format,
            len(requests),
            tokens,
            stepwise=logprobs is not None or not in_loop,
        )

    def _engine(self, name: EngineName) -> Engine:
        if name not in self._engines:
            self._engines[name] = make_engine(name, self.weights, self.weights_format)
        return self._engines[name]

    @cached_property
    def _engines(self) -> dict[EngineName, Engine]:
        return {}

    def adapt(
        self,
        text: str,
        passes: int = 1,
        settings: DynamicConfig | None = None,
        *,
        unknown: UnknownPolicy = "error",
    ) -> "Bundle":
        """Return a model that has learned from `text`; this one and its run stay as they are.

        Args:
            text: At least two tokens, in the manner that the model is to take over.
            passes: How many times it reads the text, at most 1,000; more bind it closer.
            settings: How it learns; None: as in dynamic evaluation, see `DynamicConfig`.
            unknown: What to do with a character the model never saw.

        Returns:
            The adapted model. What is measured of it is not kept with the run.

        Raises:
            ConfigError: `text` is too short, or `passes` lies outside `[1, 1000]`.
            RunError: Rounded to its weights_format, the adapted model loses too much.
            TokenizerError: `text` has an unknown character, under `"error"`.
            TrainingError: The weights grew beyond all bounds.
        """
        token_ids = self.tokenizer.encode(text, unknown)
        settings = settings or DynamicConfig()
        learned = Adaptation(
            text=text,
            passes=passes,
            settings=settings,
            unknown=unknown,
            weights_sha256=self.weights_sha256,
        )
        start_id = self.tokenizer.start_id
        weights = adapt(self.weights, self.config.model, token_ids, start_id, settings, passes)
        return _require_exact(
            replace(self, weights=weights, adaptations=(*self.adaptations, learned))
        )

    def replay_adaptations(self, adaptations: Sequence[Adaptation]) -> "Bundle":
        """Return a model that has learned what a receipt tells of, first to last."""
        bundle = self
        for learned in adaptations:
            bundle = bundle.adapt(
                learned.text, learned.passes, learned.settings, unknown=learned.unknown
            )
        return bundle

    def score(
        self,
        text: str,
        *,
        unknown: UnknownPolicy = "error",
        protocol: ScoringProtocol = "carried",
        on_progress: OnProgress | None = None,
    ) -> TextScore:
        """Return what the model pays for `text`, read from left to right.

        Args:
            text: At least one token.
            unknown: What to do with a character the model never saw.
            protocol: `"carried"`: one pass with carried state, a long text in up to 32 lanes
                side by side, each but the first with 256 tokens before its predictions
                count. `"windows"`: windows of 256 tokens that each begin with the initial
                state, see `score_windows`. `"dynamic"`: one pass in which a float32 copy of
                the model learns from what it has scored, see `dynamic_score`.
            on_progress: Told the share of the tokens that are scored, 0 to 1, on the way.

        Returns:
            Total nats and what they are divided by.

        Raises:
            ConfigError: There is no such protocol.
            CorpusError: No token is left to score.
            TokenizerError: A character is unknown, under `"error"`.
        """
        return self._score(encode_text(self.tokenizer, text, unknown), protocol, on_progress)

    def score_split(
        self,
        split: Split,
        protocol: ScoringProtocol = "carried",
        on_progress: OnProgress | None = None,
    ) -> TextScore:
        """Return what the model pays for a split of the corpus it was trained on; see `score`."""
        corpus = self.run.read_corpus()
        encoded = EncodedText(
            token_ids=getattr(corpus, split),
            characters=getattr(corpus, f"{split}_characters"),
            bytes=getattr(corpus, f"{split}_bytes"),
        )
        return self._score(encoded, protocol, on_progress)

    def _score(
        self, encoded: EncodedText, protocol: ScoringProtocol, on_progress: OnProgress | None
    ) -> TextScore:
        parts = encoded, self.tokenizer.start_id
        if protocol == "dynamic":
            return dynamic_score(self.weights, self.config.model, *parts, on_progress=on_progress)
        scorers = {"carried": score_carried, "windows": score_windows}
        if protocol not in scorers:
            raise ConfigError(
                f"`protocol` must be one of {', '.join(scorers)}, dynamic. Received: {protocol}. "
                "Pass --protocol."
            )
        return scorers[protocol](self.engine, *parts, on_progress)

    def surprise(self, text: str, *, unknown: UnknownPolicy = "error") -> list[tuple[str, float]]:
        """Return the pieces of `text`, each with what it costs the model in bits."""
        return surprise(self.engine, self.tokenizer, text, unknown)

    def rounding_loss(self) -> float:
        """Return what the precision costs on the validation text, nats per token; kept."""
        found = self._measured(f"rounding_{self.weights_format}", self._measure_rounding)
        return float(found[self.weights_format] - found["float32"])

    def _measure_rounding(self) -> dict[str, float]:
        whole = replace(self, weights_format="float32").score_split("validation").loss
        return {"float32": whole, self.weights_format: self.score_split("validation").loss}


def load(
    run_dir: str | Path, *, engine: EngineName = "auto", weights_format: WeightsFormat = "float32"
) -> Bundle:
    """Load a run by its path alone.

    Args:
        run_dir: The run directory, wherever it was moved to.
        engine: Which implementation computes; all compute the same.
        weights: Precision of the weights; below float32 they are first held to the
            validation text, once for a run.

    Returns:
        The model, ready to write and to score.

    Raises:
        RunError: The run is missing, incomplete, damaged, of a newer schema, or its
            tokenizer does not belong to its weights.
        ConfigError: The engine has no such precision.
    """
    run = RunDirectory(Path(run_dir))
    config = run.read_config()
    tokenizer = run.read_tokenizer()
    loaded = run.read_weights(tokenizer)
    if not _is_of(loaded, config.model):
        raise RunError(f"config.json and model.safetensors of {run.path} do not fit together.")
    return _require_exact(Bundle(run, config, tokenizer, loaded, engine, weights_format))


def _require_exact(bundle: Bundle) -> Bundle:
    """Return the model if its precision is held to cost little on the validation text."""
    weights_format = bundle.weights_format
    if weights_format != "float32" and (loss := bundle.rounding_loss()) > MOST_LOSS:
        raise RunError(
            f"`weights_format={weights_format}` must cost at most {MOST_LOSS} nats per token on the validation "
            f"text. Received: {loss:.4f}. Pass --weights-format float32."
        )
    return bundle


def _is_of(weights: ModelWeights, config: ModelConfig) -> bool:
    names = ("cell", "embedding_dim", "hidden_size", "num_layers", "residual")
    last = weights.layers[-1]
    parts = (
        (config.output_gate, last.output_gate),
        (config.layer_norm, last.norm),
        (config.initial_state == "learned", weights.learned_initial_state),
    )
    same = all(getattr(weights, name) == getattr(config, name) for name in names)
    return same and all(wanted == (part is not None) for wanted, part in parts)

"""A trained model ready to use: tokenizer, configuration and weights, loaded together."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from textgen.config import (
    DynamicConfig,
    EngineName,
    NumAlternatives,
    NumSamples,
    RunConfig,
    SamplingConfig,
    ScoringProtocol,
    Split,
    UnknownPolicy,
    WeightsFormat,
    check_argument,
    require,
)
from textgen.corpora.passages import PassageIndex
from textgen.engines import (
    Engine,
    EnginePool,
    load_or_quantize,
    make_engine,
    require_engine,
)
from textgen.engines.quantized import MeasureLoss, QuantizedStore
from textgen.errors import ConfigError, RunError, describe_value
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
from textgen.models.quantized import QuantizedWeights
from textgen.models.weights import ModelWeights
from textgen.runs import RunDirectory
from textgen.storage import tensors_sha256
from textgen.tokenizers import Tokenizer

_log = logging.getLogger("textgen")


@dataclass(frozen=True)
class Bundle:
    """A trained model: text in, text out.

    Attributes:
        run: The run directory it was loaded from.
        config: The settings it was trained with.
        tokenizer: Text to token ids and back.
        engines: The weights, and the engines that compute with them.
        adaptations: The texts it was adapted to after loading, in order.

    Public methods raise `ConfigError` if an argument has the wrong type or is out of range.
    """

    run: RunDirectory
    config: RunConfig = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    engines: EnginePool
    adaptations: tuple[Adaptation, ...] = field(default=(), repr=False)

    @property
    def weights(self) -> ModelWeights:
        """The weights in float32."""
        return self.engines.weights

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the values of the float32 weights."""
        return tensors_sha256(self.weights.to_tensors())

    @property
    def engine(self) -> Engine:
        """The engine for scoring: the preferred one, or for `"auto"` the fastest reader."""
        return self.engines.engine()

    def generate(
        self,
        prompt: str = "",
        sampling: SamplingConfig | None = None,
        *,
        unknown: UnknownPolicy = "error",
    ) -> str:
        """Generate one text.

        Args:
            prompt: The text to continue; empty: the start of a text.
            sampling: How tokens are drawn, and when the text ends; None: the defaults of
                `SamplingConfig`.
            unknown: What to do with a character of the prompt that the vocabulary lacks.

        Returns:
            The generated text, without the prompt.

        Raises:
            ConfigError: This model cannot apply a setting.
            TokenizerError: The prompt has an unknown character, and `unknown` is `"error"`.
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
        """Generate several texts from one prompt.

        Args:
            prompt: As for `generate`.
            num_samples: Number of texts.
            sampling: As for `generate`.
            unknown: As for `generate`.

        Returns:
            The texts, without the prompt.

        Raises:
            ConfigError: This model cannot apply a setting, or `num_samples` is out of range.
            TokenizerError: The prompt has an unknown character, and `unknown` is `"error"`.
        """
        num_samples = check_argument(num_samples, NumSamples, "num_samples")
        requests = [_make_request(prompt, sampling, index) for index in range(num_samples)]
        return [generated.text for generated in self.generate_batch(requests, unknown=unknown)]

    def generate_batch(
        self,
        requests: Sequence[Request],
        *,
        unknown: UnknownPolicy = "error",
        logprobs: int | None = None,
    ) -> list[GeneratedText]:
        """Generate one text per request in one batch; prompts and settings may differ.

        Args:
            requests: Prompts and settings.
            unknown: What to do with a character of a prompt that the vocabulary lacks.
            logprobs: Also return each token's log-probability and this many alternatives; None:
                do not.

        Returns:
            The texts, in the order of the requests.

        Raises:
            ConfigError: This model cannot apply a setting.
            TokenizerError: A prompt has an unknown character, and `unknown` is `"error"`.
        """
        check_argument(unknown, UnknownPolicy, "unknown")
        check_argument(logprobs, NumAlternatives | None, "logprobs")
        resolved = _resolve_all(self, requests)
        return generate_texts(
            _fastest_engine(self, resolved, stepwise=logprobs is not None),
            self.tokenizer,
            resolved,
            unknown=unknown,
            logprobs=logprobs,
            passages=_passages_for(self, resolved),
        )

    def stream(
        self,
        prompt: str = "",
        sampling: SamplingConfig | None = None,
        *,
        unknown: UnknownPolicy = "error",
    ) -> Iterator[str]:
        """Generate one text piece by piece.

        Args:
            prompt: As for `generate`.
            sampling: As for `generate`.
            unknown: As for `generate`.

        Returns:
            An iterator over pieces of whole characters, which join to the text that `generate`
            returns.

        Raises:
            ConfigError: This model cannot apply a setting. Raised by the call, before the first
                piece, as is `TokenizerError`.
            TokenizerError: The prompt has an unknown character, and `unknown` is `"error"`.
        """
        check_argument(unknown, UnknownPolicy, "unknown")
        resolved = _resolve_all(self, [_make_request(prompt, sampling)])
        return stream_text(
            _fastest_engine(self, resolved),
            self.tokenizer,
            resolved[0],
            unknown=unknown,
            passages=_passages_for(self, resolved),
        )

    def search(
        self,
        prompt: str = "",
        num_beams: int = 4,
        sampling: SamplingConfig | None = None,
        *,
        length_penalty: float = 0.6,
        unknown: UnknownPolicy = "error",
    ) -> list[Beam]:
        """Return the most probable texts that beam search finds, the best first.

        Args:
            prompt: The text to continue; empty: the start of a text.
            num_beams: Number of candidates kept at each step, and of texts returned.
            sampling: Maximum length and stop conditions; other settings must have their
                defaults. None: the defaults of `SamplingConfig`.
            length_penalty: Exponent `a` of the score `log_prob / length ** a`: larger values
                favor longer texts; see `beam_search`.
            unknown: What to do with a character of the prompt that the vocabulary lacks.

        Returns:
            At most `num_beams` texts with their scores.

        Raises:
            ConfigError: A setting that beam search does not apply differs from its default.
            TokenizerError: The prompt has an unknown character, and `unknown` is `"error"`.
        """
        check_argument(unknown, UnknownPolicy, "unknown")
        request = self.resolve(_make_request(prompt, sampling))
        return beam_search(
            self.engine,
            self.tokenizer,
            request.prompt,
            num_beams=num_beams,
            sampling=request.sampling,
            length_penalty=length_penalty,
            unknown=unknown,
        )

    def receipt(
        self, requests: Sequence[Request], texts: Sequence[str], unknown: UnknownPolicy = "error"
    ) -> Receipt:
        """Return a record of what is needed to generate texts again and to compare them.

        Args:
            requests: The requests for which the texts were generated.
            texts: One per request.
            unknown: What was done with unknown characters of the prompts.

        Returns:
            The receipt.

        Raises:
            ConfigError: There is not one text per request.
        """
        resolved = _resolve_all(self, requests)
        texts = check_argument(texts, tuple[str, ...], "texts")
        require(len(texts) == len(resolved), "texts", f"{len(resolved)} strings", len(texts))
        check_argument(unknown, UnknownPolicy, "unknown")
        loaded = self.adaptations[0].weights_sha256 if self.adaptations else self.weights_sha256
        return Receipt(
            run=str(self.run.path),
            weights_sha256=loaded,
            tokenizer_sha256=self.tokenizer.fingerprint(),
            engine=self.engines.choose([request.sampling for request in resolved]),
            weights_format=self.engines.weights_format,
            unknown=unknown,
            requests=resolved,
            text_sha256=text_hashes(texts),
            versions=installed_versions(),
            adaptations=self.adaptations,
        )

    def resolve(self, request: Request) -> Request:
        """Return the request with settings that do not depend on the run.

        Args:
            request: Any request.

        Returns:
            The request with a number in place of `temperature="auto"`, measured at the first use,
            and with the run's document end as a stop text in place of `stop_at_document`.

        Raises:
            ConfigError: The run was trained without a document end, or its validation text is too
                short to measure the temperature.
        """
        check_argument(request, Request, "request")
        sampling = request.sampling
        if sampling.temperature == "auto":
            sampling = replace(sampling, temperature=self.temperature)
        if sampling.stop_at_document:
            end = self.config.corpus.document_end
            if end is None:
                raise ConfigError(
                    "`stop_at_document` must be False for a run that was trained without "
                    "`document_end`. Received: True. Pass `stop` with a text that ends a document."
                )
            sampling = replace(sampling, stop=(*sampling.stop, end), stop_at_document=False)
        return replace(request, sampling=sampling)

    @cached_property
    def temperature(self) -> float:
        """The temperature for `"auto"`: measured at the first use, then stored in the run.

        That of an adapted model is not stored.

        Raises:
            ConfigError: The validation text is too short.
        """
        name, sha256 = "temperature", self.weights_sha256
        found = None if self.adaptations else self.run.read_measurement(name, sha256)
        if found is None or name not in found:
            _log.info("measuring the value of `temperature=auto`")
            held_out = self.tokenizer.decode(self.run.read_corpus().validation)
            found = asdict(calibrate_temperature(self.engine, self.tokenizer, held_out))
            if not self.adaptations:
                self.run.write_measurement(name, sha256, found)
        return found[name]

    @cached_property
    def passages(self) -> PassageIndex:
        """The index of the training text: built at the first use, then stored in the run."""
        return self.run.read_passages(self.tokenizer)

    def adapt(
        self,
        text: str,
        passes: int = 1,
        settings: DynamicConfig | None = None,
        *,
        unknown: UnknownPolicy = "error",
    ) -> "Bundle":
        """Return a copy of the model trained on a text; this model and its run do not change.

        Args:
            text: At least two tokens, in the style that the model should adopt.
            passes: Passes over the text, at most 1,000; more passes fit it more closely.
            settings: How the weights are updated; None: the defaults of `DynamicConfig`.
            unknown: What to do with a character of the text that the vocabulary lacks.

        Returns:
            The adapted model. What is measured with it is not stored in the run.

        Raises:
            ConfigError: `text` is too short.
            DependencyError: TensorFlow is not installed.
            RunError: In its `weights_format` the loss of the adapted model increases too much.
            TokenizerError: `text` has an unknown character, and `unknown` is `"error"`.
            TrainingError: The weights became infinite or NaN.
        """
        check_argument(text, str, "text")
        check_argument(unknown, UnknownPolicy, "unknown")
        settings = check_argument(settings, DynamicConfig | None, "settings") or DynamicConfig()
        weights = adapt(
            self.weights,
            self.config.model,
            self.tokenizer.encode(text, unknown),
            self.tokenizer.start_id,
            settings,
            passes,
        )
        adaptation = Adaptation(
            text=text,
            passes=passes,
            settings=settings,
            unknown=unknown,
            weights_sha256=self.weights_sha256,
        )
        quantized = _quantize(
            weights, self.engines.weights_format, self.run, self.tokenizer, store=None
        )
        engines = EnginePool(weights, quantized, self.engines.preferred)
        return replace(self, engines=engines, adaptations=(*self.adaptations, adaptation))

    def replay_adaptations(self, adaptations: Sequence[Adaptation]) -> "Bundle":
        """Apply the adaptations of a receipt in order.

        Args:
            adaptations: The texts and how to train on them.

        Returns:
            The adapted model.

        Raises:
            TextgenError: As for `adapt`.
        """
        bundle = self
        for learned in check_argument(adaptations, tuple[Adaptation, ...], "adaptations"):
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
        """Score a text: its cross-entropy under the model.

        Args:
            text: At least one token.
            unknown: What to do with a character of the text that the vocabulary lacks.
            protocol: `"carried"`: one pass with carried state, a long text in up to 32 parallel
                lanes, each but the first with 256 warmup tokens; see `score_carried`.
                `"windows"`: windows of 256 tokens, each from the initial state; see
                `score_windows`. `"dynamic"`: one pass in which a float32 copy of the model is
                trained on each segment after scoring it; see `dynamic_score`.
            on_progress: Called from time to time with the fraction of the text that has been
                scored, in (0, 1].

        Returns:
            The score.

        Raises:
            CorpusError: No token is left to score.
            DependencyError: TensorFlow is not installed, and the protocol is `"dynamic"`.
            TokenizerError: A character is unknown, and `unknown` is `"error"`.
            TrainingError: The weights became infinite or NaN, and the protocol is `"dynamic"`.
        """
        check_argument(text, str, "text")
        check_argument(unknown, UnknownPolicy, "unknown")
        encoded = encode_text(self.tokenizer, text, unknown)
        return _score(self, encoded, protocol, on_progress)

    def score_split(
        self,
        split: Split,
        protocol: ScoringProtocol = "carried",
        on_progress: OnProgress | None = None,
    ) -> TextScore:
        """Score a split of the corpus that the model was trained on.

        Args:
            split: `"validation"` or `"train"`.
            protocol: As for `score`.
            on_progress: As for `score`.

        Returns:
            The score.

        Raises:
            DependencyError: TensorFlow is not installed, and the protocol is `"dynamic"`.
            RunError: The run's corpus is missing or damaged.
            TrainingError: The weights became infinite or NaN, and the protocol is `"dynamic"`.
        """
        check_argument(split, Split, "split")
        return _score(self, _split(self.run, split), protocol, on_progress)

    def surprise(self, text: str, *, unknown: UnknownPolicy = "error") -> list[tuple[str, float]]:
        """Return the pieces of a text with their bits.

        Args:
            text: At least one character.
            unknown: What to do with a character of the text that the vocabulary lacks.

        Returns:
            Pairs of text and `-log2 p`; see `textgen.evaluation.surprise`.

        Raises:
            CorpusError: No token is left to score.
            TokenizerError: A character is unknown, and `unknown` is `"error"`.
        """
        check_argument(text, str, "text")
        check_argument(unknown, UnknownPolicy, "unknown")
        return surprise(self.engine, self.tokenizer, text, unknown)


def load(
    run_dir: str | Path, *, engine: EngineName = "auto", weights_format: WeightsFormat = "float32"
) -> Bundle:
    """Load a run by its path alone.

    Args:
        run_dir: The run directory; it may have been moved.
        engine: Implementation that computes the logits; all agree up to float rounding.
        weights_format: Numeric format of the weights used for inference. For int8 and int4 the
            weights are quantized once per run, and their loss is measured on the validation text.

    Returns:
        The model, ready to generate and to score.

    Raises:
        ConfigError: An argument has the wrong type, or the engine or the model does not support
            the weights format.
        RunError: The run is missing, incomplete, damaged, of a newer schema, or its files belong
            to different models; or the quantized weights increase the loss too much.
    """
    path = check_argument(run_dir, str | Path, "run_dir")
    require_engine(engine, weights_format)
    run = RunDirectory(Path(path))
    config, tokenizer = run.read_config(), run.read_tokenizer()
    weights = run.read_weights(tokenizer)
    _require_match(run, config, weights)
    quantized = _quantize(weights, weights_format, run, tokenizer, store=run)
    return Bundle(run, config, tokenizer, EnginePool(weights, quantized, engine))


def _make_request(prompt: str, sampling: SamplingConfig | None, sample_index: int = 0) -> Request:
    sampling = SamplingConfig() if sampling is None else sampling
    return Request(prompt=prompt, sampling=sampling, sample_index=sample_index)


def _resolve_all(bundle: Bundle, requests: Sequence[Request]) -> tuple[Request, ...]:
    checked: tuple[Request, ...] = check_argument(requests, tuple[Request, ...], "requests")
    return tuple(map(bundle.resolve, checked))


def _fastest_engine(
    bundle: Bundle, resolved: Sequence[Request], *, stepwise: bool = False
) -> Engine:
    samplings = [request.sampling for request in resolved]
    return bundle.engines.engine(bundle.engines.choose(samplings, stepwise=stepwise))


def _passages_for(bundle: Bundle, resolved: Sequence[Request]) -> PassageIndex | None:
    needed = any(request.sampling.max_copy is not None for request in resolved)
    return bundle.passages if needed else None


def _score(
    bundle: Bundle, encoded: EncodedText, protocol: ScoringProtocol, on_progress: OnProgress | None
) -> TextScore:
    check_argument(protocol, ScoringProtocol, "protocol")
    accepted = on_progress is None or callable(on_progress)
    require(accepted, "on_progress", "a function, or None", describe_value(on_progress))
    start_id = bundle.tokenizer.start_id
    if protocol == "dynamic":
        model = bundle.config.model
        return dynamic_score(bundle.weights, model, encoded, start_id, on_progress=on_progress)
    score = score_carried if protocol == "carried" else score_windows
    return score(bundle.engine, encoded, start_id, on_progress)


def _require_match(run: RunDirectory, config: RunConfig, weights: ModelWeights) -> None:
    """Raise `RunError` unless the configuration describes the weights."""
    if found := weights.mismatches(config.model):
        raise RunError(
            f"config.json and {run.weights_path.name} of {run.path} must describe the same model. "
            f"Received: {'; '.join(found)}. Restore both files from the same copy."
        )


def _quantize(
    weights: ModelWeights,
    weights_format: WeightsFormat,
    run: RunDirectory,
    tokenizer: Tokenizer,
    store: QuantizedStore | None,
) -> QuantizedWeights | None:
    """Return the quantized weights, checked on the run's validation text; None for float32."""
    if weights_format == "float32":
        return None
    return load_or_quantize(
        weights, weights_format, _validation_loss(weights, run, tokenizer), store
    )


def _validation_loss(weights: ModelWeights, run: RunDirectory, tokenizer: Tokenizer) -> MeasureLoss:
    """Return a function that measures the loss of quantized weights; None: of `weights`."""

    def measure(quantized: QuantizedWeights | None) -> float:
        engine = make_engine("onnx", weights, quantized)
        return score_carried(engine, _split(run, "validation"), tokenizer.start_id).loss

    return measure


def _split(run: RunDirectory, split: Split) -> EncodedText:
    corpus = run.read_corpus()
    return EncodedText(
        token_ids=getattr(corpus, split),
        characters=getattr(corpus, f"{split}_characters"),
        bytes=getattr(corpus, f"{split}_bytes"),
    )

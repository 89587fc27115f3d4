"""The token loop, compared with a naive loop over one row."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

from textgen.config import SamplingConfig
from textgen.engines import make_engine
from textgen.errors import ConfigError
from textgen.generation.token_loop import Row, generate_tokens
from textgen.sampling import (
    StepContext,
    build_processors,
    keep_surprise_below,
    pick,
    pick_greedy,
    row_uniforms,
)

# Settings that change what is drawn.
SETTINGS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.0, "presence_penalty": 3.0},
    {"final_temperature": 0.1},
    {"top_k": 3},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"top_k": 5, "top_p": 0.9, "min_p": 0.01},
    {"typical_p": 0.5},
    {"top_n_sigma": 0.8},
    {"xtc_probability": 0.5},
    {"xtc_probability": 0.5, "xtc_threshold": 0.2},
    {"mirostat": 2.0},
    {"mirostat": 2.0, "mirostat_rate": 0.5},
    {"repetition_penalty": 1.5},
    {"presence_penalty": 1.0, "penalty_window": 4},
    {"frequency_penalty": 0.5},
    {"no_repeat_ngram": 2},
    {"dry_multiplier": 2.0},
    {"dry_multiplier": 2.0, "dry_base": 1.1, "dry_allowed_length": 1},
]
PROMPT = np.array([2, 1, 1, 6], np.int32)


def make_sampling(**settings):
    """Settings at a temperature at which every token is drawn now and then."""
    return SamplingConfig(**{"temperature": 2.0, **settings})


@pytest.fixture
def weights(lively_weights):
    return lively_weights(vocab_size=9)


@pytest.fixture
def engine(weights):
    return make_engine("numpy", weights)


class StepEngine:
    """An engine without a loop; records its calls.

    Args:
        engine: Computes the steps.
    """

    def __init__(self, engine):
        self._engine = engine
        self.vocab_size = engine.vocab_size
        self.initial_state, self.forward = engine.initial_state, engine.forward
        self.calls = []

    def prefill(self, token_ids, state):
        self.calls.append(("prefill", token_ids.shape))
        return self._engine.prefill(token_ids, state)

    def decode_step(self, token_ids, state):
        self.calls.append(("decode_step", token_ids.shape))
        return self._engine.decode_step(token_ids, state)


class RecordingLoopEngine(StepEngine):
    """An engine with a loop; records its calls."""

    def unsupported(self, sampling):
        return self._engine.unsupported(sampling)

    def run_loop(self, token_ids, state, uniforms, sampling, bias):
        self.calls.append(("run_loop", uniforms.shape))
        return self._engine.run_loop(token_ids, state, uniforms, sampling, bias)


class Sink:
    """Takes the tokens of a row, and ends it after a number of them.

    Args:
        limit: Number of tokens after which the row ends; None: it never ends.
    """

    def __init__(self, limit=None):
        self.token_ids, self.logits, self.limit = [], [], limit

    def __call__(self, token_ids, logits):
        assert self.limit is None or len(self.token_ids) < self.limit
        self.token_ids.extend(token_ids)
        self.logits.append(logits)
        return self.limit is None or len(self.token_ids) < self.limit


def make_row(sampling, index=0, prompt_ids=PROMPT, limit=None, banned=(), **arguments):
    bias = np.zeros(9, np.float32)
    bias[[0, *banned]] = -np.inf
    return Row(
        prompt_ids=prompt_ids,
        sampling=sampling,
        on_tokens=Sink(limit),
        bias=bias,
        sample_index=index,
        **arguments,
    )


def generate(engine, rows):
    """The tokens of each row."""
    for _ in generate_tokens(engine, rows):
        pass
    return [row.on_tokens.token_ids for row in rows]


def naive_tokens(engine, row):
    """The tokens of one row, with its whole history and the formulas of the settings."""
    sampling, tokens = row.sampling, row.prompt_ids.tolist()
    uniforms = row_uniforms(sampling.seed, row.sample_index)
    others = row_uniforms(sampling.seed, 2**63 + row.sample_index)
    logits, state = engine.prefill(row.prompt_ids[None], engine.initial_state(1))
    mu, first, last = 2 * (sampling.mirostat or 0), sampling.temperature, sampling.final_temperature
    for step in range(sampling.max_new_tokens):
        share = step / (sampling.max_new_tokens - 1)
        latest = tokens[-sampling.penalty_window :]
        context = StepContext(
            history=np.array([[-1] * (sampling.penalty_window - len(latest)) + latest], np.int32),
            temperature=first if last is None else first + share * (last - first),
            uniforms=np.array([next(others)]),
            max_surprise=np.array([mu]),
        )
        for process in build_processors(sampling, row.bias):
            if process.function is keep_surprise_below:
                probs = np.exp(logits[0].astype(np.float64) - logits.max())
            logits = process(logits, context)
        uniform = np.array([next(uniforms)])
        token_ids = pick_greedy(logits) if first == 0 else pick(logits, uniform)
        if sampling.mirostat:
            surprise = -np.log2(probs[token_ids[0]] / probs.sum())
            mu -= sampling.mirostat_rate * (surprise - sampling.mirostat)
        tokens.append(int(token_ids[0]))
        logits, state = engine.decode_step(token_ids, state)
    return tokens[len(row.prompt_ids) :]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.usefixtures("no_near_ties")
def test_every_row_of_a_batch_has_the_tokens_of_the_naive_loop(engine, settings):
    sampling = make_sampling(max_new_tokens=60, seed=7, **settings)
    rows = [make_row(sampling, index) for index in range(3)]
    assert generate(engine, rows) == [naive_tokens(engine, row) for row in rows]


def test_every_setting_of_the_table_changes_the_tokens(engine):
    found = {}
    for settings in SETTINGS:
        row = make_row(make_sampling(max_new_tokens=200, seed=7, **settings))
        found[str(settings)] = tuple(generate(engine, [row])[0])
    assert len(set(found.values())) == len(SETTINGS)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.usefixtures("no_near_ties")
def test_a_row_runs_in_the_loop_if_its_settings_are_supported_with_the_tokens_of_steps(
    weights, settings
):
    onnx = make_engine("onnx", weights)
    sampling = make_sampling(max_new_tokens=60, seed=8, **settings)
    looped, stepwise = RecordingLoopEngine(onnx), StepEngine(onnx)
    tokens = [generate(e, [make_row(sampling, i) for i in range(2)]) for e in (looped, stepwise)]
    assert tokens[0] == tokens[1]
    kinds = {kind for kind, _ in looped.calls}
    supported = not onnx.unsupported(sampling)
    assert kinds == ({"prefill", "run_loop"} if supported else {"prefill", "decode_step"})
    assert supported == (set(settings) <= {"temperature", "top_k", "top_p", "min_p"})


def test_a_setting_that_the_engine_does_not_know_runs_step_by_step(weights):
    @dataclass(frozen=True, kw_only=True)
    class ExtendedConfig(SamplingConfig):
        new_setting: float | None = None

    engine = RecordingLoopEngine(make_engine("onnx", weights))
    changed = ExtendedConfig(max_new_tokens=3, new_setting=0.5)
    assert engine.unsupported(changed) == {"new_setting"}
    assert engine.unsupported(ExtendedConfig()) == set()
    generate(engine, [make_row(changed)])
    assert [kind for kind, _ in engine.calls] == ["prefill", "decode_step", "decode_step"]


class NoRestraint:
    finished = False

    def allow(self, logits):
        return logits

    def advance(self, token_id):
        pass


@pytest.mark.parametrize("arguments", [{"restraints": [NoRestraint()]}, {"needs_logits": True}])
def test_a_row_with_restraints_or_logits_runs_step_by_step_and_the_others_in_the_loop(
    weights, arguments
):
    engine = RecordingLoopEngine(make_engine("onnx", weights))
    rows = [
        make_row(SamplingConfig(max_new_tokens=20)),
        make_row(SamplingConfig(max_new_tokens=5, seed=2), **arguments),
    ]
    generate(engine, rows)
    shapes = [shape for kind, shape in engine.calls if kind != "prefill"]
    assert shapes == [(16, 1), (4, 1), *[(1,)] * 4]


def test_logits_are_those_of_the_model_before_processing(engine):
    sampling = SamplingConfig(max_new_tokens=4, top_k=1)
    row, other = make_row(sampling, needs_logits=True), make_row(sampling, 1)
    generate(engine, [row, other])
    logits, state = engine.prefill(PROMPT[None], engine.initial_state(1))
    for token_id, received in zip(row.on_tokens.token_ids, row.on_tokens.logits, strict=True):
        np.testing.assert_allclose(received, logits[0], atol=1e-5)
        logits, state = engine.decode_step(np.array([token_id]), state)
    assert other.on_tokens.logits == [None] * 4


@pytest.mark.parametrize("name", ["numpy", "onnx"])
@pytest.mark.usefixtures("no_near_ties")
def test_a_row_ends_where_its_callback_ends_it_and_the_others_continue(weights, name):
    engine = make_engine(name, weights)
    limits = [3, None, 17, 40, 1]
    samplings = [make_sampling(max_new_tokens=60 - i % 2, seed=i) for i in range(5)]
    whole = [generate(engine, [make_row(sampling)])[0] for sampling in samplings]
    pairs = zip(samplings, limits, strict=True)
    tokens = generate(engine, [make_row(sampling, limit=limit) for sampling, limit in pairs])
    for found, expected, limit in zip(tokens, whole, limits, strict=True):
        # The engine's loop draws 16 and 32 tokens before it asks whether the row continues.
        size = limit if name == "numpy" else next(n for n in (16, 48, 60) if n >= (limit or 60))
        assert found == expected[:size]


def test_calls_of_the_loop_double_and_end_with_the_last_row(weights):
    engine = RecordingLoopEngine(make_engine("onnx", weights))
    sampling = SamplingConfig(max_new_tokens=2_000)
    generate(engine, [make_row(sampling, 0, limit=30), make_row(sampling, 1, limit=1_000)])
    shapes = [shape for kind, shape in engine.calls if kind == "run_loop"]
    assert shapes == [(16, 2), (32, 2), (64, 1), (128, 1), (256, 1), (512, 1)]


def test_prompts_are_read_once_and_no_step_is_decoded_without_need(engine):
    recording = StepEngine(engine)
    sampling = SamplingConfig(max_new_tokens=4)
    generate(recording, [make_row(sampling, index) for index in range(2)])
    assert recording.calls == [("prefill", (1, 4))] + 3 * [("decode_step", (2,))]


@pytest.mark.usefixtures("no_near_ties")
def test_prompts_of_different_lengths_are_read_together_as_far_as_the_shorter_ones_reach(engine):
    recording, prompts = StepEngine(engine), [PROMPT[:1], PROMPT[:3], PROMPT[:3], PROMPT[:4]]
    sampling = SamplingConfig(max_new_tokens=30, temperature=0.3)
    tokens = generate(recording, [make_row(sampling, prompt_ids=prompt) for prompt in prompts])
    reads = [shape for kind, shape in recording.calls if kind == "prefill"]
    assert reads == [(3, 1), (2, 2), (1, 1)]
    for prompt, found in zip(prompts, tokens, strict=True):
        assert found == generate(engine, [make_row(sampling, prompt_ids=prompt)])[0]


@pytest.mark.parametrize("name", ["numpy", "onnx"])
def test_rows_without_tokens_to_generate_call_neither_engine_nor_callback(weights, name):
    engine = RecordingLoopEngine(make_engine(name, weights))
    rows = [make_row(SamplingConfig(max_new_tokens=0), index) for index in range(3)]
    assert generate(engine, rows) == [[], [], []]
    assert engine.calls == []
    assert generate(engine, []) == []


@pytest.mark.parametrize("temperature", [0.0, 0.8, 50.0])
@pytest.mark.parametrize("name", ["numpy", "onnx"])
def test_a_banned_token_is_never_drawn(weights, name, temperature):
    engine = make_engine(name, weights)
    sampling = SamplingConfig(max_new_tokens=300, temperature=temperature)
    banned = sorted(set(generate(engine, [make_row(sampling)])[0]))[:5]
    rows = [make_row(sampling, index, banned=banned) for index in range(2)]
    drawn = {token_id for tokens in generate(engine, rows) for token_id in tokens}
    assert drawn
    assert drawn.isdisjoint(banned)


def test_memory_does_not_grow_with_the_number_of_tokens(engine):
    row = make_row(SamplingConfig(max_new_tokens=3_000, top_k=5, top_p=0.9))
    row.on_tokens = lambda token_ids, logits: True
    held = []
    tracemalloc.start()
    for count, _ in enumerate(generate_tokens(engine, [row]), start=1):
        if count in (1_500, 2_999):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert abs(held[1] - held[0]) < 8_192


def test_an_empty_prompt_is_refused():
    with pytest.raises(ConfigError, match=r"`prompt_ids` must have at least 1 token\. Received: 0"):
        make_row(SamplingConfig(), prompt_ids=np.array([], np.int32))

"""Generated texts: streams, batches, engines, stop conditions and token choices."""

import subprocess
import sys
import textwrap
from dataclasses import fields, replace

import numpy as np
import pytest

from textgen.config import SamplingConfig
from textgen.corpora.passages import PassageIndex
from textgen.engines import make_engine
from textgen.errors import ConfigError, RunError, TokenizerError
from textgen.generation import Request, generate_texts, stream_text
from textgen.tokenizers.char import CharTokenizer

CORPUS = "zézéb \n\naa😀\nb zéz\n"

# A value other than the default for every setting; refinements with the setting that they refine.
CHANGED = {
    "max_new_tokens": {"max_new_tokens": 90},
    "seed": {"seed": 12},
    "temperature": {"temperature": 0.5},
    "final_temperature": {"final_temperature": 0.1},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.5},
    "min_p": {"min_p": 0.4},
    "typical_p": {"typical_p": 0.4},
    "top_n_sigma": {"top_n_sigma": 0.5},
    "xtc_probability": {"xtc_probability": 1.0},
    "xtc_threshold": {"xtc_probability": 1.0, "xtc_threshold": 0.3},
    "mirostat": {"mirostat": 2.5},
    "mirostat_rate": {"mirostat": 2.5, "mirostat_rate": 1.0},
    "repetition_penalty": {"repetition_penalty": 1.8},
    "presence_penalty": {"presence_penalty": 2.0},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "no_repeat_ngram": {"no_repeat_ngram": 2},
    "dry_multiplier": {"dry_multiplier": 3.0},
    "dry_base": {"dry_multiplier": 3.0, "dry_base": 1.1},
    "dry_allowed_length": {"dry_multiplier": 3.0, "dry_allowed_length": 1},
    "penalty_window": {"presence_penalty": 2.0, "penalty_window": 3},
    "ban": {"ban": ("a",)},
    "bias": {"bias": ("éc=-3", "zé=-3")},
    "regex": {"regex": "[ab ]+"},
    "max_copy": {"max_copy": 2},
    "stop": {"stop": ("b",)},
    "stop_regex": {"stop_regex": "b"},
    "stop_at_document": {"stop_at_document": True},
    "stop_at_sentence": {"stop_at_sentence": 5},
    "min_new_tokens": {"stop": ("z",), "min_new_tokens": 30},
    "include_stop": {"stop": ("b",), "include_stop": True},
}


@pytest.fixture
def weights(lively_weights):
    return lively_weights(vocab_size=9)


@pytest.fixture
def engine(weights):
    return make_engine("numpy", weights)


def make_sampling(**settings):
    """Settings at a temperature at which every token is drawn now and then."""
    return SamplingConfig(**{"max_new_tokens": 120, "temperature": 2.0, "seed": 2, **settings})


def generate(engine, tokenizer, prompt, sampling, num_samples=1):
    requests = [
        Request(prompt=prompt, sampling=sampling, sample_index=index)
        for index in range(num_samples)
    ]
    return [generated.text for generated in generate_texts(engine, tokenizer, requests)]


def stream(engine, tokenizer, prompt, sampling):
    return list(stream_text(engine, tokenizer, Request(prompt=prompt, sampling=sampling)))


@pytest.mark.parametrize("name", ["numpy", "onnx"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top_k": 4, "top_p": 0.9},
        {"temperature": 0.0},
        {"presence_penalty": 0.5},
        {"stop": ("é", "ab a")},
        {"stop_regex": "zé|😀", "min_new_tokens": 40},
        {"regex": "[abz ]{3,40}é"},
    ],
    ids=str,
)
def test_streamed_pieces_join_to_the_generated_text(weights, tokenizer, name, settings):
    engine, sampling = make_engine(name, weights), make_sampling(**settings)
    pieces = stream(engine, tokenizer, "ab é", sampling)
    assert all(pieces)
    assert ["".join(pieces)] == generate(engine, tokenizer, "ab é", sampling)


def test_a_streamed_text_arrives_before_it_ends(weights, tokenizer):
    for name, most in (("numpy", 120), ("onnx", 4)):
        pieces = stream(make_engine(name, weights), tokenizer, "a", make_sampling())
        assert 1 < len(pieces) <= most


def test_a_stream_never_splits_a_character(engine, tokenizer):
    pieces = stream(engine, tokenizer, "a", make_sampling(max_new_tokens=400))
    request = Request(prompt="a", sampling=make_sampling(max_new_tokens=400))
    (generated,) = generate_texts(engine, tokenizer, [request], logprobs=0)
    token_ids = [choice.token_id for choice in generated.choices]
    assert "".join(pieces) == tokenizer.decode(token_ids)
    assert "é" in "".join(pieces)
    assert len(pieces) < len(token_ids)


def test_the_same_seed_gives_the_same_text_and_another_seed_another(engine, tokenizer):
    texts = [generate(engine, tokenizer, "a", make_sampling(seed=seed))[0] for seed in (4, 4, 5)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.usefixtures("no_near_ties")
@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.8}], ids=str)
def test_the_texts_of_a_batch_do_not_depend_on_its_size(engine, tokenizer, settings):
    sampling = make_sampling(**settings)
    four = generate(engine, tokenizer, "ab ", sampling, num_samples=4)
    assert len(set(four)) == 4
    for num_samples in (1, 2, 3):
        assert generate(engine, tokenizer, "ab ", sampling, num_samples) == four[:num_samples]


@pytest.mark.usefixtures("no_near_ties")
def test_engines_generate_the_same_text(lively_weights, tokenizer):
    weights = lively_weights(vocab_size=9, num_layers=3)
    texts = [
        generate(make_engine(name, weights), tokenizer, "a", make_sampling())
        for name in ("numpy", "reference", "onnx")
    ]
    assert texts[0] == texts[1] == texts[2]


class StepEngine:
    """An engine without its loop.

    Args:
        engine: Computes the steps.
    """

    def __init__(self, engine):
        self.vocab_size = engine.vocab_size
        self.initial_state, self.forward = engine.initial_state, engine.forward
        self.prefill, self.decode_step = engine.prefill, engine.decode_step


class LoopEngine(StepEngine):
    """An engine with its loop, which counts the calls.

    Args:
        engine: Computes everything.
    """

    def __init__(self, engine):
        super().__init__(engine)
        self.unsupported, self._run_loop, self.num_calls = engine.unsupported, engine.run_loop, 0

    def run_loop(self, *arguments):
        self.num_calls += 1
        return self._run_loop(*arguments)


@pytest.mark.usefixtures("no_near_ties")
@pytest.mark.parametrize("name", [name for name in CHANGED if name != "stop_at_document"])
def test_a_setting_that_the_loop_supports_gives_the_text_of_single_steps(weights, tokenizer, name):
    onnx, passages = make_engine("onnx", weights), PassageIndex.build(CORPUS)
    sampling = make_sampling(**CHANGED[name])
    requests = [Request(prompt="ab ", sampling=sampling, sample_index=index) for index in range(2)]
    looped = LoopEngine(onnx)
    texts = generate_texts(looped, tokenizer, requests, passages=passages)
    assert texts == generate_texts(StepEngine(onnx), tokenizer, requests, passages=passages)
    # Restraints, which are no part of an engine, also need single steps.
    needs_steps = bool(onnx.unsupported(sampling)) or name == "bias"
    assert (looped.num_calls == 0) == needs_steps


def test_every_setting_has_an_effect(engine):
    assert set(CHANGED) == {field.name for field in fields(SamplingConfig)}
    tokenizer = CharTokenizer("ab zé。\n😀c")
    for name, settings in CHANGED.items():
        without = {key: value for key, value in settings.items() if key != name}
        (text,) = generate(engine, tokenizer, "ab ", make_sampling(**without))
        request = Request(prompt="ab ", sampling=make_sampling(**settings))
        if name == "stop_at_document":
            with pytest.raises(ConfigError, match=f"`{name}`"):
                generate_texts(engine, tokenizer, [request])
        else:
            passages = PassageIndex.build(text)
            (changed,) = generate_texts(engine, tokenizer, [request], passages=passages)
            assert changed.text != text, name


@pytest.mark.usefixtures("no_near_ties")
def test_requests_of_different_prompts_lengths_and_settings_are_independent(weights, tokenizer):
    requests = [
        Request(prompt="ab ", sampling=make_sampling(max_new_tokens=40, top_k=3)),
        Request(prompt="", sampling=make_sampling(max_new_tokens=7, temperature=0.0)),
        Request(prompt="ab é\nab é", sampling=make_sampling(seed=4), sample_index=3),
        Request(prompt="a", sampling=make_sampling(max_new_tokens=0)),
        Request(prompt="ab ", sampling=make_sampling(stop=("\n",)), sample_index=1),
        Request(prompt="ab ", sampling=make_sampling(mirostat=2.5)),
        Request(prompt="ab ", sampling=make_sampling(regex="[ab ]+"), sample_index=2),
    ]
    for name in ("numpy", "onnx"):
        engine = make_engine(name, weights)
        together = generate_texts(engine, tokenizer, requests)
        alone = [generate_texts(engine, tokenizer, [request])[0] for request in requests]
        assert together == alone
        assert together[3].text == ""


def test_an_empty_prompt_starts_with_the_start_id(engine, tokenizer):
    empty = generate(engine, tokenizer, "", make_sampling())
    assert empty == generate(engine, tokenizer, "\n", make_sampling())
    assert empty != generate(engine, tokenizer, "a", make_sampling())


def test_zero_new_tokens_give_empty_texts(engine, tokenizer):
    sampling = make_sampling(max_new_tokens=0)
    assert generate(engine, tokenizer, "a", sampling, num_samples=3) == ["", "", ""]
    assert stream(engine, tokenizer, "a", sampling) == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_new_tokens": 9}, "length"),
        ({"stop": ("b",)}, "stop"),
        ({"stop_regex": "a|b"}, "regex"),
        ({"bias": ("\n=3",), "stop_at_sentence": 1, "regex": r"[ab ]{3,9}。[ab\n]+"}, "sentence"),
        ({"regex": "[ab ]{2,5}z"}, "constraint"),
    ],
    ids=str,
)
def test_the_reason_for_the_end_is_reported(lively_weights, settings, reason):
    tokenizer = CharTokenizer("ab z。\n")
    engine = make_engine("numpy", lively_weights(vocab_size=tokenizer.vocab_size))
    request = Request(sampling=make_sampling(**{"temperature": 5.0, **settings}))
    (generated,) = generate_texts(engine, tokenizer, [request])
    assert generated.finish_reason == reason
    assert 0 < generated.num_tokens <= 120


def test_errors_of_a_request_are_raised_before_the_first_piece(engine, tokenizer):
    def start(sampling, engine=engine):
        return stream_text(engine, tokenizer, Request(prompt="a", sampling=sampling))

    with pytest.raises(ConfigError, match="`max_copy` needs the training text"):
        start(SamplingConfig(max_copy=3))
    with pytest.raises(ConfigError, match=r"`temperature`.*Received: auto"):
        start(SamplingConfig(temperature="auto"))
    with pytest.raises(ConfigError, match="`stop_regex`"):
        start(SamplingConfig(stop_regex="(a"))
    tokenizer.vocab_size = 10
    with pytest.raises(RunError, match=r"must have the model's 9 tokens\. Received: 10"):
        start(SamplingConfig())


def test_an_unknown_character_of_a_prompt_is_an_error_or_skipped(random_weights):
    tokenizer = CharTokenizer("abc")
    engine = make_engine("numpy", random_weights(vocab_size=3))
    request = Request(prompt="a?b", sampling=make_sampling())
    plain = replace(request, prompt="ab")
    with pytest.raises(TokenizerError, match=r"\?"):
        generate_texts(engine, tokenizer, [request])
    (skipped,) = generate_texts(engine, tokenizer, [request], unknown="skip")
    assert [skipped] == generate_texts(engine, tokenizer, [plain])


@pytest.mark.parametrize("logprobs", [-1, 1.5, 1_001])
def test_a_number_of_alternatives_out_of_range_is_refused(engine, tokenizer, logprobs):
    with pytest.raises(ConfigError, match=r"`logprobs` must be.*Received"):
        generate_texts(engine, tokenizer, [Request()], logprobs=logprobs)


def test_choices_report_the_models_prediction_of_every_token(engine, tokenizer):
    request = Request(prompt="a", sampling=make_sampling(max_new_tokens=30, top_k=4))
    (plain,) = generate_texts(engine, tokenizer, [request])
    (generated,) = generate_texts(engine, tokenizer, [request], logprobs=9)
    assert generated.text == plain.text
    assert plain.choices is None
    pieces = "".join(choice.text for choice in generated.choices)
    assert generated.text in (pieces, pieces + "\ufffd")
    logits, state = engine.prefill(tokenizer.encode("a")[None], engine.initial_state(1))
    for choice in generated.choices:
        probs = np.exp(logits[0].astype(np.float64))
        probs /= probs.sum()
        assert choice.log_prob == pytest.approx(np.log(probs[choice.token_id]), abs=1e-6)
        assert choice.rank == 1 + (probs > probs[choice.token_id]).sum()
        assert choice.entropy == pytest.approx(-(probs * np.log(probs)).sum(), abs=1e-6)
        log_probs = [log_prob for _, log_prob in choice.alternatives]
        assert log_probs == sorted(log_probs, reverse=True)
        assert sum(np.exp(log_probs)) == pytest.approx(1)
        assert log_probs[choice.rank - 1] == pytest.approx(choice.log_prob)
        logits, state = engine.decode_step(np.array([choice.token_id]), state)


@pytest.mark.parametrize("banned", [("b",), ("zé",), ("éa", "\n", "a")])
def test_banned_words_are_never_generated_in_whatever_tokens(engine, tokenizer, banned):
    sampling = make_sampling(max_new_tokens=400)
    (free,) = generate(engine, tokenizer, "a", sampling)
    (text,) = generate(engine, tokenizer, "", replace(sampling, ban=banned))
    assert any(word in free for word in banned)
    assert not any(word in text for word in banned)


def test_a_bias_changes_how_often_a_word_is_generated(engine, tokenizer):
    sampling = make_sampling(max_new_tokens=400)
    counts = [
        generate(engine, tokenizer, "a", replace(sampling, bias=bias))[0].count("a")
        for bias in (("a=-3",), (), ("a=3",))
    ]
    assert counts[0] < counts[1] < counts[2]


def test_generating_and_scoring_import_neither_tensorflow_nor_keras():
    program = """
        import sys
        import numpy as np
        import textgen.evaluation, textgen.generation
        from textgen.config import SamplingConfig
        from textgen.engines import make_engine
        from textgen.generation import Request, generate_texts
        from textgen.tokenizers.char import CharTokenizer
        from textgen.models.weights import LayerWeights, ModelWeights

        ones = lambda *shape: np.ones(shape, np.float32)
        gru = LayerWeights(input_kernel=ones(2, 9), recurrent_kernel=ones(3, 9), bias=ones(2, 9))
        weights = ModelWeights(
            embedding=ones(4, 2), layers=(gru,), dense_kernel=ones(3, 4), dense_bias=ones(4)
        )
        engine = make_engine("auto", weights)
        request = Request(prompt="a", sampling=SamplingConfig(max_new_tokens=5))
        (generated,) = generate_texts(engine, CharTokenizer("abcd", unk=False), [request])
        from textgen.evaluation import EncodedText, score_carried

        text = EncodedText(token_ids=np.array([1, 2]), characters=2, bytes=2)
        score_carried(engine, text, 0)
        heavy = {"tensorflow", "keras", "tensorflow_datasets", "torch"} & set(sys.modules)
        print(len(generated.text), sorted(heavy))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "5 []"

import subprocess
import sys
import textwrap
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from textgen.config import SamplingConfig
from textgen.engines import make_engine
from textgen.errors import ConfigError, RunError
from textgen.generation import Request, generate_texts, stream_text, token_loop
from textgen.generation.token_loop import Row
from textgen.sampling import build_processors


def generate(engine, tokenizer, prompt, config, num_samples=1):
    requests = [Request(prompt=prompt, sampling=config, sample_index=row) for row in range(num_samples)]
    return [written.text for written in generate_texts(engine, tokenizer, requests)]


def stream(engine, tokenizer, prompt, config):
    return stream_text(engine, tokenizer, Request(prompt=prompt, sampling=config))


def generate_tokens(engine, prompt_ids, config, banned=(), num_samples=1):
    """Yield the tokens of each step, `[num_samples]`."""
    bias = np.zeros(engine.vocab_size, np.float32)
    bias[list(banned)] = -np.inf
    drawn = []
    rows = [
        Row(
            prompt_ids=np.asarray(prompt_ids, np.int32),
            sampling=config,
            on_tokens=lambda token_ids, logits: drawn.extend(token_ids) or True,
            bias=bias,
            sample_index=index,
        )
        for index in range(num_samples)
    ]
    for _ in token_loop.generate_tokens(engine, rows):
        yield np.array(drawn)
        drawn.clear()


@pytest.fixture
def engine(random_weights):
    return make_engine("numpy", random_weights())


@pytest.mark.parametrize("settings", [{}, {"top_k": 4, "top_p": 0.9}, {"temperature": 0.0}])
def test_streamed_pieces_join_to_the_generated_text(engine, tokenizer, settings):
    config = (
        SamplingConfig(max_new_tokens=301, temperature=1.0)
        if not settings
        else (SamplingConfig(max_new_tokens=301, **settings))
    )
    pieces = list(stream(engine, tokenizer, "ab é", config))
    assert all(pieces)
    assert ["".join(pieces)] == generate(engine, tokenizer, "ab é", config)


def test_streaming_never_splits_a_character(engine, tokenizer):
    config = SamplingConfig(max_new_tokens=400, temperature=1.5)
    token_ids = [
        int(step[0]) for step in generate_tokens(engine, tokenizer.encode("a"), config, (0,))
    ]
    pieces = list(stream(engine, tokenizer, "a", config))
    assert "".join(pieces) == tokenizer.decode(token_ids)
    assert "é" in "".join(pieces)
    assert len(pieces) < len(token_ids)


def test_the_same_seed_writes_the_same_text_and_another_does_not(engine, tokenizer):
    texts = [
        generate(engine, tokenizer, "a", SamplingConfig(seed=seed, max_new_tokens=200))[0]
        for seed in (4, 4, 5)
    ]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.8}])
def test_batched_rows_equal_rows_of_smaller_batches(engine, tokenizer, settings):
    config = SamplingConfig(max_new_tokens=200, **settings)
    four = generate(engine, tokenizer, "ab ", config, num_samples=4)
    assert len(set(four)) == 4
    for num_samples in (1, 2, 3):
        assert generate(engine, tokenizer, "ab ", config, num_samples) == four[:num_samples]


def test_engines_write_the_same_text(random_weights, tokenizer):
    weights = random_weights(num_layers=3)
    config = SamplingConfig(max_new_tokens=200)
    texts = [
        generate(make_engine(name, weights), tokenizer, "a", config)[0]
        for name in ("numpy", "reference")
    ]
    assert texts[0] == texts[1]


def test_greedy_takes_the_most_probable_allowed_token_at_every_step(engine):
    config = SamplingConfig(max_new_tokens=30, temperature=0.0, seed=9)
    drawn = [int(step[0]) for step in generate_tokens(engine, np.array([2, 1]), config, (0, 4))]
    logits, state = engine.prefill(np.array([[2, 1]]), engine.initial_state(1))
    for token_id in drawn:
        allowed = [i for i in range(9) if i not in (0, 4)]
        assert token_id == max(allowed, key=lambda i: logits[0, i])
        logits, state = engine.decode_step(np.array([token_id]), state)


@pytest.mark.parametrize("temperature", [0.0, 0.8, 50.0])
def test_a_banned_token_never_comes(engine, temperature):
    config = SamplingConfig(max_new_tokens=500, temperature=temperature)
    free = {int(step[0]) for step in generate_tokens(engine, np.array([1]), config)}
    banned = tuple(sorted(free))[:5]
    drawn = {
        int(i) for step in generate_tokens(engine, np.array([1]), config, banned, 2) for i in step
    }
    assert drawn
    assert drawn.isdisjoint(banned)


def test_an_empty_prompt_begins_with_the_start_id_and_others_do_not(engine, tokenizer):
    config = SamplingConfig(max_new_tokens=60)
    empty = generate(engine, tokenizer, "", config)
    assert empty == generate(engine, tokenizer, "\n", config)
    assert empty != generate(engine, tokenizer, "a", config)


def test_zero_new_tokens_give_empty_texts(engine, tokenizer):
    config = SamplingConfig(max_new_tokens=0)
    assert generate(engine, tokenizer, "a", config, num_samples=3) == ["", "", ""]
    assert list(stream(engine, tokenizer, "a", config)) == []


def test_the_prompt_is_read_once_and_no_step_is_decoded_in_vain(engine, tokenizer):
    calls = []

    class Counting:
        vocab_size = engine.vocab_size
        initial_state = staticmethod(engine.initial_state)

        def prefill(self, token_ids, state):
            calls.append(("prefill", token_ids.shape))
            return engine.prefill(token_ids, state)

        def decode_step(self, token_ids, state):
            calls.append(("decode", token_ids.shape))
            return engine.decode_step(token_ids, state)

    generate(Counting(), tokenizer, "aaa", SamplingConfig(max_new_tokens=4), num_samples=2)
    assert calls == [("prefill", (1, 3))] + 3 * [("decode", (2,))]


def test_memory_does_not_grow_with_what_is_written(engine):
    config = SamplingConfig(max_new_tokens=4_000, top_k=5, top_p=0.9)
    tracemalloc.start()
    held = []
    for count, _ in enumerate(generate_tokens(engine, np.array([1]), config, (0,)), start=1):
        if count in (2_000, 3_999):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert abs(held[1] - held[0]) < 8_192


def test_what_is_wrong_with_a_request_is_said_before_the_first_piece(engine, tokenizer):
    config = SamplingConfig()
    with pytest.raises(ConfigError, match="prompt_ids"):
        Row(prompt_ids=np.array([], np.int32), sampling=config, on_tokens=lambda *_: True)
    tokenizer.vocab_size = 10
    with pytest.raises(RunError, match="Received: 10"):
        stream(engine, tokenizer, "a", config)


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
        (drawn,) = generate_texts(engine, CharTokenizer("abcd", unk=False), [request])
        from textgen.evaluation import EncodedText, score_carried

        text = EncodedText(token_ids=np.array([1, 2]), characters=2, bytes=2)
        score_carried(engine, text, 0)
        heavy = {"tensorflow", "keras", "tensorflow_datasets", "torch"} & set(sys.modules)
        print(len(drawn.text), sorted(heavy))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "5 []"


def test_requests_of_different_prompts_lengths_and_settings_do_not_disturb_each_other(
    engine, tokenizer
):
    requests = [
        Request(prompt="ab ", sampling=SamplingConfig(max_new_tokens=40, top_k=3)),
        Request(prompt="", sampling=SamplingConfig(max_new_tokens=7, temperature=0.0)),
        Request(prompt="ab é\nab é", sampling=SamplingConfig(max_new_tokens=60, seed=4), sample_index=3),
        Request(prompt="a", sampling=SamplingConfig(max_new_tokens=0)),
        Request(prompt="ab ", sampling=SamplingConfig(max_new_tokens=40, stop=("\n",)), sample_index=1),
    ]
    together = generate_texts(engine, tokenizer, requests)
    alone = [generate_texts(engine, tokenizer, [request])[0] for request in requests]
    assert together == alone
    assert together[3].text == ""


def test_what_the_model_thought_is_told_for_every_token(engine, tokenizer):
    request = Request(prompt="a", sampling=SamplingConfig(max_new_tokens=30, temperature=1.5))
    (plain,) = generate_texts(engine, tokenizer, [request])
    (told,) = generate_texts(engine, tokenizer, [request], logprobs=9)
    assert told.text == plain.text
    pieces = "".join(choice.text for choice in told.choices)
    assert told.text in (pieces, pieces + "\ufffd")
    logits, state = engine.prefill(tokenizer.encode("a")[None], engine.initial_state(1))
    for choice in told.choices:
        probs = np.exp(logits[0].astype(np.float64))
        probs /= probs.sum()
        assert choice.log_prob == pytest.approx(np.log(probs[choice.token_id]), abs=1e-6)
        assert choice.rank == 1 + (probs > probs[choice.token_id]).sum()
        assert choice.entropy == pytest.approx(-(probs * np.log(probs)).sum(), abs=1e-6)
        assert sum(np.exp(p) for _, p in choice.alternatives) == pytest.approx(1)
        assert choice.alternatives[choice.rank - 1][1] == pytest.approx(choice.log_prob)
        logits, state = engine.decode_step(np.array([choice.token_id]), state)


@pytest.mark.parametrize("banned", [("b",), ("ab",), ("aab", "é")])
def test_banned_words_never_come_whatever_the_pieces(engine, tokenizer, banned):
    config = SamplingConfig(max_new_tokens=400, temperature=1.2, ban=banned)
    free = generate(engine, tokenizer, "a", SamplingConfig(max_new_tokens=400, temperature=1.2))[0]
    text = generate(engine, tokenizer, "", config)[0]
    assert any(word in free for word in banned)
    assert not any(word in text for word in banned)


def test_a_bias_makes_a_word_come_more_often(engine, tokenizer):
    config = SamplingConfig(max_new_tokens=400, temperature=1.2)
    counts = [
        generate(engine, tokenizer, "a", replace(config, bias=bias))[0].count("a")
        for bias in (("a=-3",), (), ("a=3",))
    ]
    assert counts[0] < counts[1] < counts[2]


def test_every_setting_works_in_a_batch_and_changes_what_is_written(engine, tokenizer):
    base = {"max_new_tokens": 120, "temperature": 1.1}
    settings = [
        {},
        {"top_k": 2},
        {"top_p": 0.5},
        {"min_p": 0.4},
        {"typical_p": 0.4},
        {"top_n_sigma": 0.5},
        {"xtc_probability": 1.0},
        {"mirostat": 0.5},
        {"repetition_penalty": 1.8},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 0.5},
        {"no_repeat_ngram": 2},
        {"dry_multiplier": 3.0},
        {"final_temperature": 0.1},
        {"regex": "[ab ]+"},
    ]
    requests = [Request(prompt="ab ", sampling=SamplingConfig(**base, **s)) for s in settings]
    texts = [written.text for written in generate_texts(engine, tokenizer, requests)]
    assert len(set(texts)) == len(texts)
    assert texts == [generate(engine, tokenizer, "ab ", r.sampling)[0] for r in requests]


def test_the_order_of_the_processors_can_be_printed():
    config = SamplingConfig(top_k=40, presence_penalty=0.5, mirostat=3.0, temperature=0.7)
    assert [str(step) for step in build_processors(config)] == [
        "penalize_presence(history, 0.5)",
        "scale_by_temperature(0.7)",
        "keep_top_k(40)",
        "keep_surprise_below(max_surprise)",
    ]

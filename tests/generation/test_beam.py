"""Beam search, compared with trying every text and with hand-computed scores."""

import re
from itertools import product

import numpy as np
import pytest

from textgen.config import SamplingConfig
from textgen.engines import make_engine
from textgen.errors import ConfigError, RunError
from textgen.generation import Request, beam_search, generate_texts
from textgen.sampling import pick_greedy
from textgen.tokenizers.char import CharTokenizer

PROMPT = "bc"
LETTERS = CharTokenizer("abcd")
# Three letters and UNK, which is banned.
LETTERS_AND_UNK = CharTokenizer("abc", unk=True)


@pytest.fixture(params=[0, 1, 2])
def engine(request, random_weights):
    return make_engine("numpy", random_weights(vocab_size=4, num_layers=2, seed=request.param))


def search(engine, tokenizer=LETTERS, num_beams=4, alpha=0.0, **settings):
    return beam_search(
        engine,
        tokenizer,
        PROMPT,
        num_beams=num_beams,
        sampling=SamplingConfig(**settings),
        length_penalty=alpha,
    )


def log_prob_of(engine, token_ids, banned_ids=()):
    """The sum of log-probabilities by one pass over the whole text."""
    prompt = LETTERS.encode(PROMPT)
    whole = np.concatenate([prompt, np.array(token_ids, int)])
    logits, _ = engine.forward(whole[None, :], engine.initial_state(1))
    logits = logits[0, len(prompt) - 1 : -1].astype(np.float64)
    logits[:, list(banned_ids)] = -np.inf
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return sum(log_probs[step, token_id] for step, token_id in enumerate(token_ids))


def match_at_the_end(text, stop=(), stop_regex=None, min_new_tokens=0, include_stop=False):
    """The visible text if a match ends with the last character, else None."""
    if len(text) < min_new_tokens:
        return None
    patterns = [*map(re.escape, stop), *([stop_regex] if stop_regex else [])]
    starts = range(len(text))
    found = [s for s in starts if any(re.fullmatch(p, text[s:]) for p in patterns)]
    return (text if include_stop else text[: found[0]]) if found else None


def every_text(tokenizer, length, settings):
    """Token ids and visible text of every text that ends within `length` tokens."""
    allowed = [i for i in range(tokenizer.vocab_size) if i not in tokenizer.banned_ids]
    for size in range(1, length + 1):
        for token_ids in product(allowed, repeat=size):
            text = tokenizer.decode(list(token_ids))
            if any(match_at_the_end(text[:n], **settings) is not None for n in range(1, size)):
                continue
            shown = match_at_the_end(text, **settings)
            if shown is not None:
                yield token_ids, shown
            elif size == length:
                yield token_ids, text


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stop": ("c",)},
        {"stop": ("ab", "cc", "c"), "include_stop": True},
        {"stop_regex": "a.?b", "include_stop": True},
        {"stop": ("b",), "min_new_tokens": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("tokenizer", [LETTERS, LETTERS_AND_UNK], ids=["letters", "unk"])
def test_enough_beams_find_every_text_in_the_order_of_the_scores(
    engine, alpha, settings, tokenizer
):
    texts = dict(every_text(tokenizer, 4, settings))
    log_probs = {ids: log_prob_of(engine, ids, tokenizer.banned_ids) for ids in texts}
    scores = {ids: log_prob / len(ids) ** alpha for ids, log_prob in log_probs.items()}
    found = search(engine, tokenizer, 256, alpha, max_new_tokens=4, **settings)
    assert {beam.token_ids: beam.text for beam in found} == texts
    assert len(found) == len(texts)
    for beam in found:
        assert beam.log_prob == pytest.approx(log_probs[beam.token_ids], abs=1e-4)
        assert beam.score == pytest.approx(scores[beam.token_ids], abs=1e-4)
    assert [beam.score for beam in found] == sorted((b.score for b in found), reverse=True)


class Chain:
    """A model whose next token depends on the last one alone; counts its steps.

    Args:
        probs: `[vocab_size, vocab_size]`, the probability of each token after each token.
    """

    def __init__(self, probs):
        with np.errstate(divide="ignore"):
            self.logits = np.log(np.array(probs)).astype(np.float32)
        self.vocab_size = len(probs)
        self.steps = 0

    def initial_state(self, batch):
        return np.zeros((1, batch, 1), np.float32)

    def prefill(self, token_ids, state):
        return self.logits[token_ids[:, -1]], state

    def decode_step(self, token_ids, state):
        self.steps += 1
        return self.logits[token_ids], state


def flat(size):
    """A model that predicts every token with the same probability."""
    return Chain(np.full((size, size), 1 / size))


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        # Probabilities 0.5, 0.36 and 0.1; scores are log-probabilities.
        (0.0, [("", -0.6931), ("ab", -1.0217), ("a", -2.3026)]),
        # "ab\n" and "aba" are divided by 3: the second is not finished, and beats "a\n".
        (1.0, [("ab", -0.3406), ("", -0.6931), ("aba", -1.0730)]),
        # By 9, where "a\n" is divided by 4.
        (2.0, [("ab", -0.1135), ("aba", -0.3577), ("a", -0.5756)]),
    ],
)
def test_the_length_penalty_ranks_finished_and_unfinished_texts_as_computed_by_hand(
    alpha, expected
):
    # After "\n": "\n" or "a"; after "a": "b" or the end; after "b": the end, or "a" again.
    engine = Chain([[0.5, 0.5, 0.0], [0.2, 0.0, 0.8], [0.9, 0.1, 0.0]])
    found = beam_search(
        engine,
        CharTokenizer("\nab"),
        num_beams=3,
        sampling=SamplingConfig(max_new_tokens=3, stop=("\n",)),
        length_penalty=alpha,
    )
    assert [beam.text for beam in found] == [text for text, _ in expected]
    assert [beam.score for beam in found] == pytest.approx([s for _, s in expected], abs=1e-4)
    reasons = {beam.text: beam.finish_reason for beam in found}
    assert all(
        reason == ("length" if text == "aba" else "stop") for text, reason in reasons.items()
    )


def test_where_nothing_ends_a_text_the_length_penalty_keeps_the_order(engine):
    orders = [
        [beam.token_ids for beam in search(engine, num_beams=6, alpha=alpha, max_new_tokens=5)]
        for alpha in (0.0, 0.6, 3.0)
    ]
    assert orders[0] == orders[1] == orders[2]
    assert {len(token_ids) for token_ids in orders[0]} == {5}


def test_no_length_penalty_overflows(engine):
    for alpha in (1e3, 1e300):
        found = search(engine, num_beams=6, alpha=alpha, max_new_tokens=5, stop=("a",))
        assert len(found) == 6
        assert all(-1 < beam.score <= 0 for beam in found if len(beam.token_ids) > 1)


def test_one_beam_takes_the_most_probable_token_at_every_step(engine):
    (beam,) = search(engine, LETTERS_AND_UNK, 1, 0.6, max_new_tokens=30)
    prompt = LETTERS_AND_UNK.encode(PROMPT)
    logits, state = engine.prefill(prompt[None, :], engine.initial_state(1))
    greedy = []
    for _ in range(30):
        logits[:, 3] = -np.inf
        greedy.append(int(pick_greedy(logits)[0]))
        logits, state = engine.decode_step(np.array(greedy[-1:]), state)
    assert beam.token_ids == tuple(greedy)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stop": ("é", "ab ")},
        {"stop": ("b ",), "min_new_tokens": 20, "include_stop": True},
        {"stop_regex": r"\n\w"},
        {"stop": ("z", "aaaaaaaaaaaaa")},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_the_text_at_temperature_0(random_weights, tokenizer, settings, seed):
    engine = make_engine("numpy", random_weights(seed=seed))
    sampling = SamplingConfig(max_new_tokens=40, **settings)
    request = Request(
        prompt="a", sampling=SamplingConfig(max_new_tokens=40, temperature=0, **settings)
    )
    (generated,) = generate_texts(engine, tokenizer, [request])
    (beam,) = beam_search(engine, tokenizer, "a", num_beams=1, sampling=sampling)
    assert beam.text == generated.text
    assert beam.finish_reason == generated.finish_reason
    assert len(beam.token_ids) == generated.num_tokens


def test_characters_in_several_tokens_are_whole_in_every_text(random_weights, tokenizer):
    engine = make_engine("numpy", random_weights())
    sampling = SamplingConfig(max_new_tokens=4)
    found = beam_search(engine, tokenizer, "ab ", num_beams=300, sampling=sampling)
    assert len(found) == 300
    assert [beam.text for beam in found] == [tokenizer.decode(beam.token_ids) for beam in found]
    assert any("é" in beam.text for beam in found)
    assert any("\ufffd" in beam.text for beam in found)


def test_the_best_of_few_beams_is_at_least_as_probable_as_greedy(engine):
    greedy = search(engine, num_beams=1, max_new_tokens=12)[0]
    found = search(engine, num_beams=6, max_new_tokens=12)
    assert len({beam.token_ids for beam in found}) == 6
    assert found[0].log_prob >= greedy.log_prob - 1e-6
    for beam in found:
        assert beam.log_prob == pytest.approx(log_prob_of(engine, beam.token_ids), abs=1e-4)


def test_ties_go_to_the_lower_ids():
    letters = CharTokenizer("abcd")
    found = search(flat(4), letters, 6, max_new_tokens=3)
    assert [beam.text for beam in found] == ["aaa", "aab", "aac", "aad", "aba", "abb"]
    assert found == search(flat(4), letters, 6, max_new_tokens=3)


def test_the_search_ends_when_no_better_text_can_follow():
    engine = flat(4)
    found = search(engine, num_beams=2, max_new_tokens=1_000, stop=("a", "b"))
    assert [beam.token_ids for beam in found] == [(0,), (1,)]
    assert engine.steps == 0


def test_no_step_is_decoded_without_need_and_none_for_no_tokens():
    engine = flat(4)
    search(engine, num_beams=3, max_new_tokens=4)
    assert engine.steps == 3
    for alpha in (0.0, 1.0):
        (beam,) = search(engine, num_beams=3, alpha=alpha, max_new_tokens=0)
        assert (beam.text, beam.token_ids, beam.log_prob, beam.score) == ("", (), 0.0, 0.0)
    assert engine.steps == 3


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 1.5}, "num_beams"),
        ({"alpha": -0.5}, "length_penalty"),
        ({"alpha": float("nan")}, "length_penalty"),
        ({"top_k": 4}, "top_k"),
        ({"ban": ("a",)}, "ban"),
        ({"temperature": "auto"}, "temperature"),
        ({"stop_at_document": True}, "stop_at_document"),
    ],
)
def test_an_argument_out_of_range_or_without_effect_is_refused(arguments, name):
    with pytest.raises(ConfigError, match=f"`{name}`") as error:
        search(flat(4), **arguments)
    assert "Received: " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tokenizer_of_another_size_is_refused():
    with pytest.raises(RunError, match=r"5 tokens\. Received: 4"):
        search(flat(5))

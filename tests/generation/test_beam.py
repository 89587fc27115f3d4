"""Beam search, held to trying every text."""

from itertools import product

import numpy as np
import pytest

from textgen.engines import make_engine
from textgen.errors import ConfigError
from textgen.generation.beam import Beam, beam_search
from textgen.sampling.draw import pick_greedy

PROMPT = np.array([1, 2])


@pytest.fixture(params=[0, 1, 2])
def engine(request, random_weights):
    return make_engine("numpy", random_weights(vocab_size=4, num_layers=2, seed=request.param))


def log_prob_of(engine, token_ids, banned_ids=()):
    """The sum of log probabilities by one pass over the whole text."""
    whole = np.concatenate([PROMPT, np.array(token_ids, int)])
    logits, _ = engine.forward(whole[None, :], engine.initial_state(1))
    logits = logits[0, len(PROMPT) - 1 : -1].astype(np.float64)
    logits[:, list(banned_ids)] = -np.inf
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return sum(log_probs[step, token_id] for step, token_id in enumerate(token_ids))


def every_text(length, end, ids=range(4)):
    """Every text of at most `length` tokens that ends at `end`, or at the length."""
    for size in range(1, length + 1):
        for token_ids in product(ids, repeat=size):
            ended = [end(token_ids[:n]) for n in range(1, size + 1)]
            if not any(ended[:-1]) and (ended[-1] or size == length):
                yield token_ids


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("end", [None, lambda ids: ids[-1] == 3, lambda ids: sum(ids) >= 5])
@pytest.mark.parametrize("banned_ids", [(), (1,)])
def test_enough_beams_find_what_trying_every_text_finds(engine, alpha, end, banned_ids):
    allowed = [i for i in range(4) if i not in banned_ids]
    texts = list(every_text(4, end or (lambda ids: False), allowed))
    scored = [(t, log_prob_of(engine, t, banned_ids)) for t in texts]
    ranked = sorted(scored, key=lambda pair: -pair[1] / ((5 + len(pair[0])) / 6) ** alpha)
    found = beam_search(
        engine,
        PROMPT,
        num_beams=256,
        max_new_tokens=4,
        length_penalty=alpha,
        banned_ids=banned_ids,
        end=end,
    )
    assert len(found) == len(texts)
    assert [beam.token_ids for beam in found] == [token_ids for token_ids, _ in ranked]
    for beam, (_, log_prob) in zip(found, ranked, strict=True):
        assert beam.log_prob == pytest.approx(log_prob, abs=1e-4)
        penalty = ((5 + len(beam.token_ids)) / 6) ** alpha
        assert beam.score == pytest.approx(beam.log_prob / penalty)


def test_one_beam_takes_the_most_probable_token_at_every_step(engine):
    (beam,) = beam_search(
        engine, PROMPT, num_beams=1, max_new_tokens=30, length_penalty=0.6, banned_ids=(2,)
    )
    logits, state = engine.prefill(PROMPT[None, :], engine.initial_state(1))
    greedy = []
    for _ in range(30):
        logits[:, 2] = -np.inf
        greedy.append(int(pick_greedy(logits)[0]))
        logits, state = engine.decode_step(np.array(greedy[-1:]), state)
    assert beam.token_ids == tuple(greedy)
    ended = beam_search(
        engine, PROMPT, num_beams=1, max_new_tokens=30, banned_ids=(2,), end=lambda t: len(t) == 7
    )
    assert ended[0].token_ids == tuple(greedy[:7])


def test_the_best_of_few_beams_is_as_good_as_greedy_and_the_probabilities_are_true(engine):
    greedy = beam_search(engine, PROMPT, num_beams=1, max_new_tokens=12)[0]
    found = beam_search(engine, PROMPT, num_beams=6, max_new_tokens=12)
    assert len({beam.token_ids for beam in found}) == 6
    assert [beam.score for beam in found] == sorted((b.score for b in found), reverse=True)
    assert found[0].log_prob >= greedy.log_prob - 1e-6
    for beam in found:
        assert beam.log_prob == pytest.approx(log_prob_of(engine, beam.token_ids), abs=1e-4)


def test_normalisation_lets_longer_texts_win(engine):
    def lengths(alpha):
        found = beam_search(
            engine,
            PROMPT,
            num_beams=64,
            max_new_tokens=6,
            length_penalty=alpha,
            end=lambda ids: ids[-1] == 0,
        )
        return np.mean([len(beam.token_ids) for beam in found[:10]])

    assert lengths(0.0) < lengths(3.0)


class Flat:
    """Every token is as probable as every other; counts its steps."""

    vocab_size = 5
    steps = 0

    def initial_state(self, batch):
        return np.zeros((1, batch, 1), np.float32)

    def forward(self, token_ids, state):
        return np.zeros((*token_ids.shape, 5), np.float32), state

    def prefill(self, token_ids, state):
        return np.zeros((len(token_ids), 5), np.float32), state

    def decode_step(self, token_ids, state):
        self.steps += 1
        return np.zeros((len(token_ids), 5), np.float32), state


def test_ties_go_to_the_lower_ids():
    found = beam_search(Flat(), PROMPT, num_beams=7, max_new_tokens=3, banned_ids=(0,))
    assert [beam.token_ids for beam in found] == [
        (1, 1, last) if last < 5 else (1, 2, last - 4) for last in range(1, 8)
    ]
    assert found == beam_search(Flat(), PROMPT, num_beams=7, max_new_tokens=3, banned_ids=(0,))


def test_the_search_ends_when_nothing_better_can_come():
    engine = Flat()
    found = beam_search(
        engine, PROMPT, num_beams=2, max_new_tokens=1_000, end=lambda ids: ids[-1] < 2
    )
    assert [beam.token_ids for beam in found] == [(0,), (1,)]
    assert engine.steps == 0


def test_no_step_is_decoded_in_vain_and_none_at_all_for_no_tokens():
    engine = Flat()
    beam_search(engine, PROMPT, num_beams=3, max_new_tokens=4)
    assert engine.steps == 3
    assert beam_search(engine, PROMPT, num_beams=3, max_new_tokens=0) == [Beam((), 0.0, 0.0)]


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt_ids": np.array([], int)},
        {"num_beams": 0},
        {"max_new_tokens": -1},
        {"length_penalty": -0.5},
        {"length_penalty": float("nan")},
    ],
)
def test_what_is_out_of_range_is_refused(settings):
    arguments = {"prompt_ids": PROMPT, "num_beams": 2, "max_new_tokens": 3} | settings
    name = next(iter(settings))
    with pytest.raises(ConfigError, match=f"`{name}`"):
        beam_search(Flat(), arguments.pop("prompt_ids"), **arguments)


def test_a_ban_of_every_token_is_refused():
    with pytest.raises(ConfigError, match="a ban of all 5"):
        beam_search(Flat(), PROMPT, num_beams=2, max_new_tokens=3, banned_ids=range(5))

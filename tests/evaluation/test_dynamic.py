"""Dynamic evaluation agrees with an exact pass and with a slow loop, and changes no model."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

import textgen
from textgen.config import DynamicConfig, ModelConfig
from textgen.engines.reference_engine import ReferenceEngine
from textgen.errors import ConfigError, CorpusError, TrainingError
from textgen.evaluation import EncodedText, adapt, dynamic_score
from textgen.storage import tensors_sha256

VOCAB_SIZE, START_ID = 7, 2
MODELS = {
    "gru": ModelConfig(embedding_dim=5, hidden_size=12, dropout=0.5, weight_drop=0.5),
    "lstm": ModelConfig(embedding_dim=12, hidden_size=12, cell="lstm", tie_weights=True),
    "rnn": ModelConfig(embedding_dim=9, hidden_size=12, cell="rnn", input_dropout=0.4),
    "with every part": ModelConfig(
        embedding_dim=12,
        hidden_size=12,
        num_layers=2,
        output_gate=True,
        residual=True,
        layer_norm=True,
        initial_state="learned",
    ),
}
# Its letters are in the text of the tiny run, its words are not.
TALE = "moose gnaw a lemon, owls dream.\n" * 120


@pytest.fixture(params=MODELS)
def config(request):
    return MODELS[request.param]


@pytest.fixture
def weights(config):
    return fresh_weights(config)


def fresh_weights(config):
    from textgen.models.language_model import build_language_model

    weights = build_language_model(config, VOCAB_SIZE, seed=3).model_weights()
    if weights.learned_initial_state is None:
        return weights
    return replace(weights, learned_initial_state=weights.learned_initial_state + np.float32(0.5))


@pytest.fixture
def token_ids():
    return np.random.default_rng(0).integers(0, VOCAB_SIZE, 150).astype(np.int32) % 5


def exact_nats(weights, token_ids):
    """Score in one pass, token by token, with the reference engine in float64."""
    engine = ReferenceEngine(weights)
    state, previous, total = engine.initial_state(1), START_ID, 0.0
    for token_id in token_ids.tolist():
        logits, state = engine.decode_step(np.array([previous]), state)
        exact = [float(x) for x in logits[0]]
        total += math.log(math.fsum(map(math.exp, exact))) - exact[token_id]
        previous = token_id
    return total


def encoded(token_ids):
    return EncodedText(token_ids=token_ids, characters=1, bytes=1)


def dynamic_nats(weights, config, token_ids, **settings):
    settings = DynamicConfig(**{"segment": 32, **settings})
    score = dynamic_score(weights, config, encoded(token_ids), START_ID, settings)
    assert (score.tokens, score.characters, score.bytes) == (len(token_ids), 1, 1)
    return score.total_nats


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0}, {"pull": 1.0}])
def test_without_updates_it_is_one_exact_pass(config, weights, token_ids, settings):
    found = dynamic_nats(weights, config, token_ids, **settings)
    assert found == pytest.approx(exact_nats(weights, token_ids), rel=1e-5)


@pytest.mark.parametrize("length", [1, 32])
def test_the_first_segment_is_scored_by_the_trained_weights(length, token_ids):
    config = MODELS["gru"]
    weights, head = fresh_weights(config), token_ids[:length]
    found = dynamic_nats(weights, config, head, learning_rate=0.5)
    assert found == pytest.approx(exact_nats(weights, head), rel=1e-5)
    longer = dynamic_nats(weights, config, token_ids[:33], learning_rate=0.5)
    assert abs(longer - exact_nats(weights, token_ids[:33])) > 0.1


def test_score_equals_a_slow_loop_with_the_update_written_out(config, weights, token_ids):
    settings = DynamicConfig(segment=40, learning_rate=0.02, clip_norm=0.3, pull=0.1)
    score = dynamic_score(weights, config, encoded(token_ids), START_ID, settings)
    nats, last = slow_loop(weights, config, token_ids, settings)
    assert score.total_nats == pytest.approx(nats, rel=1e-4)
    found = adapt(weights, config, token_ids, START_ID, settings).to_tensors()
    for name, expected in last.to_tensors().items():
        np.testing.assert_allclose(found[name], expected, atol=2e-3, err_msg=name)


def slow_loop(weights, config, token_ids, settings):
    """Return the nats and the last weights of Krause's loop in NumPy, except for the gradient."""
    import tensorflow as tf

    from textgen.models.language_model import build_language_model

    model = build_language_model(config, VOCAB_SIZE)
    model.set_model_weights(weights)
    variables = [v for v in model.trainable_variables if "learned_initial_state" not in v.path]
    trained = [v.numpy().astype(np.float64) for v in variables]
    squares = [np.zeros_like(value) for value in trained]
    stream = np.append(START_ID, token_ids).astype(np.int32)
    state, total = model.initial_state(1), 0.0
    for number, start in enumerate(range(0, len(token_ids), settings.segment), start=1):
        piece = stream[None, start : start + settings.segment + 1]
        with tf.GradientTape() as tape:
            losses, state = model.token_losses(piece[:, :-1], piece[:, 1:], state)
            loss = tf.reduce_mean(losses)
        total += float(tf.reduce_sum(losses))
        gradients = [
            tf.convert_to_tensor(gradient).numpy().astype(np.float64)
            for gradient in tape.gradient(loss, [v.value for v in variables])
        ]
        norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients))
        for i, (variable, gradient) in enumerate(zip(variables, gradients, strict=True)):
            clipped = gradient * min(1.0, settings.clip_norm / norm)
            squares[i] = 0.999 * squares[i] + 0.001 * clipped**2
            root = np.sqrt(squares[i] / (1 - 0.999**number)) + 1e-8
            moved = variable.numpy() - settings.learning_rate * clipped / root
            variable.assign(moved + settings.pull * (trained[i] - moved))
    return total, model.model_weights()


def test_a_repetitive_text_of_new_words_scores_better_than_without_updates(tiny_run):
    model = textgen.load(tiny_run.path)
    before = tensors_sha256(model.weights.to_tensors())
    static, dynamic = model.score(TALE), model.score(TALE, protocol="dynamic")
    assert dynamic.total_nats < 0.95 * static.total_nats
    assert (dynamic.tokens, dynamic.bytes) == (static.tokens, static.bytes)
    assert tensors_sha256(model.weights.to_tensors()) == before


def test_adapted_weights_score_the_text_better_with_every_pass(config, weights, token_ids):
    before = tensors_sha256(weights.to_tensors())
    settings = DynamicConfig(learning_rate=0.01)
    nats = [exact_nats(weights, token_ids)] + [
        exact_nats(adapt(weights, config, token_ids, START_ID, settings, passes), token_ids)
        for passes in (1, 8)
    ]
    assert nats[0] > nats[1] > nats[2]
    assert tensors_sha256(weights.to_tensors()) == before


def test_a_text_without_tokens_and_weights_that_diverge_are_refused(token_ids):
    config = MODELS["gru"]
    weights = fresh_weights(config)
    with pytest.raises(CorpusError, match="at least 1 token"):
        dynamic_nats(weights, config, token_ids[:0])
    with pytest.raises(TrainingError, match="learning_rate"):
        dynamic_nats(weights, config, token_ids, learning_rate=1e38)
    with pytest.raises(TrainingError, match="learning_rate"):
        adapt(weights, config, token_ids[:9], START_ID, DynamicConfig(learning_rate=1e39))


@pytest.mark.parametrize(
    "settings",
    [{"segment": 0}, {"learning_rate": -1.0}, {"clip_norm": 0.0}, {"pull": 1.5}],
)
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        DynamicConfig(**settings)


@pytest.mark.parametrize(
    "length, passes, words",
    [(0, 1, "at least 2 tokens. Received: 0"), (1, 1, "at least 2 tokens. Received: 1")]
    + [(9, passes, f"`passes` must be in [1, 1,000]. Received: {passes}") for passes in (0, 1001)]
    + [(9, 1.0, "`passes` must be an integer"), (9, True, "`passes` must be an integer")],
)
def test_a_text_that_is_too_short_and_passes_out_of_range_are_refused(
    token_ids, length, passes, words
):
    config = MODELS["gru"]
    weights = fresh_weights(config)
    with pytest.raises(ConfigError, match=re.escape(words)):
        adapt(weights, config, token_ids[:length], START_ID, passes=passes)


def test_progress_is_reported_after_every_segment(token_ids):
    config = MODELS["gru"]
    shares = []
    settings = DynamicConfig(segment=64)
    text = encoded(token_ids)
    dynamic_score(fresh_weights(config), config, text, START_ID, settings, shares.append)
    assert shares == [64 / 150, 128 / 150, 1.0]


def test_one_text_has_no_effect_on_the_score_of_the_next(token_ids):
    config = MODELS["gru"]
    weights = fresh_weights(config)
    first = dynamic_nats(weights, config, token_ids, learning_rate=0.01)
    assert dynamic_nats(weights, config, token_ids[::-1], learning_rate=0.01) != first
    assert dynamic_nats(weights, config, token_ids, learning_rate=0.01) == first

"""A loaded model: every engine computes and writes the same, for characters and subwords."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import textgen
from textgen.config import DynamicConfig
from textgen.generation.receipts import Receipt

ENGINES = ["numpy", "onnx", "reference", "tensorflow"]


@pytest.fixture(scope="session")
def subword_run(tiny_config, text, tmp_path_factory):
    config = replace(
        tiny_config,
        tokenizer=textgen.TokenizerConfig(tokenizer="subword", vocab_size=300),
        model=replace(tiny_config.model, num_layers=3),
    )
    return textgen.train(config, tmp_path_factory.mktemp("runs") / "subword", text=text)


@pytest.fixture(params=["char, one layer", "subword, three layers"])
def run(request, tiny_run, subword_run):
    return tiny_run if request.param.startswith("char") else subword_run


def test_engines_agree_in_logits_and_state_on_a_trained_model(run, text):
    results = []
    for name in ENGINES:
        model = textgen.load(run.path, engine=name)
        token_ids = model.tokenizer.encode(text[:300])[None]
        results.append(model.engine.forward(token_ids, model.engine.initial_state(1)))
    for logits, state in results[1:]:
        np.testing.assert_allclose(logits, results[0][0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(state, results[0][1], rtol=1e-3, atol=1e-5)


def test_engines_write_the_same_text_on_a_trained_model(run):
    sampling = textgen.SamplingConfig(max_new_tokens=60, temperature=0.9, top_k=20, seed=4)
    texts = {textgen.load(run.path, engine=name).generate("12 green", sampling) for name in ENGINES}
    assert len(texts) == 1 and len(texts.pop()) >= 60


def test_surprise_joins_to_the_text_and_sums_to_the_score(run, text):
    model = textgen.load(run.path)
    pieces = model.surprise(text[:200])
    assert "".join(piece for piece, _ in pieces) == text[:200]
    bits = sum(bits for _, bits in pieces)
    assert bits == pytest.approx(model.score(text[:200]).bits_per_char * 200, rel=1e-4)


def test_a_configuration_of_other_sizes_than_the_weights_is_refused(run, tmp_path):
    copy = textgen.RunDirectory(shutil.copytree(run.path, tmp_path / "copy"))
    config = copy.read_config()
    copy.write_config(replace(config, model=replace(config.model, hidden_size=99)))
    with pytest.raises(textgen.TextgenError, match="do not fit together"):
        textgen.load(copy.path)


def test_a_text_ends_where_a_document_does_if_the_run_knows_of_documents(tiny_run, text):
    model = textgen.load(tiny_run.path)
    sampling = textgen.SamplingConfig(max_new_tokens=200, seed=3, stop_at_document=True)
    with pytest.raises(textgen.TextgenError, match="--document-end"):
        model.generate("9 green", sampling)
    corpus = replace(model.config.corpus, document_end="n")
    model = replace(model, config=replace(model.config, corpus=corpus))
    whole = model.generate("9 green", replace(sampling, stop_at_document=False))
    assert model.generate("9 green", sampling) == whole.partition("n")[0] != whole


@pytest.fixture
def copied_run(tiny_run, tmp_path):
    return textgen.RunDirectory(shutil.copytree(tiny_run.path, tmp_path / "run"))


def _files(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_an_adapted_model_knows_its_text_and_leaves_its_run_as_it_was(copied_run):
    model, tale = textgen.load(copied_run.path), "moose gnaw a lemon, owls dream.\n"
    before = _files(copied_run)
    adapted = model.adapt(tale * 4, passes=5)
    assert adapted.score(tale).loss < model.score(tale).loss
    sampling = textgen.SamplingConfig(max_new_tokens=30, temperature="auto")
    assert len(adapted.generate(tale, sampling)) == 30
    assert adapted.temperature == adapted._measure_temperature()["temperature"]
    assert replace(adapted, weights_format="int8").rounding_loss() < 1
    assert _files(copied_run) == before
    assert model.weights_sha256 != adapted.weights_sha256


def test_a_receipt_tells_what_the_model_learnt_and_from_which_weights(copied_run, tmp_path):
    model = textgen.load(copied_run.path)
    settings = DynamicConfig(segment=16, learning_rate=0.01)
    adapted = model.adapt("owls dream", 2, settings).adapt("a moose\u6f22", unknown="skip")
    request = textgen.Request(sampling=textgen.SamplingConfig(max_new_tokens=40))
    texts = [written.text for written in adapted.generate_batch([request])]
    adapted.receipt([request], texts).save(tmp_path / "receipt.json")
    receipt = Receipt.load(tmp_path / "receipt.json")
    assert receipt.weights_sha256 == model.weights_sha256
    assert [(a.text, a.passes) for a in receipt.adaptations] == [
        ("owls dream", 2),
        ("a moose\u6f22", 1),
    ]
    again = model.replay_adaptations(receipt.adaptations)
    assert again.weights_sha256 == adapted.weights_sha256
    assert receipt.differences(again.receipt([request], texts)) == []


@pytest.mark.parametrize(
    "text, passes, words", [("", 1, "2 tokens"), ("a", 1, "2 tokens"), ("ab", 0, "passes")]
)
def test_what_cannot_be_learnt_from_is_refused(tiny_run, text, passes, words):
    with pytest.raises(textgen.TextgenError, match=words):
        textgen.load(tiny_run.path).adapt(text, passes)


def test_every_protocol_scores_a_split_as_it_scores_its_text(run):
    model = textgen.load(run.path)
    text = model.tokenizer.decode(model.run.read_corpus().validation)
    costs = {}
    for protocol in ("carried", "windows", "dynamic"):
        split, whole = (
            model.score_split("validation", protocol),
            model.score(text, protocol=protocol),
        )
        assert split.as_dict() == pytest.approx(whole.as_dict(), rel=1e-5)
        costs[protocol] = split.loss
    assert len(set(costs.values())) == 3
    with pytest.raises(textgen.TextgenError, match="protocol"):
        model.score(text, protocol="static")


@pytest.mark.parametrize("protocol", ["carried", "windows", "dynamic"])
def test_scoring_tells_how_far_it_is(run, protocol):
    model, shares = textgen.load(run.path), []
    text = model.tokenizer.decode(model.run.read_corpus().train[:6_000])
    watched = model.score(text, protocol=protocol, on_progress=shares.append)
    assert len(shares) > 1
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1
    assert watched.loss == pytest.approx(model.score(text, protocol=protocol).loss, rel=1e-6)


def test_the_carried_protocol_gives_what_the_training_log_has(run):
    best = min(row["validation_loss"] for row in run.read_metrics())
    assert textgen.load(run.path).score_split("validation").loss == pytest.approx(best, rel=1e-4)

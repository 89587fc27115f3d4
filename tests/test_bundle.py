"""A loaded model: every engine computes and writes the same, for characters and subwords."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import textgen

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

"""A loaded model: every engine computes and generates the same, for characters and subwords."""

import logging
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

import textgen
from textgen import storage
from textgen.config import DynamicConfig
from textgen.errors import ConfigError, RunError, TokenizerError
from textgen.generation import calibrate_temperature
from textgen.generation.receipts import Receipt
from textgen.runs import RunDirectory

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


@pytest.fixture
def copied_run(tiny_run, tmp_path):
    return RunDirectory(shutil.copytree(tiny_run.path, tmp_path / "run"))


@pytest.fixture
def unwritable_run(copied_run, monkeypatch):
    """A run whose files cannot be written, whoever the user is."""

    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(storage, "write_atomically", refuse)
    storage._note_unwritable.cache_clear()
    return copied_run


def files_of(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_engines_agree_in_logits_and_state_on_a_trained_model(run, text):
    results = []
    for name in ENGINES:
        model = textgen.load(run.path, engine=name)
        token_ids = model.tokenizer.encode(text[:300])[None]
        results.append(model.engine.forward(token_ids, model.engine.initial_state(1)))
    for logits, state in results[1:]:
        np.testing.assert_allclose(logits, results[0][0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(state, results[0][1], rtol=1e-3, atol=1e-5)


def test_engines_generate_the_same_text_on_a_trained_model(run):
    sampling = textgen.SamplingConfig(max_new_tokens=60, temperature=0.9, top_k=20, seed=4)
    texts = {textgen.load(run.path, engine=name).generate("12 green", sampling) for name in ENGINES}
    assert len(texts) == 1 and len(texts.pop()) >= 60


def test_a_stream_joins_to_the_text_and_equals_a_row_of_a_batch(run):
    model = textgen.load(run.path)
    sampling = textgen.SamplingConfig(max_new_tokens=50, top_p=0.9)
    text = model.generate("3 green", sampling)
    assert "".join(model.stream("3 green", sampling)) == text
    many = model.generate_many("3 green", 3, sampling)
    assert many[0] == text
    assert len(set(many)) == 3


def test_surprise_joins_to_the_text_and_sums_to_the_score(run, text):
    model = textgen.load(run.path)
    pieces = model.surprise(text[:200])
    assert "".join(piece for piece, _ in pieces) == text[:200]
    bits = sum(bits for _, bits in pieces)
    assert bits == pytest.approx(model.score(text[:200]).bits_per_char * 200, rel=1e-4)


def test_the_message_about_another_configuration_has_both_values(tiny_run, copied_run):
    config = copied_run.read_config()
    model = replace(config.model, hidden_size=99, initial_state="learned")
    copied_run.write_config(replace(config, model=model))
    with pytest.raises(RunError) as caught:
        textgen.load(copied_run.path)
    message = str(caught.value)
    for words in ("config.json", "model.safetensors", str(copied_run.path), "same copy"):
        assert words in message
    assert "`hidden_size` is 99 in the configuration, 16 in the weights" in message
    assert "`initial_state` is learned in the configuration, zeros in the weights" in message


def test_a_text_ends_at_the_document_end_of_the_run(tiny_run):
    model = textgen.load(tiny_run.path)
    sampling = textgen.SamplingConfig(max_new_tokens=200, seed=3, stop_at_document=True)
    with pytest.raises(ConfigError, match="`document_end`"):
        model.generate("9 green", sampling)
    corpus = replace(model.config.corpus, document_end="n")
    model = replace(model, config=replace(model.config, corpus=corpus))
    whole = model.generate("9 green", replace(sampling, stop_at_document=False))
    assert model.generate("9 green", sampling) == whole.partition("n")[0] != whole


def test_a_search_ends_at_stop_texts_and_favors_longer_texts_by_its_penalty(tiny_run):
    model = textgen.load(tiny_run.path)
    sampling = textgen.SamplingConfig(max_new_tokens=30, stop=("n", "l"))
    lengths = {}
    for length_penalty in (0.0, 4.0):
        beams = model.search("1", 4, sampling, length_penalty=length_penalty)
        assert beams == sorted(beams, key=lambda beam: -beam.score)
        assert all(not set("nl") & set(beam.text) for beam in beams)
        lengths[length_penalty] = len(beams[0].token_ids)
    assert lengths[0.0] < lengths[4.0]


def test_a_search_with_one_beam_takes_the_most_probable_tokens(run):
    model = textgen.load(run.path)
    greedy = model.generate("5 ", textgen.SamplingConfig(max_new_tokens=20, temperature=0.0))
    (beam,) = model.search("5 ", 1, textgen.SamplingConfig(max_new_tokens=20))
    assert beam.text == greedy


def test_an_empty_prompt_is_the_start_of_a_text(tiny_run):
    model = textgen.load(tiny_run.path)
    start = model.tokenizer.decode([model.tokenizer.start_id])
    sampling = textgen.SamplingConfig(max_new_tokens=30)
    assert model.generate("", sampling) == model.generate(start, sampling)
    assert model.search("", 2, sampling)[0].text == model.search(start, 2, sampling)[0].text


def test_an_adapted_model_predicts_its_text_better_and_leaves_its_run_unchanged(copied_run):
    model, tale = textgen.load(copied_run.path), "moose gnaw a lemon, owls dream.\n"
    before = files_of(copied_run)
    adapted = model.adapt(tale * 4, passes=5)
    assert adapted.score(tale).loss < model.score(tale).loss
    sampling = textgen.SamplingConfig(max_new_tokens=30, temperature="auto")
    assert len(adapted.generate(tale, sampling)) == 30
    held_out = model.tokenizer.decode(copied_run.read_corpus().validation)
    measured = calibrate_temperature(adapted.engine, adapted.tokenizer, held_out)
    assert adapted.temperature == measured.temperature
    assert files_of(copied_run) == before
    assert model.weights_sha256 != adapted.weights_sha256


def test_a_receipt_has_the_adaptations_and_the_weights_before_them(copied_run, tmp_path):
    model = textgen.load(copied_run.path)
    settings = DynamicConfig(segment=16, learning_rate=0.01)
    adapted = model.adapt("owls dream", 2, settings).adapt("a moose\u6f22", unknown="skip")
    request = textgen.Request(sampling=textgen.SamplingConfig(max_new_tokens=40))
    texts = [generated.text for generated in adapted.generate_batch([request])]
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
def test_a_text_that_cannot_be_adapted_to_is_refused(tiny_run, text, passes, words):
    with pytest.raises(ConfigError, match=words):
        textgen.load(tiny_run.path).adapt(text, passes)


def test_every_protocol_scores_a_split_as_it_scores_its_text(run):
    model = textgen.load(run.path)
    text = model.tokenizer.decode(model.run.read_corpus().validation)
    losses = {}
    for protocol in ("carried", "windows", "dynamic"):
        split, whole = (
            model.score_split("validation", protocol),
            model.score(text, protocol=protocol),
        )
        assert split.as_dict() == pytest.approx(whole.as_dict(), rel=1e-5)
        losses[protocol] = split.loss
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize("protocol", ["carried", "windows", "dynamic"])
def test_the_share_that_is_scored_is_reported(run, protocol):
    model, shares = textgen.load(run.path), []
    text = model.tokenizer.decode(model.run.read_corpus().train[:6_000])
    reported = model.score(text, protocol=protocol, on_progress=shares.append)
    assert len(shares) > 1
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1
    assert reported.loss == pytest.approx(model.score(text, protocol=protocol).loss, rel=1e-6)


def test_the_carried_protocol_agrees_with_the_training_log(run):
    best = min(row["validation_loss"] for row in run.read_metrics())
    assert textgen.load(run.path).score_split("validation").loss == pytest.approx(best, rel=1e-4)


def test_quantized_weights_are_made_once_and_stored(copied_run):
    first = textgen.load(copied_run.path, weights_format="int8")
    (path,) = (copied_run.path / "quantized").iterdir()
    assert path.name == "int8.safetensors"
    content, changed = path.read_bytes(), path.stat().st_mtime_ns
    again = textgen.load(copied_run.path, weights_format="int8")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, changed)
    sampling = textgen.SamplingConfig(max_new_tokens=40)
    assert again.generate("4 green", sampling) == first.generate("4 green", sampling)


def test_quantized_weights_that_lose_too_much_are_refused_at_every_load(copied_run, monkeypatch):
    losses = iter([1.0, 1.006])
    monkeypatch.setattr("textgen.bundle._validation_loss", lambda *_: lambda _: next(losses))
    for _ in range(2):
        with pytest.raises(RunError, match=r"int8 weights .* Received: 0\.0060"):
            textgen.load(copied_run.path, weights_format="int8")


def test_the_temperature_is_measured_once_and_stored(copied_run, caplog):
    caplog.set_level(logging.INFO, "textgen")
    model = textgen.load(copied_run.path)
    temperature = model.temperature
    assert 0.3 <= temperature <= 1.5
    again = textgen.load(copied_run.path)
    sampling = textgen.SamplingConfig(max_new_tokens=20, temperature="auto")
    number = replace(sampling, temperature=temperature)
    assert again.generate("1", sampling) == again.generate("1", number)
    assert len([m for m in caplog.messages if "measuring" in m]) == 1


def test_a_run_that_cannot_be_written_still_generates(unwritable_run, caplog):
    caplog.set_level(logging.WARNING, "textgen")
    before = files_of(unwritable_run)
    model = textgen.load(unwritable_run.path, weights_format="int8")
    sampling = textgen.SamplingConfig(max_new_tokens=20, temperature="auto", max_copy=8)
    for _ in range(2):
        assert len(model.generate("1", sampling)) == 20
    names = sorted(re.findall(r"([\w.]+) cannot be written", "\n".join(caplog.messages)))
    assert names == ["int8.safetensors", "passages.safetensors", "temperature.json"]
    assert files_of(unwritable_run) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes all")
def test_a_read_only_run_still_generates(copied_run):
    copied_run.path.chmod(0o555)
    try:
        model = textgen.load(copied_run.path, weights_format="int8")
        sampling = textgen.SamplingConfig(max_new_tokens=20, temperature="auto", max_copy=8)
        assert len(model.generate("1", sampling)) == 20
    finally:
        copied_run.path.chmod(0o755)


WRONG_ARGUMENTS = {
    "generate prompt": (lambda m: m.generate(5), "`prompt` must be a string. Received: 5 (int)"),
    "generate sampling": (lambda m: m.generate("a", 0.7), "`sampling` must be a SamplingConfig"),
    "generate unknown": (lambda m: m.generate("a", unknown="drop"), "`unknown` must be error"),
    "generate_many samples": (lambda m: m.generate_many("a", 0), "`num_samples` must be in"),
    "generate_many type": (lambda m: m.generate_many("a", "2"), "`num_samples` must be an int"),
    "generate_batch texts": (lambda m: m.generate_batch(["a"]), "each entry a Request"),
    "generate_batch text": (lambda m: m.generate_batch("a"), "`requests` must be a list"),
    "generate_batch logprobs": (
        lambda m: m.generate_batch([], logprobs=-1),
        "`logprobs` must be in",
    ),
    "stream prompt": (lambda m: m.stream(None), "`prompt` must be a string. Received: None"),
    "search beams": (lambda m: m.search("a", 0), "`num_beams` must be in"),
    "search penalty": (lambda m: m.search("a", length_penalty="1"), "`length_penalty` must be"),
    "score text": (lambda m: m.score(None), "`text` must be a string. Received: None"),
    "score protocol": (
        lambda m: m.score("a", protocol="static"),
        "`protocol` must be carried, windows or dynamic. Received: 'static'",
    ),
    "score progress": (
        lambda m: m.score("a", on_progress=5),
        "`on_progress` must be a function, or None. Received: 5 (int).",
    ),
    "score_split split": (lambda m: m.score_split("test"), "`split` must be validation or train"),
    "surprise text": (
        lambda m: m.surprise(b"a"),
        "`text` must be a string. Received: b'a' (bytes)",
    ),
    "receipt texts": (lambda m: m.receipt([], "a"), "`texts` must be a list, each entry a string"),
    "receipt lengths": (lambda m: m.receipt([], ["a"]), "`texts` must be 0 strings. Received: 1."),
    "receipt unknown": (lambda m: m.receipt([], [], "drop"), "`unknown` must be error"),
    "resolve request": (lambda m: m.resolve("a"), "`request` must be a Request"),
    "replay adaptations": (lambda m: m.replay_adaptations(5), "`adaptations` must be a list"),
    "adapt text": (lambda m: m.adapt(["ab"]), "`text` must be a string"),
    "adapt passes": (lambda m: m.adapt("ab", "2"), "`passes` must be an integer"),
    "adapt settings": (lambda m: m.adapt("ab", 1, 0.1), "`settings` must be a DynamicConfig"),
}


@pytest.mark.parametrize("call, words", WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_an_argument_of_the_wrong_type_is_named(tiny_run, call, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        call(textgen.load(tiny_run.path))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"run_dir": None}, "`run_dir` must be a string or a Path. Received: None"),
        ({"engine": "torch"}, "`engine` must be auto, numpy, onnx, reference or tensorflow"),
        ({"weights_format": "int2"}, "`weights_format` must be float32, int8 or int4"),
        ({"weights_format": "int8", "engine": "numpy"}, "float32 with the engine numpy"),
    ],
)
def test_load_refuses_wrong_arguments_before_it_reads_the_run(arguments, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        textgen.load(**{"run_dir": "nowhere", **arguments})


def test_numbers_of_numpy_and_paths_are_accepted(tiny_run):
    model = textgen.load(str(tiny_run.path))
    sampling = textgen.SamplingConfig(max_new_tokens=np.int32(8))
    assert len(model.generate_many("1", np.int64(2), sampling)) == 2


def test_an_unknown_character_is_an_error_or_left_out(tiny_run):
    model = textgen.load(tiny_run.path)
    with pytest.raises(TokenizerError):
        model.generate("1漢")
    sampling = textgen.SamplingConfig(max_new_tokens=9)
    assert model.generate("1漢", sampling, unknown="skip") == model.generate("1", sampling)


def test_a_bundle_is_shown_without_its_arrays(tiny_run):
    assert len(repr(textgen.load(tiny_run.path))) < 200 + len(str(tiny_run.path))

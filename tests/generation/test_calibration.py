"""Calibration, on texts that the model itself generated at a known temperature."""

import numpy as np
import pytest

from tests.builders import make_lively_weights
from textgen.config import SamplingConfig
from textgen.engines import make_engine
from textgen.errors import ConfigError
from textgen.generation import Request, calibrate_temperature, generate_texts
from textgen.tokenizers.char import CharTokenizer

TOKENIZER = CharTokenizer("abcdefghijklmnopqrstuvw")


@pytest.fixture(scope="module")
def engine():
    return make_engine("onnx", make_lively_weights(vocab_size=TOKENIZER.vocab_size))


def generate(engine, temperature, length=15_000, seed=9):
    """A text that the model generates at a temperature."""
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=length, seed=seed)
    return generate_texts(engine, TOKENIZER, [Request(sampling=sampling)])[0].text


@pytest.mark.parametrize("temperature", [0.5, 0.8, 1.1])
def test_the_temperature_of_the_models_own_text_is_found(engine, temperature):
    calibration = calibrate_temperature(engine, TOKENIZER, generate(engine, temperature))
    assert calibration.temperature == pytest.approx(temperature, abs=0.1)
    expected = pytest.approx(calibration.held_out_entropy, abs=0.1)
    assert calibration.generated_entropy == expected


def test_entropies_are_bits_per_character_and_equal_inputs_give_equal_results(engine):
    # Eight letters drawn uniformly have 3 bits each; so short a text compresses to 16 % more.
    held_out = "".join(np.random.default_rng(5).choice(list("abcdefgh"), 3_000))
    calibration = calibrate_temperature(engine, TOKENIZER, held_out)
    assert calibration == calibrate_temperature(engine, TOKENIZER, held_out)
    assert 3 < calibration.held_out_entropy < 3.6


@pytest.mark.parametrize(("held_out", "limit"), [("ab" * 200, 0.31), (None, 1.49)])
def test_the_temperature_stays_within_its_limits(engine, held_out, limit):
    text = generate(engine, 50.0, 600) if held_out is None else held_out
    assert calibrate_temperature(engine, TOKENIZER, text).temperature == limit


def test_a_short_text_is_refused(engine):
    with pytest.raises(ConfigError, match=r"`temperature=auto` needs 200 .*Received: 199"):
        calibrate_temperature(engine, TOKENIZER, "a" * 199)

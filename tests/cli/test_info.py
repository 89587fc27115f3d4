"""`info`: the facts of a run, as lines and as JSON."""

import json

import pytest


def test_the_facts_are_those_of_the_run(run_command, tiny_run):
    code, out, _ = run_command("info", tiny_run.path, "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["hidden_size"], facts["num_layers"], facts["cell"]) == (16, 1, "gru")
    assert facts["vocab_size"] == tiny_run.read_tokenizer().vocab_size
    best = min(tiny_run.read_metrics(), key=lambda row: row["validation_loss"])
    assert facts["best_step"] == best["step"]
    assert facts["bits_per_char"] == pytest.approx(best["bits_per_char"])
    # Embedding, GRU, and Dense, with 29 tokens, 8 and 16 units.
    size = facts["vocab_size"]
    assert facts["parameters"] == size * 8 + 3 * 16 * (8 + 16 + 2) + 16 * size + size


def test_the_lines_have_the_same_names_as_the_json(run_command, tiny_run):
    _, out, _ = run_command("info", tiny_run.path)
    facts = json.loads(run_command("info", tiny_run.path, "--json")[1])
    assert [line.split("  ")[0].strip() for line in out.splitlines()] == [
        name.replace("_", " ") for name in facts
    ]

"""The view of a training run: one line per validation, samples on disk and on stderr."""

from types import SimpleNamespace

import pytest
import rich.console

from textgen.cli import progress
from textgen.models.language_model import build_language_model


@pytest.fixture
def console(monkeypatch, tmp_path):
    """A console that writes to a file, as a pipe would."""
    with (tmp_path / "err.txt").open("w+", encoding="utf-8") as file:
        monkeypatch.setattr(
            progress, "console", rich.console.Console(file=file, highlight=False, soft_wrap=True)
        )
        yield file


def shown(file):
    file.seek(0)
    return file.read()


@pytest.mark.parametrize(
    "seconds, clock", [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3661, "1:01:01")]
)
def test_a_validation_is_one_line_with_its_time(console, seconds, clock):
    bar = progress.ProgressBar()
    state = SimpleNamespace(step=1500, best_step=1500, seconds=seconds)
    bar.set_model(SimpleNamespace(progress=state))
    logs = {"loss": 1.25, "val_loss": 1.5, "val_bits_per_char": 2.164}
    with bar:
        bar.on_epoch_end(0, logs)
    expected = f"step  1,500  {clock}  loss 1.2500  validation 1.5000  2.164 bits/char  best\n"
    assert shown(console) == expected


def test_a_sample_is_written_to_the_run_and_shown(console, tiny_run, tmp_path):
    run = type(tiny_run)(tmp_path / "run")
    config = tiny_run.read_config()
    run.path.mkdir()
    run.write_config(config)
    run.write_tokenizer(tiny_run.read_tokenizer())
    language_model = build_language_model(config.model, run.read_tokenizer().vocab_size)
    writer = progress.SampleWriter(run)
    model = SimpleNamespace(language_model=language_model, progress=SimpleNamespace(step=7))
    writer.set_model(model)
    writer.on_train_begin()
    writer.on_test_end()
    writer.on_epoch_end(0)
    (path,) = (run.path / "samples").iterdir()
    sample = path.read_text("utf-8")
    assert path.name == "step_0000007.txt"
    assert len(sample) == config.training.sample_length
    assert sample.splitlines()[0] in shown(console)

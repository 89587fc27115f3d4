"""The tables of all settings in `docs/settings.md`, generated from the dataclasses: `make docs`."""

import ast
import dataclasses
import inspect
import textwrap
from pathlib import Path
from typing import get_type_hints

from textgen.config import (
    CorpusConfig,
    DynamicConfig,
    ModelConfig,
    SamplingConfig,
    TokenizerConfig,
    TrainingConfig,
    describe_setting,
)

PAGE = Path(__file__).with_name("settings.md")
HEAD = """\
# Settings

Every setting with its flag, default and accepted values. In Python a setting is named as its flag,
with underscores: `--top-k` is `top_k`. This page is generated from `textgen/config` by `make docs`.
"""
SECTIONS = {
    "Corpus": (CorpusConfig, "`train`; `textgen.CorpusConfig`"),
    "Tokenizer": (TokenizerConfig, "`train`; `textgen.TokenizerConfig`"),
    "Model": (ModelConfig, "`train`; `textgen.ModelConfig`"),
    "Training": (TrainingConfig, "`train`; `textgen.TrainingConfig`"),
    "Sampling": (SamplingConfig, "`generate`; `textgen.SamplingConfig`"),
    "Dynamic evaluation": (DynamicConfig, "Python only; `textgen.config.DynamicConfig`"),
}
# Settings that are positional on the command line.
POSITIONAL = {"sources"}


def settings_page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for title, (cls, where) in SECTIONS.items():
        parts += [f"## {title}\n\n{where}\n", _table(cls)]
    return "\n".join(parts)


def _table(cls: type) -> str:
    helps = _help_texts(cls)
    has_flags = cls is not DynamicConfig
    rows = ["| setting | default | accepts | effect |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        flag = "--" + field.name.replace("_", "-")
        name = flag if has_flags and field.name not in POSITIONAL else field.name
        cells = [f"`{name}`", _default(field.default), _accepts(cls, field.name), helps[field.name]]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _accepts(cls: type, name: str) -> str:
    return "True or False" if get_type_hints(cls)[name] is bool else describe_setting(cls, name)[0]


def _default(value: object) -> str:
    if value in ((), ""):
        return "none" if value == () else "empty"
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return f"`{text}`"


def _help_texts(cls: type) -> dict[str, str]:
    """Return the string under each field of a dataclass, in one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    texts = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):  # type: ignore[attr-defined]
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            texts[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return texts


if __name__ == "__main__":
    PAGE.write_text(settings_page(), "utf-8")

"""`doctor`: report hardware, library versions and the kernel in use."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from textgen.cli.arguments import parse
from textgen.cli.flags import with_flags
from textgen.errors import ConfigError
from textgen.runs import RunDirectory
from textgen.startup import import_tensorflow_quietly


@dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    """Report hardware, library versions and the kernel that training uses.

    The kernel is that of the RUN's model and settings; without a RUN, of the defaults.
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = ()
    """A run directory."""
    measure: bool = False
    """Also measure the training throughput of each kernel that can run here."""
    json: bool = False
    """Print one JSON object."""


def run(arguments: list[str], prog: str) -> int:
    """Print the findings to stdout."""
    command = parse(DoctorCommand, arguments, prog=prog)
    if len(command.words) > 1:
        raise ConfigError(
            f"Expected at most one run directory. Received: {' '.join(command.words)}."
        )
    config = vocab_size = None
    if command.words:
        target = RunDirectory(Path(command.words[0]))
        config, vocab_size = target.read_config(), target.read_tokenizer().vocab_size
    import_tensorflow_quietly()
    from textgen.models.kernels import limit_threads
    from textgen.training.doctor import DEFAULT_VOCAB_SIZE, diagnose

    limit_threads()
    findings = diagnose(config, vocab_size or DEFAULT_VOCAB_SIZE, measure=command.measure)
    print(json.dumps(findings) if command.json else _table(findings))
    return 0


def _table(findings: dict[str, Any]) -> str:
    gpu, cpu = findings["gpu"], findings["cpu"]
    rows = [
        (package["name"], package["found"], f"wanted {package['wanted'] or 'any'}")
        for package in findings["versions"]
    ]
    for name, version in gpu["found"].items():
        wanted = gpu["wanted"].get(name)
        rows.append((name, version or "not found", f"wanted {wanted or 'any'}"))
    rows.append(("GPUs", ", ".join(gpu["visible"]) or "none", gpu["reason"] or ""))
    rows.append(("CPU", f"{cpu['cores']} cores", " ".join(cpu["instruction_sets"])))
    for layer in findings["layers"]:
        rows.append((layer["name"], layer["kernel"], layer["kernel_reason"]))
        rows.append(("", layer["matmul_dtype"], layer["matmul_dtype_reason"]))
        if layer["reason"]:
            rows.append(("", "faster", with_flags(layer["reason"])))
    for row in findings.get("measured", []):
        rate = f"{row['tokens_per_second']:,} tokens/s"
        rows.append(("measured", f"{row['kernel']} {row['matmul_dtype']}", rate))
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows)

"""Versions of installed packages, and the bounds that the metadata of textgen states."""

from email.message import Message
from importlib import metadata

import numpy as np
import pytest

from textgen.version import installed_version, required_version


class StatedDistribution:
    """The metadata of a textgen that is installed."""

    requires = (
        "numpy>=1.26",
        'keras<4,>=3.15.1; extra == "train"',
        'tensorflow[and-cuda]; extra == "gpu"',
        'tensorflow<2.22,>=2.21; extra == "train"',
        'textgen[train]; extra == "gpu"',
        "rich (>=13)",
    )

    def __init__(self):
        self.metadata = Message()
        self.metadata["Requires-Python"] = "<3.14,>=3.11"


@pytest.fixture
def stated(monkeypatch):
    monkeypatch.setattr(metadata, "distribution", lambda name: StatedDistribution())


def test_a_package_has_its_version_and_a_missing_one_none():
    assert installed_version("numpy") == np.__version__
    assert installed_version("no-such-package-at-all") is None


@pytest.mark.parametrize(
    "package, bounds",
    [
        ("python", "<3.14,>=3.11"),
        ("numpy", ">=1.26"),
        ("keras", "<4,>=3.15.1"),
        ("tensorflow", "<2.22,>=2.21"),
        ("rich", ">=13"),
        ("textgen", None),
        ("torch", None),
    ],
)
def test_bounds_are_those_of_the_metadata(stated, package, bounds):
    assert required_version(package) == bounds


def test_a_textgen_that_is_not_installed_states_no_bounds(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert required_version("python") is None
    assert required_version("numpy") is None

"""The version of textgen, and of the packages that it uses.

The functions import `importlib.metadata`, which would slow the start of every command.
"""

__version__ = "0.1.0"


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def required_version(package: str) -> str | None:
    """Return the versions of a package that textgen supports, for example "<2.22,>=2.21".

    Args:
        package: Name of a required package, extras included, or `"python"`.

    Returns:
        The bounds that the metadata of the installed textgen states; None if textgen is not
        installed, or states none.
    """
    from importlib import metadata

    try:
        distribution = metadata.distribution("textgen")
    except metadata.PackageNotFoundError:
        return None
    if package == "python":
        return next(iter(distribution.metadata.get_all("Requires-Python", [])), None)
    bounds = map(_parse_requirement, distribution.requires or ())
    return next((bound for name, bound in bounds if name == package and bound), None)


def _parse_requirement(requirement: str) -> tuple[str, str]:
    """Return name and bounds of a requirement: `keras[extra]>=3,<4; extra == "train"`."""
    stated = requirement.partition(";")[0].replace(" ", "")
    end = next((i for i, c in enumerate(stated) if c in "[<>=!~("), len(stated))
    return stated[:end], stated[end:].rpartition("]")[2].strip("()")

"""Imports of optional packages, and of TensorFlow without its startup messages."""

import importlib
import os
import sys
import tempfile
from types import ModuleType

from textgen.errors import DependencyError


def require_extra(package: str, extra: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: Name of the module.
        extra: The extra of textgen that installs it.

    Returns:
        The module.

    Raises:
        DependencyError: The package, or one that it imports, is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        name = (error.name or package).partition(".")[0]
        raise DependencyError(
            f"This needs {name}, which is not installed. "
            f'Install it with: pip install "textgen[{extra}]"'
        ) from error


def import_tensorflow_quietly() -> None:
    """Import TensorFlow and list its devices; its native log is shown only if that fails.

    C++ code writes lines about oneDNN and missing CUDA drivers before it reads any log level, so
    the file descriptor itself is redirected in the meantime.

    Raises:
        DependencyError: TensorFlow is not installed.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            require_extra("tensorflow", "train").config.list_physical_devices()
        except Exception:
            held_back.seek(0)
            os.write(kept, held_back.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)

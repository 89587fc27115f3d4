"""Importing TensorFlow without its start-up chatter on the user's terminal or notebook."""

import importlib
import os
import sys
import tempfile


def import_tensorflow_quietly() -> None:
    """Import TensorFlow and look for devices, its native log held back unless that fails.

    The lines about oneDNN and missing CUDA drivers come from C++ before any log level
    is read, so the file descriptor itself is turned away meanwhile.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            importlib.import_module("tensorflow").config.list_physical_devices()
        except Exception:
            held_back.seek(0)
            os.write(kept, held_back.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)

"""Keeps TensorFlow's notes on missing GPUs and the like off the terminal."""

from __future__ import annotations

import os
import sys


def import_tensorflow() -> None:
    """Import TensorFlow with standard error closed to it.

    Its libraries write notes while they are loaded, before any setting of theirs can stop them. What goes wrong
    is raised as an exception all the same.

    Raises:
        ModuleNotFoundError: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # for what it would write later
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)

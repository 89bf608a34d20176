"""Find the shipped model and configuration files, in a clone or in an installed package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from digitforge_client.errors import DataError


def shipped_models() -> Path:
    """Folder of the shipped models. Each subfolder, such as ``digits``, is the base path of one model.

    Raises:
        DataError: the folder is missing from this installation.
    """
    return _locate("models", "pass a folder that contains the versions of a model as --model-base-path")


def shipped_config() -> Path:
    """Folder of the configuration files for TensorFlow Serving.

    Raises:
        DataError: the folder is missing from this installation.
    """
    return _locate("config", "install digitforge again")


def _locate(folder: str, remedy: str) -> Path:
    # They belong to serving. A wheel has the folder inside the package, a clone next to it.
    package = find_spec("digitforge_serving")
    assert package is not None  # every installation has all packages
    assert package.origin is not None
    serving = Path(package.origin).resolve().parent
    candidates = [serving / "shipped" / folder, serving.parent / folder]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise DataError(
        f"this installation lacks the shipped {folder}: no folder {' or '.join(map(str, candidates))}; {remedy}"
    )

"""Where the shipped model and TensorFlow Serving's configuration lie: in the clone, or inside the installed package."""

from __future__ import annotations

from pathlib import Path

from digitforge_client.errors import DataError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_models() -> Path:
    """Folder of the shipped models; each of its subfolders is the base path of one model, as ``digits``.

    Raises:
        DataError: this installation has none.
    """
    return _locate("models", "pass --model-base-path, the folder that contains the versions of a model")


def shipped_config() -> Path:
    """Folder of the configuration files for TensorFlow Serving.

    Raises:
        DataError: this installation has none.
    """
    return _locate("config", "install digitforge again")


def _locate(folder: str, remedy: str) -> Path:
    # An installed wheel carries the folder inside the package; a clone, beside it.
    candidates = [_PACKAGE / "shipped" / folder, _PACKAGE.parent / folder]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise DataError(f"no folder {' or '.join(map(str, candidates))} in this installation: {remedy}")

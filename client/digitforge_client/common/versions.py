"""A model's base path: each version is a folder named by its number, which appears whole or not at all.

TensorFlow Serving watches such a folder, and passes over names that are no number. So a version is written under such
a name, and renamed when it is whole.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from digitforge_client.common.files import sync

__all__ = ["publish", "sync", "versions"]

_NUMBER: Final = re.compile(r"\s*\+?(\d+)\s*", re.ASCII)
_HIGHEST: Final = 2**63 - 1


def versions(base_path: Path) -> dict[int, list[Path]]:
    """The folders of each version, by its number; whatever else lies there is passed over.

    Names are read as TensorFlow Serving reads them: 123, 00000123 and " 123" are all version 123, .123.tmp is none.

    Returns:
        number => its folders, sorted by name. The last one counts, in TensorFlow Serving too: of 005 and 5, that is 5.

    Raises:
        OSError: the folder cannot be read.
    """
    found: dict[int, list[Path]] = {}
    for path in sorted(base_path.iterdir()):
        name = _NUMBER.fullmatch(path.name)
        if name is not None and int(name[1]) <= _HIGHEST and path.is_dir():
            found.setdefault(int(name[1]), []).append(path)
    return found


def publish(base_path: Path, write: Callable[[Path], object]) -> Path:
    """Add the next version to a base path.

    Args:
        base_path: made if need be.
        write: is given a folder that does not exist, and makes and fills it.

    Returns:
        The folder of the new version, which survives a loss of power.

    Raises:
        OSError: the folder cannot be written. After any error nothing is left behind.
    """
    base_path.mkdir(parents=True, exist_ok=True)
    number = 1 + max(versions(base_path), default=0)
    temporary, published = base_path / f".{number}.tmp", base_path / str(number)
    shutil.rmtree(temporary, ignore_errors=True)  # what a kill may have left
    try:
        write(temporary)
        for path in sorted(temporary.rglob("*"), reverse=True):
            sync(path)
        temporary.rename(published)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(base_path)
    return published

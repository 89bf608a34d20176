"""A base path: the folder of a model, in which each version is a folder named by its number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

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


def stamp(version: Path) -> object:
    """A value that changes when somebody replaces or mends the files of a version."""
    try:
        return [(file.name, file.stat().st_mtime_ns) for file in sorted([version, *version.iterdir()])]
    except OSError:
        return None

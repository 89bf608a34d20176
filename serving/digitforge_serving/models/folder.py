"""Check a version's folder before TensorFlow reads it, and detect changes in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from digitforge_client.errors import DataError


def check(version: Path, *, root: Path | None = None) -> None:
    """Check that TensorFlow can read a version's folder without waiting, and may read it.

    TensorFlow waits for ever for a FIFO, and reads a device without end.

    Args:
        version: the folder.
        root: reject files outside of this folder, symbolic links resolved; None: accept any.

    Raises:
        DataError: a file is neither regular nor a folder, or is outside of *root*.
        OSError: a folder cannot be read.
    """
    waiting, seen = [version], set()
    while waiting:
        path = waiting.pop()
        real = Path(os.path.realpath(path))  # unlike Path.resolve, accepts loops of links
        if root is not None and not is_below(real, root):
            raise DataError(f"{path} is outside of {root}; copy the version with its files to that folder")
        try:
            mode = real.stat().st_mode
        except OSError:  # a broken link: TensorFlow reports it if it needs the file
            continue
        if stat.S_ISDIR(mode):
            if real not in seen:  # links can form a loop
                seen.add(real)
                waiting.extend(path.iterdir())
        elif not stat.S_ISREG(mode):
            raise DataError(f"{path} is a FIFO, a socket or a device; expected a regular file")


def is_below(path: Path, root: Path) -> bool:
    """Whether a path is *root* or below it, symbolic links resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def stamp(version: Path) -> object:
    """A value that changes when the files in a version's folder change; None if the folder cannot be read."""
    try:
        return [(file.name, file.stat().st_mtime_ns) for file in sorted([version, *version.iterdir()])]
    except OSError:
        return None

"""A base path: the folder of a model, in which each version is a folder named by its number."""

from __future__ import annotations

from pathlib import Path


def versions(base_path: Path) -> list[int]:
    """Numbers of the versions in a folder, in any order; whatever else lies there is passed over.

    Raises:
        OSError: the folder cannot be read.
    """
    return [int(path.name) for path in base_path.iterdir() if is_version(path)]


def is_version(path: Path) -> bool:
    """Whether a path is a version: a folder whose name is its number as one writes it, so neither 01 nor .1.tmp."""
    return path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name and path.is_dir()


def stamp(version: Path) -> object:
    """A value that changes when somebody replaces or mends the files of a version."""
    try:
        return [(file.name, file.stat().st_mtime_ns) for file in sorted([version, *version.iterdir()])]
    except OSError:
        return None

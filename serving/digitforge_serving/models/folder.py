"""Detect changes in a version's folder."""

from __future__ import annotations

from pathlib import Path


def stamp(version: Path) -> object:
    """A value that changes when the files in a version's folder change; None if the folder cannot be read."""
    try:
        return [(file.name, file.stat().st_mtime_ns) for file in sorted([version, *version.iterdir()])]
    except OSError:
        return None

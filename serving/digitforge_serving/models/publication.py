"""Versions in a model folder come and go at once or not at all; a server that watches the folder sees nothing else.

A folder whose name is no number is invisible to a server. So a version that goes is renamed first and deleted
afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from digitforge_client.common.versions import publish, sync
from digitforge_client.common.versions import versions as folders
from digitforge_client.errors import DataError, InvalidInputError


@dataclass(frozen=True, kw_only=True)
class VersionInfo:
    """A version in a model folder."""

    version: int
    path: Path
    bytes: int
    complete: bool  # has a saved_model.pb, without which no server loads it


def versions(base_path: Path) -> list[VersionInfo]:
    """The versions in a model folder, highest first.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return [_info(number, paths[-1]) for number, paths in sorted(folders(base_path).items(), reverse=True)]
    except OSError as error:
        raise DataError(f"the model folder {base_path} cannot be read: {error.strerror}") from error


def _info(number: int, path: Path) -> VersionInfo:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return VersionInfo(version=number, path=path, bytes=size, complete=(path / "saved_model.pb").is_file())


def promote(source: Path, base_path: Path) -> VersionInfo:
    """Publish a copy of a version as the highest of a model folder.

    Args:
        source: folder of a version, anywhere; that of an older one of the same model too.
        base_path: the model folder; made if need be.

    Raises:
        InvalidInputError: the source is no SavedModel.
        DataError: it cannot be copied; nothing is left behind.
    """
    if not (source / "saved_model.pb").is_file():
        raise InvalidInputError(f"{source} has no saved_model.pb; expected the folder of one version of a model")
    try:
        published = publish(base_path, lambda folder: shutil.copytree(source, folder))
    except OSError as error:
        raise DataError(f"{source} cannot be published in {base_path}: {error}") from error
    return _info(int(published.name), published)


def remove(base_path: Path, number: int) -> Path:
    """Delete a version.

    Returns:
        The folder that was deleted.

    Raises:
        InvalidInputError: the model folder has no such version, two folders of that number, or no other version.
        DataError: it cannot be deleted.
    """
    present = {info.version: info for info in versions(base_path)}
    if number not in present:
        raise InvalidInputError(f"{base_path} has no version {number}; it has {_listed(present)}")
    if len(present) == 1:
        raise InvalidInputError(f"version {number} is the only one in {base_path}: without it nothing would be served")
    _check_single(base_path, number)
    path = present[number].path
    going = base_path / f".{number}.removed"
    try:
        shutil.rmtree(going, ignore_errors=True)
        path.rename(going)
        sync(base_path)
        shutil.rmtree(going)
    except OSError as error:
        raise DataError(f"version {number} of {base_path} cannot be removed: {error}") from error
    return path


def rollback(base_path: Path) -> VersionInfo:
    """Withdraw the highest version, so that the one before is served again; its files stay, as ``.N.withdrawn``.

    Returns:
        The version that is now the highest.

    Raises:
        InvalidInputError: the folder has fewer than two versions, or two folders with the number of the highest.
        DataError: the folder cannot be changed.
    """
    present = versions(base_path)
    if len(present) < 2:
        raise InvalidInputError(
            f"{base_path} has {_listed([info.version for info in present])}; to roll back, it must have two versions"
        )
    highest, before = present[0], present[1]
    if not before.complete:
        raise InvalidInputError(
            f"{before.path} has no saved_model.pb: no server could load it in place of {highest.path}"
        )
    _check_single(base_path, highest.version)
    withdrawn = base_path / f".{highest.version}.withdrawn"
    try:
        shutil.rmtree(withdrawn, ignore_errors=True)
        highest.path.rename(withdrawn)
        sync(base_path)
    except OSError as error:
        raise DataError(f"version {highest.version} of {base_path} cannot be withdrawn: {error}") from error
    return before


def _check_single(base_path: Path, number: int) -> None:
    """See that nothing else becomes a version once its folder is gone.

    Raises:
        InvalidInputError: another folder is named by the same number.
    """
    paths = folders(base_path)[number]
    if len(paths) > 1:
        raise InvalidInputError(
            f"version {number} of {base_path} has {len(paths)} folders, {', '.join(path.name for path in paths)}, of "
            "which a server takes the last: delete the others, or rename them, first"
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"

"""List, publish, withdraw and remove the versions in a model folder.

Every change is atomic, so a server that watches the folder never loads part of a version. Servers ignore folders whose
name is not a number, so a version is renamed before it is deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from digitforge_client.common.files import sync
from digitforge_client.common.versions import publish
from digitforge_client.common.versions import versions as folders
from digitforge_client.errors import DataError, InvalidInputError


@dataclass(frozen=True, kw_only=True)
class VersionInfo:
    """A version in a model folder."""

    version: int  #: number of the version
    path: Path  #: its folder
    bytes: int  #: size of its files
    complete: bool  #: whether it has a ``saved_model.pb``; servers cannot load it otherwise


def versions(base_path: Path) -> list[VersionInfo]:
    """The versions in a model folder, highest first.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return [_info(number, paths[-1]) for number, paths in sorted(folders(base_path).items(), reverse=True)]
    except OSError as error:
        raise DataError(
            f"the model folder {base_path} cannot be read: {error.strerror}; expected a folder of versions: 1, 2, …"
        ) from error


def _info(number: int, path: Path) -> VersionInfo:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return VersionInfo(version=number, path=path, bytes=size, complete=(path / "saved_model.pb").is_file())


def promote(source: Path, base_path: Path) -> VersionInfo:
    """Publish a copy of a version as the highest version in a model folder.

    Args:
        source: folder of a version. It may be an older version of the same model.
        base_path: the model folder; created if it does not exist.

    Returns:
        The new version.

    Raises:
        InvalidInputError: the source has no ``saved_model.pb``.
        DataError: it cannot be copied. Partial copies are deleted.
    """
    if not (source / "saved_model.pb").is_file():
        raise InvalidInputError(f"{source} has no saved_model.pb; expected the folder of one version of a model")
    published = publish(base_path, lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True))
    return _info(int(published.name), published)


def remove(base_path: Path, number: int) -> Path:
    """Delete a version.

    Returns:
        The deleted folder.

    Raises:
        InvalidInputError: the version does not exist, it is the only one, or two folders have its number.
        DataError: it cannot be deleted.
    """
    present = {info.version: info for info in versions(base_path)}
    if number not in present:
        raise InvalidInputError(f"{base_path} has no version {number}; it has {_listed(present)}")
    if len(present) == 1:
        raise InvalidInputError(
            f"version {number} is the only one in {base_path}, and servers need one; publish another version first"
        )
    _check_single(base_path, number)
    path = present[number].path
    renamed = base_path / f".{number}.removed"
    try:
        shutil.rmtree(renamed, ignore_errors=True)
        path.rename(renamed)
        sync(base_path)
        shutil.rmtree(renamed)
    except OSError as error:
        raise DataError(f"version {number} of {base_path} cannot be removed: {error}") from error
    return path


def rollback(base_path: Path) -> VersionInfo:
    """Withdraw the highest version, so that servers go back to the version before it.

    Keeps the files of the withdrawn version N as ``.N.withdrawn``.

    Returns:
        The version that is now the highest.

    Raises:
        InvalidInputError: there are fewer than two versions, the version before the highest is incomplete, or two
            folders have the number of the highest version.
        DataError: the folder cannot be changed.
    """
    present = versions(base_path)
    if len(present) < 2:
        raise InvalidInputError(
            f"{base_path} has fewer than two versions (found: {_listed([info.version for info in present])}); "
            "rollback needs an earlier version to go back to"
        )
    highest, before = present[0], present[1]
    if not before.complete:
        raise InvalidInputError(
            f"{before.path} has no saved_model.pb, so it cannot replace {highest.path}; repair or remove it first"
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
    """Check that only one folder has this number: a second one would take the place of the first.

    Raises:
        InvalidInputError: another folder has the same number.
    """
    paths = folders(base_path)[number]
    if len(paths) > 1:
        raise InvalidInputError(
            f"version {number} of {base_path} has {len(paths)} folders: {', '.join(path.name for path in paths)}. "
            "Servers use only the last; delete or rename the others first"
        )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"

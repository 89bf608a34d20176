"""The versions of a model: one folder per version in the model's base path, named by its number.

TensorFlow Serving watches the base path and ignores names that are not numbers. So `publish` writes a version under
another name and renames it when it is complete.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from digitforge_client.common.files import folder_to_rename, make_folder, sync
from digitforge_client.errors import DataError

_NUMBER: Final = re.compile(r"\s*([+-]?\d+)\s*", re.ASCII)
_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**63 - 1


def versions(base_path: Path) -> dict[int, list[Path]]:
    """Find the version folders in a base path. Other names are ignored.

    Names are parsed as in TensorFlow Serving: 123, 00000123, +123 and " 123" all mean version 123, and -2 means version
    -2. Names such as .123.tmp and numbers beyond 64 bits are ignored. Files are ignored too. TensorFlow Serving would
    try to load a file named 3, and fail.

    Returns:
        number => its folders, sorted by name. TensorFlow Serving uses the last one: 5, if there are 005 and 5.

    Raises:
        OSError: *base_path* cannot be read.
    """
    found: dict[int, list[Path]] = {}
    for path in sorted(base_path.iterdir()):
        name = _NUMBER.fullmatch(path.name)
        if name is not None and _LOWEST <= int(name[1]) <= _HIGHEST and path.is_dir():
            found.setdefault(int(name[1]), []).append(path)
    return found


def publish(base_path: Path, write: Callable[[Path], object]) -> Path:
    """Add the next version to a base path. Several processes may do so at the same time.

    Args:
        base_path: created if it does not exist.
        write: called with the path of an empty folder to fill.

    Returns:
        The folder of the new version. It survives a power loss.

    Raises:
        DataError: the base path cannot be read or written, or has the highest version that TensorFlow Serving can
            serve. After an error the incomplete folder is removed.
    """
    make_folder(base_path)
    with folder_to_rename(base_path, "version") as temporary:
        _next(base_path)  # raises an error before the work
        write(temporary)
        for path in (*sorted(temporary.rglob("*"), reverse=True), temporary):
            sync(path)
        while not _renamed(temporary, published := base_path / str(_next(base_path))):
            pass
        sync(base_path)
    return published


def _next(base_path: Path) -> int:
    number = 1 + max([0, *versions(base_path)])
    if number > _HIGHEST:
        raise DataError(
            f"{base_path} has version {_HIGHEST}, the highest possible number, so there is no next version; "
            "rename its folder to a lower number, or use another folder"
        )
    return number


def _renamed(temporary: Path, published: Path) -> bool:
    """Rename a folder that has content. False if another process has just published this number."""
    try:
        temporary.rename(published)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
            return False
        raise
    return True


def newest_version(folder: Path) -> Path:
    """Find the SavedModel: *folder* itself, or its highest-numbered subfolder that is a SavedModel.

    Raises:
        DataError: there is no SavedModel.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    found = versions(folder) if folder.is_dir() else {}
    whole = [number for number, paths in found.items() if (paths[-1] / "saved_model.pb").is_file()]
    if not whole:
        raise DataError(
            f"{folder}: no SavedModel found; expected the file saved_model.pb, or folders 1, 2 … that contain it"
        )
    return found[max(whole)][-1]

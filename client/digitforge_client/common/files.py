"""Writes files and folders atomically: they appear complete or not at all."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from digitforge_client.errors import DataError, DigitforgeError

#: A longer chain of links counts as a loop, as on Linux.
_MAX_LINKS: Final = 40


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name, and rename it to *path* at the end. After an error, remove it.

    If *path* is a link, its target is replaced. An existing file keeps its owner, permissions and extended attributes.
    Other hard links to it keep the old content. Devices, named pipes and open files (``/dev/stdout``, ``/dev/fd/3``)
    are written directly, without seeking.

    Raises:
        DataError: the file cannot be created (raised at once), or writing fails later, for example on a full disk.
    """
    target = _regular_target(path)
    if target is None:
        with _open_directly(path) as file:
            yield file
        return
    temporary = _temporary(target)
    try:
        file = temporary.open("xb")
    except OSError as error:
        raise _cannot_write(path, error) from error
    with _removed_after_error(path, temporary):
        with file:
            _copy_attributes(target, temporary)
            yield file
            sync(file)
        temporary.replace(target)


def sync(target: Path | IO[bytes] | int) -> None:
    """Make a file, or the names in a folder, survive a power loss.

    Args:
        target: a path, an open file, or the descriptor of an open file.

    Raises:
        OSError: the target cannot be opened or written.
    """
    if isinstance(target, Path):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    if not isinstance(target, int):
        target.flush()
    os.fsync(target)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name, and rename it to *path* at the end. After an error, remove it.

    Raises:
        DataError: *path* exists or cannot be created (raised at once), or writing fails later, for example on a full
            disk.
    """
    if os.path.lexists(path):  # true for broken links too
        raise DataError(f"cannot write the folder {path}: it exists already; name a new folder, or remove this one")
    temporary = _temporary(path)
    try:
        temporary.mkdir()
    except OSError as error:
        raise _cannot_write(path, error) from error
    with _removed_after_error(path, temporary):
        yield temporary
        temporary.rename(path)


def open_descriptor(path: Path) -> int | None:
    """The open file descriptor that *path* names, such as 1 for ``/dev/stdout``. None for other paths."""
    descriptors = os.path.realpath("/dev/fd")
    for _ in range(_MAX_LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) == descriptors:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _regular_target(path: Path) -> Path | None:
    """Follow links to the regular file to write. None if *path* must be written directly.

    Raises:
        DataError: *path* is a folder, or its links form a loop.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    except OSError as error:
        raise _cannot_write(path, error) from error
    if stat.S_ISDIR(mode):
        raise DataError(f"cannot write {path}: it is a folder; name a file")
    direct = not stat.S_ISREG(mode) or open_descriptor(path) is not None
    return None if direct else Path(os.path.realpath(path))


@contextmanager
def _open_directly(path: Path) -> Iterator[BinaryIO]:
    descriptor = open_descriptor(path)
    try:
        file = path.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb")
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with file:
            yield cast(BinaryIO, _WithoutSeek(file))
    except OSError as error:
        if isinstance(error, DigitforgeError):
            raise
        raise DataError(f"writing {path} failed: {error.strerror or error}") from error


class _WithoutSeek(io.BufferedIOBase):
    """A file without a position. Devices have no position, but some report 0."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)


def _copy_attributes(old: Path, new: Path) -> None:
    """Copy owner, permissions and extended attributes from *old* to *new*, if *old* exists."""
    with suppress(FileNotFoundError):
        shutil.copystat(old, new)
        with suppress(OSError, AttributeError):  # only root may change owners, and Windows has no chown
            os.chown(new, old.stat().st_uid, old.stat().st_gid)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot write {path}: {error.strerror}; choose an existing folder that you may write to")


@contextmanager
def _removed_after_error(path: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, DigitforgeError):
            raise DataError(
                f"writing {path} failed: {error.strerror or error}; the incomplete output was removed"
            ) from error
        raise

"""Writes files and folders atomically: they appear complete or not at all.

A file or folder is written under the temporary name ``.NAME.RANDOM.tmp``. A process that is killed leaves it. The next
writer of the same NAME removes it.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from digitforge_client.common import streams
from digitforge_client.errors import DataError, DigitforgeError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: A longer chain of links counts as a loop, as on Linux.
_MAX_LINKS: Final = 40
#: Length of NAME in a temporary name. A file system allows 255 bytes, and a character may have 4.
_NAME_LENGTH: Final = 50


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name, and rename it to *path* at the end. After an error, remove it.

    If *path* is a link, its target is replaced. An existing file keeps its owner, permissions and extended attributes.
    Other hard links to it keep the old content. Devices, named pipes and open files (``/dev/stdout``, ``/dev/fd/3``)
    are written directly, without seeking. A file that is mounted alone, as in a container, cannot be replaced: it gets
    the content when the temporary file is complete.

    Raises:
        DataError: the file cannot be created (raised at once), or writing fails later, for example on a full disk.
    """
    target = _regular_target(path)
    if target is None:
        with _written_directly(path, open_descriptor(path)) as file:
            yield file
        return
    with _temporary(path, target, folder=False) as temporary:
        with temporary.open("wb") as file:
            _copy_attributes(target, temporary)
            yield file
            sync(file)
        _move(temporary, target)


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Write bytes to standard output, without seeking.

    Raises:
        DataError: standard output is closed, or writing fails, for example on a full disk.
    """
    with _written_directly(Path("standard output"), 1) as file:
        yield file


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
    with _temporary(path, path, folder=True) as temporary:
        yield temporary
        temporary.rename(path)


@contextmanager
def folder_to_rename(parent: Path, name: str) -> Iterator[Path]:
    """Create an empty folder in *parent* under a temporary name made from *name*. The block fills and renames it.

    Use it instead of `new_folder` if the final name is known only at the end. After an error, the folder is removed.

    Raises:
        DataError: the folder cannot be created (raised at once), or the block raised an OSError.
    """
    with _temporary(parent, parent / name, folder=True) as temporary:
        yield temporary


def make_folder(path: Path) -> None:
    """Create a folder and its parents, unless they exist.

    Raises:
        DataError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot create the folder {path}: {error.strerror}; choose another folder") from error


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
def _written_directly(path: Path, descriptor: int | None) -> Iterator[BinaryIO]:
    if descriptor in streams.closed:
        raise DataError(f"cannot write {path}: it is closed; name another file")
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
        if descriptor == 1 and isinstance(error, BrokenPipeError):  # the command ends without a message
            raise
        raise DataError(f"writing {path} failed: {error.strerror or error}") from error


class _WithoutSeek(io.BufferedIOBase):
    """A file without a position. Devices have no position, but some report 0."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._file.isatty()

    def write(self, data: Any) -> int:
        return self._file.write(data)


def _copy_attributes(old: Path, new: Path) -> None:
    """Copy owner, permissions and extended attributes from *old* to *new*, if *old* exists."""
    with suppress(FileNotFoundError):
        shutil.copystat(old, new)
        with suppress(OSError, AttributeError):  # only root may change owners, and Windows has no chown
            os.chown(new, old.stat().st_uid, old.stat().st_gid)


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot write {path}: {error.strerror}; choose an existing folder that you may write to")


@contextmanager
def _temporary(path: Path, target: Path, *, folder: bool) -> Iterator[Path]:
    """Create an empty file or folder beside *target*, for the content of *path*. After an error, remove it.

    It is locked until the block ends. So other processes can tell it from one that a killed process left.
    """
    lock = None
    try:
        _remove_leftovers(target)
        temporary = _create(target, folder=folder)
        while fcntl is not None:
            lock = _lock(temporary, wait=True)
            if temporary.exists():
                break
            if lock is not None:
                os.close(lock)
            temporary = _create(target, folder=folder)  # another process removed it before it was locked
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and not isinstance(error, DigitforgeError):
            raise DataError(
                f"writing {path} failed: {error.strerror or error}; the incomplete output was removed"
            ) from error
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _create(target: Path, *, folder: bool) -> Path:
    temporary = target.with_name(f".{target.name[:_NAME_LENGTH]}.{secrets.token_hex(4)}.tmp")
    if folder:
        temporary.mkdir()
    else:
        temporary.touch(exist_ok=False)
    return temporary


def _remove_leftovers(target: Path) -> None:
    """Remove what killed writers of *target* left. Writers that still run hold a lock."""
    if fcntl is None:
        return
    name = re.compile(rf"\.{re.escape(target.name[:_NAME_LENGTH])}\.[0-9a-f]{{8}}\.tmp")
    with suppress(OSError):  # a folder may allow new files, but not to list them
        for path in [path for path in target.parent.iterdir() if name.fullmatch(path.name)]:
            lock = _lock(path, wait=False)
            if lock is not None:
                _remove(path)
                os.close(lock)


def _lock(path: Path, *, wait: bool) -> int | None:
    """Lock a file or folder until the returned descriptor is closed, at the latest when this process ends.

    None if another process holds the lock, or if the file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _move(temporary: Path, target: Path) -> None:
    try:
        temporary.replace(target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        with temporary.open("rb") as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
            sync(file)
        temporary.unlink()

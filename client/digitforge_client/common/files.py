"""Files and folders that appear whole or not at all."""

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

#: More links in a row are taken for a loop, as Linux does.
_MOST_LINKS: Final = 40


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name; it becomes *path* when all is written, and vanishes after an error.

    A link stays, and the file that it leads to is replaced. An existing file keeps its owner, its permissions and its
    extended attributes; other hard links to it keep the old content. What is no regular file (a device, a named pipe)
    or is open already (``/dev/stdout``, ``/dev/fd/3``) is written to directly, forward only.

    Raises:
        DataError: the file cannot be made there, at once, before anything is written; or writing failed later, as on a
            full disk.
    """
    place = _place(path)
    if place is None:
        with _writing_directly(path) as file:
            yield file
        return
    temporary = _temporary(place)
    try:
        file = temporary.open("xb")
    except OSError as error:
        raise _refused(path, error) from error
    with _removed_after_an_error(path, temporary):
        with file:
            _take_over(place, temporary)
            yield file
            sync(file)
        temporary.replace(place)


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
    """Fill a folder under a temporary name; it becomes *path* when it is full, and vanishes after an error.

    Raises:
        DataError: there is something of that name, or the folder cannot be made there, at once; or writing failed
            later, as on a full disk.
    """
    if os.path.lexists(path):  # also a link that leads nowhere
        raise DataError(f"cannot write the folder {path}: it exists; name a new one, or remove it")
    temporary = _temporary(path)
    try:
        temporary.mkdir()
    except OSError as error:
        raise _refused(path, error) from error
    with _removed_after_an_error(path, temporary):
        yield temporary
        temporary.rename(path)


def open_descriptor(path: Path) -> int | None:
    """The file descriptor of this process that *path* names, such as 1 for ``/dev/stdout``; None for other paths."""
    descriptors = os.path.realpath("/dev/fd")
    for _ in range(_MOST_LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) == descriptors:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _place(path: Path) -> Path | None:
    """Follow links to the regular file to replace or make. None: write to *path* directly.

    Raises:
        DataError: it is a folder, or a loop of links.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    except OSError as error:
        raise _refused(path, error) from error
    if stat.S_ISDIR(mode):
        raise DataError(f"cannot write {path}: it is a folder; name a file")
    direct = not stat.S_ISREG(mode) or open_descriptor(path) is not None
    return None if direct else Path(os.path.realpath(path))


@contextmanager
def _writing_directly(path: Path) -> Iterator[BinaryIO]:
    descriptor = open_descriptor(path)
    try:
        file = path.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb")
    except OSError as error:
        raise _refused(path, error) from error
    try:
        with file:
            yield cast(BinaryIO, _Forward(file))
    except OSError as error:
        if isinstance(error, DigitforgeError):
            raise
        raise DataError(f"writing {path} failed: {error.strerror or error}") from error


class _Forward(io.BufferedIOBase):
    """A file without a position: devices have none, although some say 0 whenever they are asked."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)


def _take_over(old: Path, new: Path) -> None:
    """Give a file the owner, permissions and extended attributes of the one that it will replace, if there is one."""
    with suppress(FileNotFoundError):
        shutil.copystat(old, new)
        with suppress(OSError, AttributeError):  # only root gives files away, and Windows knows no owners
            os.chown(new, old.stat().st_uid, old.stat().st_gid)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _refused(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {path}: {error.strerror}; name a place in a folder that exists and may be written to"
    )


@contextmanager
def _removed_after_an_error(path: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, DigitforgeError):
            raise DataError(f"writing {path} failed: {error.strerror or error}; nothing was kept") from error
        raise

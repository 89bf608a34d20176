"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from digitforge_client.errors import DataError, DigitforgeError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name; it becomes *path* when all is written, and vanishes after an error.

    Raises:
        DataError: the file cannot be made there, at once, before anything is written; or writing failed later, as on a
            full disk.
    """
    if path.is_dir():
        raise DataError(f"cannot write {path}: it is a folder; name a file")
    temporary = _temporary(path)
    try:
        file = temporary.open("xb")
    except OSError as error:
        raise _refused(path, error) from error
    with _removed_after_an_error(path, temporary):
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name; it becomes *path* when it is full, and vanishes after an error.

    Raises:
        DataError: there is something of that name, or the folder cannot be made there, at once; or writing failed
            later, as on a full disk.
    """
    if path.exists():
        raise DataError(f"cannot write the folder {path}: it exists; name a new one, or remove it")
    temporary = _temporary(path)
    try:
        temporary.mkdir()
    except OSError as error:
        raise _refused(path, error) from error
    with _removed_after_an_error(path, temporary):
        yield temporary
        temporary.rename(path)


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

"""Reads NumPy archives from untrusted sources. Every fault of an archive becomes a `DataError`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.npyio import NpzFile

from digitforge_client.errors import DataError, DigitforgeError

#: Errors that NumPy and zipfile raise for damaged files. RuntimeError: the file claims encryption or an unknown method.
DAMAGED: Final = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    EOFError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)

_ADVICE: Final = "expected an .npz archive of plain arrays, as numpy.savez writes it"


@contextmanager
def open_archive(path: Path, *, advice: str = _ADVICE) -> Iterator[NpzFile]:
    """Open an ``.npz`` file; each array is read on access.

    Args:
        path: the file.
        advice: end of the error message: what to do about an invalid file.

    Raises:
        DataError: the file cannot be read, is not an archive of plain arrays, or lacks a requested array. Errors in the
            body of the ``with`` block count too.
    """
    try:
        with path.open("rb") as file:
            # NumPy takes any other file for a pickle and advises to load it
            if not file.read(6).startswith((b"PK", b"\x93NUMPY")):
                raise ValueError("it is not an .npz archive")
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, NpzFile):
            raise ValueError("it is a single array, not an .npz archive")
        with arrays:
            yield arrays
    except DigitforgeError:
        raise
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        raise DataError(f"cannot read {path}: {reason}; {advice}") from error

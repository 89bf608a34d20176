"""NumPy archives from anywhere: whatever is wrong with one, found when it is opened or later, is one error."""

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

#: What damaged bytes make NumPy and zipfile raise; RuntimeError for flags that say "encrypted" or an unknown method.
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

_ADVICE: Final = "give an .npz archive of plain arrays, as numpy.savez writes it"


@contextmanager
def open_archive(path: Path, *, advice: str = _ADVICE) -> Iterator[NpzFile]:
    """The arrays of an ``.npz`` file, each read when it is asked for.

    Args:
        path: the file.
        advice: what to do about a file that is no such archive, or lacks an array.

    Raises:
        DataError: it cannot be read, is no archive of plain arrays, or lacks what was asked for.
    """
    try:
        with path.open("rb") as file:
            # NumPy takes anything else for a pickle, and advises to trust it
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

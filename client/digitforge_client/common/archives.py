"""Reads NumPy archives and gzip files from untrusted sources.

Every fault becomes a `DataError`. A small file cannot fill the memory: sizes are checked before the content is read.
"""

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

#: Bytes that a file may have after decompression, however small it is. This is 1.3 million MNIST images.
LARGEST: Final = 2**30
#: A larger file may have this many times its compressed size. Images of digits compress about five times, and empty
#: images a thousand times.
LARGEST_RATIO: Final = 20
#: Number of members that a gzip file may have. Programs that compress in blocks make one for each 64 KiB.
_MOST_MEMBERS: Final = 100_000
_PART: Final = 2**14

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
            start = file.read(6)
        if start == b"\x93NUMPY":
            raise ValueError("it is a single array, not an .npz archive")
        if not start.startswith(b"PK"):  # NumPy takes such a file for a pickle and advises to load it
            raise ValueError("it is not an .npz archive")
        with np.load(path, allow_pickle=False) as arrays:
            _check_sizes(arrays.zip, path.stat().st_size)
            yield arrays
    except DigitforgeError:
        raise
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        raise DataError(f"cannot read {path}: {reason}; {advice}") from error


def _check_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Check the sizes in an archive's list of members. zipfile never reads more than these.

    Raises:
        ValueError: the content is too large, or compressed with a method that NumPy does not use.
    """
    members = archive.infolist()
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename} has the unknown compression method {member.compress_type}")
    unpacked = sum(member.file_size for member in members)
    if unpacked > limit(size):
        raise ValueError(
            f"its arrays have {unpacked / 2**20:.0f} MiB, {unpacked / size:.0f} times the size of the file; at most "
            f"{limit(size) / 2**20:.0f} MiB are read"
        )


def limit(size: int) -> int:
    """Number of bytes that a compressed file of *size* bytes may have after decompression."""
    return max(LARGEST, LARGEST_RATIO * size)


def gunzip(content: bytes | bytearray, most: int) -> bytes:
    """Decompress a gzip file, with one or more members.

    Args:
        content: the file.
        most: number of bytes to decompress at most.

    Returns:
        The decompressed content. If it has more than *most* bytes, its first *most* + 1 bytes.

    Raises:
        DataError: the file is damaged, truncated, or has too many members.
    """
    unpacked, size, start, members = [], 0, 0, 0
    while start < len(content) and size <= most:
        members += 1
        if members > _MOST_MEMBERS:
            raise DataError(f"the gzip file has more than {_MOST_MEMBERS} members; compress the content again as one")
        inflator = zlib.decompressobj(wbits=31)  # 31: gzip with its header and checksum
        while not inflator.eof and size <= most:
            # Small parts, because zlib copies the rest of a part at the end of a member.
            part = inflator.unconsumed_tail or content[start : (start := start + _PART)]
            if not part:
                raise DataError("the gzip file is truncated")
            try:
                unpacked.append(inflator.decompress(part, most + 1 - size))
            except zlib.error as error:
                raise DataError(f"the gzip file is damaged ({error})") from error
            size += len(unpacked[-1])
        start = min(start, len(content)) - len(inflator.unused_data)
        while start < len(content) and content[start] == 0:  # padding
            part = content[start : start + _PART]
            start += len(part) - len(part.lstrip(b"\0"))
    return b"".join(unpacked)

"""Standard streams that may be closed, full, or without UTF-8.

`prepare` changes the streams of this process. Only the command calls it.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import BinaryIO, Final

from digitforge_client.errors import DataError

#: Descriptors of the standard streams that were closed when the command started. `prepare` fills this set.
closed: Final[set[int]] = set()

_NAMES: Final = ("stdin", "stdout", "stderr")
_ENCODING_ERRORS: Final = "digitforge.simpler"
#: Simpler forms of characters. Unicode itself has simpler forms of others, such as ... for the ellipsis.
_SIMPLER: Final = str.maketrans({"−": "-", "–": "-", "×": "x", "·": ".", "≥": ">=", "≤": "<=", "±": "+-", "÷": "/"})


def prepare() -> None:
    """Make the standard streams of this process usable.

    A closed stream becomes the null device, so that no file that is opened later gets its descriptor. Standard output
    raises `DataError` if it cannot be written, for example on a full disk. Standard error ignores such an error,
    because messages are less important than the work. Both write a simpler text for characters that their encoding
    lacks.
    """
    codecs.register_error(_ENCODING_ERRORS, _simpler)
    closed.update(descriptor for descriptor, name in enumerate(_NAMES) if getattr(sys, name) is None)
    for descriptor in sorted(closed):
        _open_null_device(descriptor)
    for descriptor in sorted(closed):
        setattr(sys, _NAMES[descriptor], open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115, PTH123
    for descriptor, name, checked in ((1, "stdout", _StandardOutput), (2, "stderr", _StandardError)):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper and _number(stream) == descriptor:  # not a notebook's stream
            setattr(sys, name, _replaced(stream, checked))


@contextlib.contextmanager
def standard_error_into(file: BinaryIO) -> Iterator[None]:
    """During the ``with`` block, write to *file* what this process and its libraries write to standard error.

    If standard error is closed, *file* stays empty.
    """
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _open_null_device(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this descriptor
        os.set_inheritable(descriptor, True)


def _number(stream: io.TextIOWrapper) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return stream.fileno()
    return None


def _replaced(stream: io.TextIOWrapper, checked: type[io.TextIOWrapper]) -> io.TextIOWrapper:
    stream.flush()
    return checked(
        stream.buffer,
        encoding=stream.encoding,
        errors=_ENCODING_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _StandardOutput(io.TextIOWrapper):
    def write(self, text: str) -> int:
        with _data_errors():
            return super().write(text)

    def flush(self) -> None:
        with _data_errors():
            super().flush()


@contextlib.contextmanager
def _data_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader ended, for example `| head`
        raise
    except OSError as error:
        raise DataError(f"cannot write to standard output: {error.strerror}; the result is incomplete") from error


class _StandardError(io.TextIOWrapper):
    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _simpler(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace a character that the encoding lacks by a simpler text. Without a simpler text, write its number.

    A byte of a file name that is not UTF-8 stays the same byte.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    simpler = unicodedata.normalize("NFKD", character.translate(_SIMPLER))
    plain = simpler.encode(error.encoding, "ignore") or character.encode("ascii", "backslashreplace")
    return plain.decode(error.encoding), error.start + 1

"""Optional dependencies: the error for a missing library names the ``pip install`` command for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from digitforge_client.errors import MissingExtraError


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Turn the import error of a missing library into an error that names *extra*.

    Use it with ``with``, or as a decorator.

    Args:
        extra: name of the extra, as in ``pip install 'digitforge[training]'``.
        what: subject of the error message: the code that needs the library.

    Raises:
        MissingExtraError: a library is not installed. A missing module of digitforge itself stays a
            ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if not library or library.startswith("digitforge"):
            raise
        raise MissingExtraError(
            f"{what} needs {library}, which is not installed; run: pip install 'digitforge[{extra}]'"
        ) from error

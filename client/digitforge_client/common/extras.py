"""Optional dependencies: a library that is missing is answered with the `pip install` that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from digitforge_client.errors import MissingExtraError


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Within a ``with`` block, or as a decorator: a library that is not installed becomes an error that names *extra*.

    Args:
        extra: of the distribution, as in ``pip install 'digitforge[training]'``.
        what: needs the library, for the message.

    Raises:
        MissingExtraError: a library is missing. A missing module of digitforge itself stays a ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if not library or library.startswith("digitforge"):
            raise
        raise MissingExtraError(
            f"{what} needs {library}, which is not installed: pip install 'digitforge[{extra}]'"
        ) from error

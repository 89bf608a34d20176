"""Optional dependencies: the error for a missing library names the ``pip install`` command for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util
from typing import Final

from digitforge_client.errors import MissingExtraError

#: A requirement of an extra in the metadata of a package: ``scipy>=1.15; extra == 'evaluation'``.
_OPTIONAL: Final = re.compile(r"""(?P<package>[\w.-]+).*;.*\bextra == ["'](?P<extra>[\w-]+)["']""")


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
        raise _missing(extra, what, library) from error


def check_extras(extras: str, what: str) -> None:
    """Check that all packages of some extras are installed. Imports nothing, so it is fast.

    Args:
        extras: names of the extras, with commas: ``evaluation,serving``.
        what: subject of the error message: the code that needs the packages.

    Raises:
        MissingExtraError: a package is not installed.
    """
    for requirement in metadata.requires("digitforge") or ():
        optional = _OPTIONAL.match(requirement)
        if optional and optional["extra"] in extras.split(",") and not _installed(optional["package"]):
            raise _missing(extras, what, optional["package"])


def _installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:  # variants have other names: tensorflow-cpu provides the module tensorflow
        return util.find_spec(package.replace("-", "_")) is not None
    return True


def _missing(extras: str, what: str, library: str) -> MissingExtraError:
    return MissingExtraError(f"{what} needs {library}, which is not installed; run: pip install 'digitforge[{extras}]'")

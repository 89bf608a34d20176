"""Optional dependencies: the error for a missing library names the ``pip install`` command for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from digitforge_client.errors import MissingExtraError

#: A requirement of an extra in the metadata of a package: ``scipy>=1.15; extra == 'evaluation'``.
_OPTIONAL: Final = re.compile(r"""(?P<package>[\w.-]+).*;.*\bextra == ["'](?P<extra>[\w-]+)["']""")


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Turn the import error of a missing library into an error that names *extra*.

    Use it with ``with``, or as a decorator.

    Args:
        extra: name of the extra, such as ``training``.
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
    return MissingExtraError(f"{what} needs {library}, which is not installed; run: {install_command(extras)}")


def install_command(extra: str) -> str:
    """The command that adds an extra to this installation, from where digitforge came from.

    pip records the source of an installation that is not from a package index, in ``direct_url.json``:
    https://packaging.python.org/en/latest/specifications/direct-url/

    Args:
        extra: name of the extra, such as ``training``; several with commas between them.
    """
    try:
        source = json.loads(metadata.distribution("digitforge").read_text("direct_url.json") or "{}")
        url = str(source["url"])
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return f"pip install 'digitforge[{extra}]'"
    if "dir_info" in source:
        folder = Path(url2pathname(urlsplit(url).path))
        if not (folder / "pyproject.toml").is_file():
            return f"pip install '.[{extra}]' in a clone of digitforge's repository"
        editable = "--editable " if source["dir_info"].get("editable") else ""
        return f"pip install {editable}'{folder}[{extra}]'"
    if "vcs_info" in source:
        url = f"{source['vcs_info']['vcs']}+{url}@{source['vcs_info']['commit_id']}"
    return f"pip install 'digitforge[{extra}] @ {url}'"

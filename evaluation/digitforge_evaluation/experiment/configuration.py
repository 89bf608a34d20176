"""An experiment's settings as a TOML file: the options of the command by name."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from digitforge_client.common.files import replacing
from digitforge_client.errors import DataError, InvalidInputError, did_you_mean


def read_config(path: Path, *, known: Collection[str]) -> dict[str, Any]:
    """The settings in the TOML file *path*.

    Args:
        path: the file.
        known: names of settings, with ``_`` between words; the file may have ``-`` instead.

    Returns:
        Values by name, numbers as text: what a command line would give, to be converted and checked like it.

    Raises:
        DataError: the file cannot be read, or is not TOML.
        InvalidInputError: it has a setting that does not exist.
    """
    try:
        values = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a TOML file") from error
    except ValueError as error:  # of TOML or of UTF-8
        raise DataError(f"{path}: not TOML ({error}); expected lines like `n-per-class = [10, 100]`") from error
    settings: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            options = sorted(each.replace("_", "-") for each in known)
            hint = did_you_mean(name.replace("_", "-"), options) or f"; expected some of {', '.join(options)}"
            raise InvalidInputError(f"{path}: there is no setting {key!r}{hint}")
        if name in settings:
            raise InvalidInputError(f"{path}: {key!r} stands there twice, with - and with _; keep one")
        settings[name] = value if isinstance(value, list | dict) else str(value)
    return settings


def write_config(path: Path, settings: Mapping[str, Any]) -> None:
    """Write *settings* as TOML that `read_config` reads; those that are None or empty are left out.

    Raises:
        DataError: the file cannot be written.
    """
    kept = {name.replace("_", "-"): _plain(value) for name, value in settings.items() if not _unset(value)}
    with replacing(path) as file:
        tomli_w.dump(kept, file)


def _unset(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, tuple | list | dict) and not value)


def _plain(value: Any) -> Any:
    return [str(each) if isinstance(each, Path) else each for each in value] if isinstance(value, tuple) else value

"""Read and write the settings of an experiment as a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from digitforge_client.common.files import replacing
from digitforge_client.errors import DataError, InvalidInputError, did_you_mean


def read_config(path: Path, *, known: Collection[str]) -> dict[str, Any]:
    """Read the settings in the TOML file *path*.

    Args:
        path: the file.
        known: allowed names of settings, with ``_`` between words. The file may use ``-`` instead.

    Returns:
        Values by name. Numbers are text, as on a command line; the command converts and checks them.

    Raises:
        DataError: the file cannot be read, or is not TOML.
        InvalidInputError: a setting is unknown, or appears twice.
    """
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # Windows editors add a byte-order mark
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); expected a TOML file") from error
    except (ValueError, RecursionError) as error:  # invalid TOML or UTF-8, or nested too deeply
        raise DataError(f"{path} is not TOML ({error}); expected lines like `n-per-class = [10, 100]`") from error
    settings: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            options = sorted(each.replace("_", "-") for each in known)
            hint = did_you_mean(name.replace("_", "-"), options) or f"; expected one of {', '.join(options)}"
            raise InvalidInputError(f"{path}: unknown setting {key!r}{hint}")
        if name in settings:
            raise InvalidInputError(f"{path}: {key!r} appears twice, once with - and once with _; remove one")
        settings[name] = value if isinstance(value, list | dict) else str(value)
    return settings


def write_config(path: Path, settings: Mapping[str, Any]) -> None:
    """Write *settings* as TOML for `read_config`. Leaves out settings that are None, False or empty.

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

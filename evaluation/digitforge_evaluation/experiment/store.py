"""Store the results of an experiment as JSON lines.

The first line holds the *identity* of the experiment: data, classifier, seeds, generators and so on. Each further line
is one finished cell. Each line is written with one system call and flushed to disk. A killed process leaves at most one
incomplete line, at the end, and the next process removes it. A writer holds a lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from digitforge_client.common.files import make_folder, sync
from digitforge_client.common.json_text import parse_json
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.experiment.arms import Arm

STORE_VERSION: Final = 2
RESULTS: Final = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class CellKey:
    """Identifies a cell."""

    n_per_class: int
    subset: int
    arm: Arm

    def __str__(self) -> str:
        return f"{self.arm} on subset {self.subset} of {self.n_per_class} images per class"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CellKey:
        """The key that `as_json` wrote as *values*.

        Raises:
            KeyError, ValueError: *values* are not those of a key.
        """
        return cls(n_per_class=values["n_per_class"], subset=values["subset"], arm=Arm.parse(values["arm"]))


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of one cell, over all its replicates."""

    key: CellKey
    accuracy: float  #: share of held-out images classified correctly, averaged over replicates
    confusion: tuple[tuple[int, ...], ...]  #: [true class][predicted class], summed over replicates
    seconds: float  #: wall-clock time of the cell
    generated: tuple[dict[str, Any], ...] = ()  #: per replicate: generator_id, seed and n of the generated images


def as_json(value: object) -> Any:
    """The JSON form of an arm (its full name) or of another dataclass (its fields), for ``json.dumps(default=…)``.

    Raises:
        TypeError: *value* is not a dataclass.
    """
    return str(value) if isinstance(value, Arm) else {each.name: getattr(value, each.name) for each in fields(value)}  # type: ignore[arg-type]


class Store:
    """The results of one experiment, open for writing. `open_store` makes one."""

    def __init__(self, path: Path, descriptor: int, cells: dict[CellKey, CellResult]) -> None:
        """Take an open file that `open_store` has checked and repaired."""
        self.path = path
        self._descriptor = descriptor
        self._cells = cells

    @property
    def cells(self) -> Mapping[CellKey, CellResult]:
        """The finished cells."""
        return self._cells

    def append(self, result: CellResult) -> None:
        """Store one finished cell on disk.

        Raises:
            InvalidInputError: the cell is stored already.
            DataError: the file cannot be written, as on a full disk. Earlier cells are safe.
        """
        if result.key in self._cells:
            raise InvalidInputError(f"the cell {result.key} is already in {self.path}; store each cell only once")
        try:
            _write_line(self._descriptor, {"kind": "cell", **vars(result)})
        except OSError as error:
            raise DataError(
                f"cannot write to {self.path} ({error}); free some disk space and run the same command again. "
                f"It keeps the {len(self._cells)} finished cells"
            ) from error
        self._cells[result.key] = result


@contextmanager
def open_store(path: Path, *, identity: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[Store]:
    """Open the results at *path* for writing. Creates the file, or continues it.

    Args:
        path: the file. Its folder is created if needed.
        identity: everything that a cell's result depends on, apart from the cell's key, as JSON values.
        about: other facts for the first line of a new file, such as versions and command. They are never compared.

    Yields:
        The store, locked against other writers until the block ends.

    Raises:
        DataError: another process is writing there, the file is damaged, or another version of digitforge wrote it.
        InvalidInputError: the file holds an experiment with a different identity.
    """
    from filelock import FileLock, Timeout

    make_folder(path.parent)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"another process is writing to {path}; wait for it, or choose another folder") from error
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        lock.release()
        raise _cannot_write(path, error) from error
    try:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(descriptor, whole)
        if whole == 0:
            _write_line(
                descriptor,
                {"kind": "store", "version": STORE_VERSION, "identity": dict(identity), "about": dict(about)},
            )
            sync(path.parent)
            cells: dict[CellKey, CellResult] = {}
        else:
            contents = _parse(content[:whole], path)
            check_identity(contents.identity, identity, path)
            cells = contents.cells
        yield Store(path, descriptor, cells)
    finally:
        os.close(descriptor)
        lock.release()


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot write {path}: {error.strerror}; choose another folder with --out")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of a results file."""

    identity: dict[str, Any]
    about: dict[str, Any]
    cells: dict[CellKey, CellResult]


def read_store(path: Path) -> Contents:
    """Read the results at *path*. This also works while another process writes there.

    Raises:
        DataError: the file is missing or damaged, or another version of digitforge wrote it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror}); expected the results of `digitforge experiment run`"
        ) from error
    return _parse(content[: content.rfind(b"\n") + 1], path)


def _parse(content: bytes, path: Path) -> Contents:
    lines = content.splitlines()
    if not lines:
        raise DataError(f"{path} is empty; expected the results of `digitforge experiment run`")
    head = _json_line(lines[0], path, 1)
    if head.get("kind") != "store":
        raise DataError(
            f'{path} is not a results file: line 1 lacks "kind": "store"; expected the results of '
            "`digitforge experiment run`"
        )
    if head.get("version") != STORE_VERSION:
        raise DataError(
            f"{path} has version {head.get('version')!r} of the results format; expected version {STORE_VERSION}. "
            "Read it with the digitforge that wrote it, or start again in another folder"
        )
    cells: dict[CellKey, CellResult] = {}
    for number, line in enumerate(lines[1:], start=2):
        values = _json_line(line, path, number)
        try:
            result = CellResult(
                key=CellKey.from_json(values["key"]),
                accuracy=float(values["accuracy"]),
                confusion=tuple(tuple(row) for row in values["confusion"]),
                seconds=float(values["seconds"]),
                generated=tuple(values["generated"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: line {number} is not a finished cell ({error!r}); remove that line") from error
        if result.key in cells:
            raise DataError(f"{path}: line {number} repeats the cell {result.key}; remove one of the two lines")
        cells[result.key] = result
    return Contents(identity=head["identity"], about=head["about"], cells=cells)


def _json_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = parse_json(line)
    except ValueError as error:
        raise DataError(f"{path}: line {number} is damaged ({error}); remove that line") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: line {number} is not a JSON object; remove that line")
    return value


def check_identity(stored: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """Check that results were made with the same settings.

    Args:
        stored: settings of the results at *path*, as JSON values.
        wanted: settings of this run.
        path: file of the results, for the message.

    Raises:
        InvalidInputError: a setting differs.
    """
    wanted = json.loads(json.dumps(wanted))  # turns tuples into lists, as in the file
    for name in sorted({*stored, *wanted}):
        if stored.get(name) != wanted.get(name):
            raise InvalidInputError(
                f"{path} holds results with other settings: its {name} is {stored.get(name)!r}, but yours is "
                f"{wanted.get(name)!r}. Use the same setting, or another place for the results"
            )


def _write_line(descriptor: int, value: Mapping[str, Any]) -> None:
    line = json.dumps(value, default=as_json, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    written = os.write(descriptor, line)
    if written != len(line):  # a full disk; the next `open_store` removes the incomplete line
        raise OSError(f"wrote only {written} of {len(line)} bytes")
    sync(descriptor)

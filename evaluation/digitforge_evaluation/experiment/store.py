"""Results of an experiment as JSON lines: one line per finished cell, never lost, never counted twice.

The first line says what the cells belong to (the *identity*: data, classifier, seeds, generators …); each further
line is one finished cell. A line is written with one system call and flushed to the disk, so that a process that
is killed leaves at most one torn line at the end, which the next one removes. Whoever writes holds a lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from digitforge_client.common.files import sync
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.experiment.arms import Arm

STORE_VERSION: Final = 2
RESULTS: Final = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class CellKey:
    """Which cell a result belongs to."""

    n_per_class: int
    subset: int
    arm: Arm

    def __str__(self) -> str:
        return f"{self.arm} on subset {self.subset} of {self.n_per_class} images per class"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CellKey:
        """The key that `as_json` turned into *values*.

        Raises:
            KeyError, ValueError: they are not those of a key.
        """
        return cls(n_per_class=values["n_per_class"], subset=values["subset"], arm=Arm.parse(values["arm"]))


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What one cell gave, averaged over its replicates."""

    key: CellKey
    accuracy: float  # share of held-out images classified correctly
    confusion: tuple[tuple[int, ...], ...]  # [true class][predicted class], summed over replicates
    seconds: float  # wall-clock, of the whole cell
    generated: tuple[dict[str, Any], ...] = ()  # per replicate: generator_id, seed and n of the digits


def as_json(value: object) -> Any:
    """For ``json.dumps(…, default=as_json)``: an arm as its full name, other dataclasses as their fields.

    Raises:
        TypeError: *value* is neither.
    """
    return str(value) if isinstance(value, Arm) else {each.name: getattr(value, each.name) for each in fields(value)}  # type: ignore[arg-type]


class Store:
    """The results of one experiment, open for writing. Make one with `open_store`."""

    def __init__(self, path: Path, descriptor: int, cells: dict[CellKey, CellResult]) -> None:
        """Take over an open file; `open_store` has checked and repaired it."""
        self.path = path
        self._descriptor = descriptor
        self._cells = cells

    @property
    def cells(self) -> Mapping[CellKey, CellResult]:
        """The finished cells."""
        return self._cells

    def append(self, result: CellResult) -> None:
        """Store one finished cell for good.

        Raises:
            InvalidInputError: the cell is already there.
            DataError: the disk is full or gone; what was stored before is safe.
        """
        if result.key in self._cells:
            raise InvalidInputError(f"{result.key} is already in {self.path}; a cell is stored once")
        try:
            _write_line(self._descriptor, {"kind": "cell", **vars(result)})
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be written ({error}); make room and run the same command again: "
                f"the {len(self._cells)} finished cells are kept"
            ) from error
        self._cells[result.key] = result


@contextmanager
def open_store(path: Path, *, identity: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[Store]:
    """Open the results at *path* for writing, new or to be continued.

    Args:
        path: the file; its folder is made.
        identity: everything that a cell's result depends on besides its key; JSON values.
        about: what else to note on the first line of a new file (versions, command); never compared.

    Yields:
        The store, locked against other writers until the block ends.

    Raises:
        DataError: another process writes there, the file is damaged, or another version of digitforge wrote it.
        InvalidInputError: the file belongs to an experiment with another identity.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"another process is writing {path}; wait for it, or choose another folder") from error
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
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
            _check_identity(contents.identity, identity, path)
            cells = contents.cells
        yield Store(path, descriptor, cells)
    finally:
        os.close(descriptor)
        lock.release()


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a results file says."""

    identity: dict[str, Any]
    about: dict[str, Any]
    cells: dict[CellKey, CellResult]


def read_store(path: Path) -> Contents:
    """Read the results at *path*, also while another process writes them.

    Raises:
        DataError: there is no such file, it is damaged, or another version of digitforge wrote it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected the results of `digitforge experiment run`"
        ) from error
    return _parse(content[: content.rfind(b"\n") + 1], path)


def _parse(content: bytes, path: Path) -> Contents:
    lines = content.splitlines()
    if not lines:
        raise DataError(f"{path}: empty; expected the results of `digitforge experiment run`")
    head = _json_line(lines[0], path, 1)
    if head.get("kind") != "store":
        raise DataError(f"{path}: not a results file: its first line is not a store's")
    if head.get("version") != STORE_VERSION:
        raise DataError(
            f"{path}: written in version {head.get('version')!r} of the results format, this digitforge has version "
            f"{STORE_VERSION}; read it with the digitforge that wrote it, or start again in another folder"
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
            raise DataError(f"{path}: line {number} repeats {result.key}; remove one of the two lines")
        cells[result.key] = result
    return Contents(identity=head["identity"], about=head["about"], cells=cells)


def _json_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}: line {number} is damaged ({error}); remove that line") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: line {number} is not an object; remove that line")
    return value


def _check_identity(stored: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    wanted = json.loads(json.dumps(wanted))  # tuples are lists in a file
    for name in sorted({*stored, *wanted}):
        if stored.get(name) != wanted.get(name):
            raise InvalidInputError(
                f"{path} holds an experiment whose {name} is {stored.get(name)!r}, this one's is "
                f"{wanted.get(name)!r}: their results cannot be mixed; use the same setting or another folder"
            )


def _write_line(descriptor: int, value: Mapping[str, Any]) -> None:
    line = json.dumps(value, default=as_json, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    written = os.write(descriptor, line)
    if written != len(line):  # a full disk: what was torn off is removed at the next opening
        raise OSError(f"only {written} of {len(line)} bytes could be written")
    sync(descriptor)

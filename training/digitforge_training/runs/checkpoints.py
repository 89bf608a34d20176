"""Checkpoints: the complete state of a training, one ``checkpoints/<images seen>.npz`` per checkpoint.

A checkpoint is written under a temporary name, flushed to the disk and renamed, so a kill at any moment leaves the
older checkpoints intact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from digitforge_client.common.archives import open_archive
from digitforge_client.common.files import make_folder, replacing
from digitforge_client.errors import DataError

if TYPE_CHECKING:
    from digitforge_training.gan.trainer import State

FOLDER = "checkpoints"
_BEST = "best.npz"
_PARENT = "parent.npz"
_SCORE_FIELDS = ("images_seen", "value", "n")
_DIGITS = 12  # zero-padded file names, so that they sort like numbers


def newest(run_dir: Path) -> Path | None:
    """The checkpoint with the most images, or None if there are no checkpoints."""
    return max((run_dir / FOLDER).glob("[0-9]*.npz"), default=None)


def images_of(path: Path) -> int:
    """Number of images that the training had seen at this checkpoint."""
    return int(path.stem)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """The averaged generator that the judge scored best."""

    state: State  #: The variables ``averaged/…`` of a checkpoint.
    images_seen: int  #: Images that the training had seen.
    value: float  #: The judge's score. Lower is better.
    n: int  #: Generated images that were scored.


def best(run_dir: Path) -> Best | None:
    """Read the best checkpoint. Returns None if no judge has kept one.

    Raises:
        DataError: the file is damaged.
    """
    path = run_dir / FOLDER / _BEST
    if not path.exists():
        return None
    state = load(path)
    try:
        images_seen, value, n = (state.pop(name).item() for name in _SCORE_FIELDS)
    except KeyError as error:
        raise DataError(
            f"{path} is damaged: the array {error} is missing; remove the file to export the newest checkpoint instead"
        ) from error
    return Best(state=state, images_seen=images_seen, value=value, n=n)


def save_best(run_dir: Path, state: State, *, images_seen: int, value: float, n: int) -> None:
    """Replace the best checkpoint.

    Raises:
        DataError: the folder cannot be written. The former best checkpoint stays intact.
    """
    score = dict(zip(_SCORE_FIELDS, map(np.asarray, (images_seen, value, n)), strict=True))
    write_npz(run_dir / FOLDER / _BEST, {**state, **score})


def save(run_dir: Path, images_seen: int, state: Mapping[str, npt.NDArray[np.generic]], *, keep: int) -> Path:
    """Write a checkpoint, then keep the newest *keep* and remove the others.

    Raises:
        DataError: the folder cannot be written. Older checkpoints stay intact.
    """
    path = run_dir / FOLDER / f"{images_seen:0{_DIGITS}d}.npz"
    write_npz(path, state)
    for old in sorted(path.parent.glob("[0-9]*.npz"))[:-keep]:
        old.unlink(missing_ok=True)
    return path


def save_parent_seen(run_dir: Path, seen: npt.NDArray[np.int64]) -> None:
    """Keep the hashes (m,) of the images that the parent of a run was trained on.

    Raises:
        DataError: the folder cannot be written.
    """
    write_npz(run_dir / FOLDER / _PARENT, {"seen": seen})


def parent_seen(run_dir: Path) -> npt.NDArray[np.int64]:
    """Read what `save_parent_seen` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = run_dir / FOLDER / _PARENT
    with open_archive(path, advice="repeat `digitforge adapt`, which writes it again") as arrays:
        return np.asarray(arrays["seen"], np.int64)


def remove_leftovers(run_dir: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote."""
    for folder in (run_dir, *run_dir.glob("[!.]*/")):
        for path in folder.glob(".*.tmp"):
            if path.is_file():
                path.unlink(missing_ok=True)


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write arrays to *path* atomically.

    Raises:
        DataError: the file cannot be written.
    """
    make_folder(path.parent)
    with replacing(path) as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type] # numpy has no type for names of arrays


def load(path: Path) -> State:
    """Read a checkpoint.

    Raises:
        DataError: the file is missing, damaged or not a checkpoint.
    """
    with open_archive(path, advice="remove it to use the previous checkpoint") as arrays:
        return {name: arrays[name] for name in arrays.files}

"""Checkpoints: the whole state of a training, in one file that is either there or not.

A run folder holds ``checkpoints/<images seen>.npz``. A file is written under another name, flushed to the disk and
renamed, so that a kill at any moment leaves the older checkpoints whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from digitforge_client.common.archives import open_archive
from digitforge_client.common.files import replacing
from digitforge_client.errors import DataError

if TYPE_CHECKING:
    from digitforge_training.gan.trainer import State

FOLDER = "checkpoints"
_BEST = "best.npz"
_VERDICT = ("images_seen", "value", "n")
_DIGITS = 12  # of the number of images in a file name, so that names sort like numbers


def newest(run_dir: Path) -> Path | None:
    """The checkpoint with the most images, or None."""
    return max((run_dir / FOLDER).glob("[0-9]*.npz"), default=None)


def images_of(path: Path) -> int:
    """Images seen by the training whose checkpoint this is."""
    return int(path.stem)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """The averaged generator that a judge liked best."""

    state: State  # the "averaged/…" part of a checkpoint
    images_seen: int
    value: float  # the judge's; lower is better
    n: int  # generated images that were judged


def best(run_dir: Path) -> Best | None:
    """What a judge has kept, or None.

    Raises:
        DataError: the file is damaged.
    """
    path = run_dir / FOLDER / _BEST
    if not path.exists():
        return None
    state = load(path)
    try:
        images_seen, value, n = (state.pop(name).item() for name in _VERDICT)
    except KeyError as error:
        raise DataError(f"{path} lacks {error}; remove it to export the newest checkpoint instead") from error
    return Best(state=state, images_seen=images_seen, value=value, n=n)


def save_best(run_dir: Path, state: State, *, images_seen: int, value: float, n: int) -> None:
    """Put this generator in the place of the best so far.

    Raises:
        DataError: the folder cannot be written; the best so far is untouched.
    """
    verdict = dict(zip(_VERDICT, map(np.asarray, (images_seen, value, n)), strict=True))
    write_npz(run_dir / FOLDER / _BEST, {**state, **verdict})


def save(run_dir: Path, images_seen: int, state: Mapping[str, npt.NDArray[np.generic]], *, keep: int) -> Path:
    """Write a checkpoint and remove all but the newest *keep*.

    Raises:
        DataError: the folder cannot be written; older checkpoints are untouched.
    """
    path = run_dir / FOLDER / f"{images_seen:0{_DIGITS}d}.npz"
    write_npz(path, state)
    killed = path.parent.glob(".*.tmp")  # what a kill in the middle of writing has left
    for old in (*sorted(path.parent.glob("[0-9]*.npz"))[:-keep], *killed):
        old.unlink(missing_ok=True)
    return path


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write arrays to *path* at once or not at all.

    Raises:
        DataError: it cannot be written.
    """
    make_folder(path.parent)
    with replacing(path) as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type] # numpy has no type for names of arrays


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        DataError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {path}: {error.strerror}; choose another place") from error


def load(path: Path) -> State:
    """Read a checkpoint.

    Raises:
        DataError: the file is missing, damaged or not a checkpoint.
    """
    with open_archive(path, advice="remove it to use the checkpoint before it") as arrays:
        return {name: arrays[name] for name in arrays.files}

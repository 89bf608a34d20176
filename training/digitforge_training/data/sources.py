"""Loads a data set by the name of its source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data.archive import load_archive
from digitforge_training.data.dataset import SPLITS, Dataset, DataSource
from digitforge_training.data.digits import load_digits
from digitforge_training.data.idx import found_sets, load_idx
from digitforge_training.data.mnist import load_mnist
from digitforge_training.data.pictures import load_pictures

#: Sources that are not a path.
NAMED: Final = ("mnist", "digits")
EXPECTED: Final = "expected mnist, digits, a folder with the four IDX files, a folder of CLASS/*.png, or an .npz file"


def load(
    source: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    data_dir: str | Path | None = None,
    transpose: bool = False,
) -> Dataset:
    """Load one split of a data set.

    ::

        data = digitforge.load_data("digits")
        data.images, data.labels  # (1437, 28, 28, 1) uint8 and (1437,) int64

    Args:
        source: one of

            * ``mnist``: from *data_dir* or DIGITFORGE_DATA_DIR, else from the cache, else downloaded. Always verified.
            * ``digits``: the 1 797 digits that scikit-learn ships, enlarged to 28 × 28. Needs no download.
            * a folder with the four IDX files, gzipped or not, with any prefix (Fashion-MNIST, KMNIST, EMNIST …). If
              the folder holds several data sets, add the prefix: ``emnist/emnist-letters``.
            * a folder of ``CLASS/*.png``, optionally below ``train`` and ``test``.
            * an ``.npz`` file with ``x`` and ``y`` (optionally ``x_test`` and ``y_test``), or with the arrays of
              Keras's ``mnist.npz``.

            Images must be uint8 squares of 16 to 64 pixels with 1 or 3 channels. Labels become 0 to K − 1, where the
            training split defines the K classes. A source without test images is split by `dataset.split_indices`.
        split: ``train`` or ``test``.
        data_dir: the folder with MNIST's files. Other sources ignore it.
        transpose: swap rows and columns of every image, as EMNIST needs.

    Raises:
        InvalidInputError: *split* is neither ``train`` nor ``test``.
        DataError: the data cannot be found or read, or fail a check. The message names the file.
    """
    if split not in SPLITS:
        raise InvalidInputError(f"split is {split!r}; expected {' or '.join(SPLITS)}")
    dataset = _load(str(source), split, None if data_dir is None else Path(data_dir))
    if transpose:
        dataset = replace(dataset, images=np.ascontiguousarray(dataset.images.swapaxes(1, 2)))
    origin = DataSource(
        source=str(source) if str(source) in NAMED else _absolute(source),
        data_dir=None if data_dir is None or str(source) != "mnist" else _absolute(data_dir),
        transpose=transpose,
    )
    return replace(dataset, origin=origin)


def _absolute(path: str | Path) -> str:
    return str(Path(path).expanduser().absolute())


def load_splits(
    source: str | Path | tuple[Dataset, Dataset], *, data_dir: str | Path | None = None, transpose: bool = False
) -> tuple[Dataset, Dataset]:
    """Load the training and the test split of a source. A pair of data sets is returned unchanged.

    Raises:
        DataError: the data cannot be found or read, or fail a check. The message names the file.
    """
    if isinstance(source, tuple):
        return source
    train, test = (load(source, split=split, data_dir=data_dir, transpose=transpose) for split in SPLITS)
    return train, test


def _load(source: str, split: str, data_dir: Path | None) -> Dataset:
    if source == "mnist":
        return load_mnist(split=split, data_dir=data_dir)
    if source == "digits":
        return load_digits(split=split)
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return load_idx(path, split=split) if found_sets(path) else load_pictures(path, split=split)
        if path.is_file():
            return load_archive(path, split=split)
        if path.parent.is_dir() and path.name in found_sets(path.parent):
            return load_idx(path.parent, path.name, split=split)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    raise DataError(f"{source!r} is neither a known data set nor an existing file or folder; {EXPECTED}")

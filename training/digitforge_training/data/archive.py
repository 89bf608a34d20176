"""NumPy archives: ``.npz`` files with ``x`` and ``y``, or with the four arrays of Keras's ``mnist.npz``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.archives import open_archive
from digitforge_client.errors import DataError
from digitforge_training.data.dataset import (
    Dataset,
    check_raw_labels,
    classes_of,
    dataset_from_raw,
    own_split,
)

#: Supported array names: training images and labels, then test images and labels.
LAYOUTS: Final = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("x", "y", "x_test", "y_test"),
    ("x", "y"),
)


def load_archive(path: Path, *, split: str) -> Dataset:
    """Load one split of an ``.npz`` file.

    If the file has no test images, `own_split` divides ``x`` and ``y``.

    Args:
        path: the file. Images are (n, H, W) or (n, H, W, C) uint8, labels are (n,) integers of any value.
        split: ``train`` or ``test``.

    Raises:
        DataError: the file cannot be read, an array is missing, or an array has the wrong shape or dtype.
    """
    where = str(path)
    train_x, train_y, test_x, test_y = _read(path)
    classes = classes_of(train_y, where)
    if test_x is not None and test_y is not None:
        x, y = (train_x, train_y) if split == "train" else (test_x, test_y)
        check_raw_labels(y, where)
        return dataset_from_raw(x, y, classes, name=path.stem, split=split, where=where)
    whole = dataset_from_raw(train_x, train_y, classes, name=path.stem, split=split, where=where)
    return own_split(whole, where=where)


Array = npt.NDArray[np.generic]


def _read(path: Path) -> tuple[Array, Array, Array | None, Array | None]:
    """Training images and labels, then test images and labels if the archive has them."""
    with open_archive(path) as archive:
        for layout in LAYOUTS:
            if all(name in archive for name in layout):
                x, y, *test = (archive[name] for name in layout)
                return x, y, *(test or (None, None))
        names = ", ".join(archive.files) or "nothing"
    raise DataError(
        f"{path}: the file holds the arrays {names}; expected x and y (optionally also x_test and y_test), "
        "or x_train, y_train, x_test and y_test; rename the arrays"
    )

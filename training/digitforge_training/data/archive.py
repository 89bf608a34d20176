"""NumPy archives: ``.npz`` files with images and labels under the usual names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from digitforge_client.common.archives import open_archive
from digitforge_client.errors import DataError
from digitforge_training.data.raw import Raw

#: Supported array names: training images and labels, then test images and labels. Labels may be missing.
LAYOUTS: Final = (
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
    ("x", "y", "x_test", "y_test"),
    ("images", "labels", "test_images", "test_labels"),
    ("arr_0", "arr_1", "arr_2", "arr_3"),  # numpy.savez without names
    ("x", "y"),
    ("images", "labels"),
    ("arr_0", "arr_1"),
)
#: Array with the names of the labels 0, 1 …, as `digitforge sample` writes it.
CLASS_NAMES: Final = "class_names"


def read_archive(path: Path, *, split: str) -> Raw:
    """Read one split of an ``.npz`` file, or all images if it has no test images.

    Raises:
        DataError: the file cannot be read, or has arrays of other names.
    """
    with open_archive(path) as archive:
        names = _layout(archive.files, path)
        images, labels = names[:2] if split == "train" or len(names) == 2 else names[2:]
        return Raw(
            where=str(path),
            images=archive[images],
            labels=_labels(archive, labels),
            training_labels=_labels(archive, names[1]),
            divided=len(names) == 4,
            class_names=tuple(map(str, archive[CLASS_NAMES].tolist())) if CLASS_NAMES in archive else None,
        )


def _layout(found: list[str], path: Path) -> tuple[str, ...]:
    for layout in LAYOUTS:
        if set(layout[::2]) <= set(found):
            return layout
    raise DataError(
        f"{path}: the file holds the arrays {', '.join(found) or 'nothing'}; expected x and y (optionally also x_test "
        "and y_test), x_train, y_train, x_test and y_test, images and labels, or arr_0 and arr_1; rename the arrays"
    )


def _labels(archive: Any, name: str) -> Any:
    """The labels, or None if they are missing or all −1, as for a generator without classes."""
    if name not in archive:
        return None
    labels = archive[name]
    return None if labels.dtype.kind == "i" and len(labels) and np.all(labels == -1) else labels

"""MNIST from a folder, from the cache, or from a mirror. Always verified."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Final

from digitforge_client.errors import DataError
from digitforge_training.data import idx
from digitforge_training.data.download import fetch
from digitforge_training.data.raw import Raw

#: Split => SHA-256 of the uncompressed IDX files that Yann LeCun published.
IMAGES_SHA256: Final = {
    "train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
}
LABELS_SHA256: Final = {
    "train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FILES: Final = {  # file name at the mirrors => SHA-256 of the unpacked content
    "train-images-idx3-ubyte.gz": IMAGES_SHA256["train"],
    "train-labels-idx1-ubyte.gz": LABELS_SHA256["train"],
    "t10k-images-idx3-ubyte.gz": IMAGES_SHA256["test"],
    "t10k-labels-idx1-ubyte.gz": LABELS_SHA256["test"],
}
#: Bytes of the largest of these files after decompression: a header and 60 000 images.
LARGEST_FILE: Final = 16 + 60_000 * 28 * 28
MIRRORS: Final = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
DATA_DIR_VARIABLE: Final = "DIGITFORGE_DATA_DIR"
CACHE_DIR_VARIABLE: Final = "DIGITFORGE_CACHE_DIR"
MIRRORS_VARIABLE: Final = "DIGITFORGE_MIRRORS"
REMEDY: Final = f"give a folder with the four MNIST files by --data-dir or {DATA_DIR_VARIABLE}, or use --data digits"


def cache_dir() -> Path:
    """Folder for downloads: DIGITFORGE_CACHE_DIR, else ``digitforge`` in XDG_CACHE_HOME, else in ``~/.cache``."""
    if chosen := os.environ.get(CACHE_DIR_VARIABLE):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "digitforge"


def mirrors() -> tuple[str, ...]:
    """URLs of folders with the four files: DIGITFORGE_MIRRORS, separated by spaces, else `MIRRORS`."""
    return tuple(os.environ.get(MIRRORS_VARIABLE, "").split()) or MIRRORS


def read_mnist(*, split: str, data_dir: Path | None) -> Raw:
    """Read one split of MNIST: 60 000 training or 10 000 test images of 28 × 28 pixels.

    Args:
        split: ``train`` or ``test``.
        data_dir: the folder with the four files. None means DIGITFORGE_DATA_DIR, else the cache, filled by a download
            if needed.

    Raises:
        DataError: a file is missing, damaged or not from MNIST, or no mirror answers.
    """
    if data_dir is None and (named := os.environ.get(DATA_DIR_VARIABLE)):
        data_dir = Path(named).expanduser()
    if data_dir is not None:
        if not data_dir.is_dir():
            raise DataError(f"{data_dir}: no such folder; {REMEDY}")
        return _verified(data_dir, split, advice="to load other images in this format, use --data FOLDER")
    folder = cache_dir() / "mnist"
    unpack = functools.partial(idx.unpack, most=LARGEST_FILE)
    fetch(FILES, folder, mirrors=mirrors(), unpack=unpack, remedy=REMEDY)
    return _verified(folder, split, advice="delete it, and the next run downloads it again")


def _verified(folder: Path, split: str, *, advice: str) -> Raw:
    """Read one split from *folder* and check the SHA-256 of its files."""
    files = idx.find(folder)
    arrays = []
    for path, expected in (
        (files.images[split], IMAGES_SHA256[split]),
        (files.labels[split], LABELS_SHA256[split]),
    ):
        content = idx.read_bytes(path)
        array = idx.parse(content, str(path))  # first, because its error messages say more
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise DataError(
                f"{path}: not a file of MNIST's {split} split: the SHA-256 of its unpacked content is {found}, "
                f"expected {expected}; {advice}"
            )
        arrays.append(array)
    images, labels = arrays
    return Raw(
        where=str(files.images[split]),
        images=images,
        labels=labels,
        training_labels=labels,  # both splits have all ten digits
        divided=True,
    )

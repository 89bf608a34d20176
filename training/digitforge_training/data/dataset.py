"""`Dataset`, a labeled data set in memory, and the checks that every data set must pass."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import image_hashes
from digitforge_client.errors import DataError, InvalidInputError

SPLITS: Final[tuple[Literal["train"], Literal["test"]]] = ("train", "test")
SMALLEST_SIDE: Final = 16
LARGEST_SIDE: Final = 64
CHANNELS: Final = (1, 3)  # gray, or red-green-blue
TEST_SHARE: Final = 0.2  # share of the images that become the test split if a source has none


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """What `sources.load` reads a data set from: its arguments, except the split. A run remembers it."""

    source: str  #: ``mnist``, ``digits``, or an absolute path
    data_dir: str | None = None  #: absolute path of the folder with MNIST's files; None for the cache or a download
    transpose: bool = False  #: whether rows and columns of every image are swapped


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Labeled images of one split of one source.

    Raises:
        InvalidInputError: an array has the wrong shape, dtype or range.
    """

    #: (n, H, W, C) uint8, 0 to 255. H = W, from 16 to 64. C is 1 or 3.
    images: npt.NDArray[np.uint8]
    #: (n,) int64, indices into `class_names`.
    labels: npt.NDArray[np.int64]
    #: One name per class. A numbered class keeps the number that the source gives it.
    class_names: tuple[str, ...]
    #: Name of the source, for example ``mnist``.
    name: str
    #: ``train`` or ``test``.
    split: str
    #: Number of images that `split_indices` has put into the other split. 0 if the source has its own test images.
    set_aside: int = 0
    #: Where `sources.load` read these images. None for other images, and for a subset.
    origin: DataSource | None = None

    def __post_init__(self) -> None:
        wrong = problem_with_images(self.images)
        if wrong:
            raise InvalidInputError(f"data set {self.name}: {wrong}")
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.images),):
            raise InvalidInputError(
                f"data set {self.name}: labels are {self.labels.dtype} of shape {self.labels.shape}; "
                f"expected int64 of shape ({len(self.images)},), one label per image"
            )
        if len(self.labels) and not (self.labels.min() >= 0 and self.labels.max() < len(self.class_names)):
            raise InvalidInputError(
                f"data set {self.name}: labels range from {self.labels.min()} to {self.labels.max()}; expected "
                f"0 to {len(self.class_names) - 1}, because they are indices into {len(self.class_names)} class names"
            )
        if self.split not in SPLITS:
            raise InvalidInputError(f"split is {self.split!r}; expected {' or '.join(SPLITS)}")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def split_note(self) -> str:
        """One sentence on how digitforge split the source. Empty if the source has its own test images."""
        if not self.set_aside:
            return ""
        whole = len(self) + self.set_aside
        test = self.set_aside if self.split == "train" else len(self)
        return (
            f"{self.name} has no test images of its own: {test} of its {whole} images ({test / whole:.0%}) are set "
            f"aside as test images, and {whole - test} are training images"
        )

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the image bytes followed by the labels as little-endian int64."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        return digest.hexdigest()

    def subset(self, indices: npt.ArrayLike) -> Dataset:
        """Select the images at *indices*, in that order. Classes and name stay the same.

        Args:
            indices: (m,) integers from 0 to n − 1, or (n,) booleans.

        Raises:
            InvalidInputError: *indices* has another shape or dtype, or an index is out of range.
        """
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iub":
            raise InvalidInputError(
                f"indices are {chosen.dtype} of shape {chosen.shape}; expected a list of integers, "
                "or one boolean per image"
            )
        if chosen.dtype.kind == "b" and len(chosen) != len(self):
            raise InvalidInputError(f"{len(chosen)} booleans for {len(self)} images; expected one per image")
        if chosen.dtype.kind != "b" and len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise InvalidInputError(
                f"indices range from {chosen.min()} to {chosen.max()}; expected 0 to {len(self) - 1}"
            )
        return Dataset(
            images=self.images[chosen],
            labels=self.labels[chosen],
            class_names=self.class_names,
            name=self.name,
            split=self.split,
        )


def problem_with_images(images: npt.NDArray[np.generic]) -> str:
    """Say what is wrong with *images* and how to fix it. Returns "" if nothing is wrong.

    Pixel ranges are never guessed, so only uint8 is accepted.
    """
    if images.dtype != np.uint8:
        return f"images are {images.dtype}{_range(images)}; expected uint8 from 0 to 255; {_conversion(images)}"
    if images.ndim != 4 or images.shape[3] not in CHANNELS:
        return f"images have the shape {images.shape}; expected (n, height, width, channels) with 1 or 3 channels"
    height, width = images.shape[1:3]
    if height != width or not SMALLEST_SIDE <= height <= LARGEST_SIDE:
        return (
            f"images are {height}×{width} pixels; expected squares of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels; "
            "crop or resize them first"
        )
    return ""


def _range(images: npt.NDArray[np.generic]) -> str:
    if images.dtype.kind not in "biuf" or not images.size:
        return ""
    if not np.isfinite(images).all():
        return ", and some pixels are NaN or infinite"
    return f" from {images.min():g} to {images.max():g}"


def _conversion(images: npt.NDArray[np.generic]) -> str:
    """How to convert the images to uint8.

    Only a suggestion: the range of the pixels at hand does not prove the range of the data (an image may be all black).
    """
    if images.dtype.kind not in "biuf" or not images.size or not np.isfinite(images).all():
        return "fix or drop those images, then convert the rest" if images.dtype.kind == "f" else "convert them first"
    low, high = float(images.min()), float(images.max())
    if low < 0 and -1 <= low <= high <= 1:
        return "if the range is -1 to 1, convert them with ((x + 1) * 127.5).round().astype('uint8')"
    if 0 <= low <= high <= 1:
        return "if the range is 0 to 1, convert them with (x * 255).round().astype('uint8')"
    if 0 <= low <= high <= 255:
        return "convert them with x.round().astype('uint8')"
    return "scale them to 0 to 255, then convert them with x.round().astype('uint8')"


def dataset_from_raw(
    images: npt.NDArray[np.generic],
    raw_labels: npt.NDArray[np.generic],
    classes: npt.NDArray[np.int64],
    *,
    name: str,
    split: str,
    where: str,
) -> Dataset:
    """Make a data set from the arrays of a file.

    Args:
        images: (n, H, W) or (n, H, W, C). Any dtype but uint8 is an error.
        raw_labels: (n,) integers of any value, as the source has them.
        classes: (K,) the integers that stand for classes, ascending: `classes_of` the training labels.
        name: name of the source.
        split: ``train`` or ``test``.
        where: the file or folder to name in an error.

    Returns:
        A data set with labels 0 to K − 1. The class names are the source's own integers.

    Raises:
        DataError: the arrays do not form a data set. The message names *where*.
    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    wrong = problem_with_images(images)
    if wrong:
        raise DataError(f"{where}: {wrong}")
    if len(images) != len(raw_labels):
        raise DataError(
            f"{where}: the {split} split has {len(images)} images but {len(raw_labels)} labels; "
            "expected one label per image"
        )
    if len(images) < 2:
        raise DataError(f"{where}: the {split} split has {len(images)} images; expected at least two")
    unknown = np.setdiff1d(raw_labels, classes)
    if len(unknown):
        raise DataError(
            f"{where}: label {unknown[0]} occurs in the {split} split but not among the training labels "
            f"({classes[0]} to {classes[-1]}); check that both files belong to the same data set"
        )
    return Dataset(
        images=np.ascontiguousarray(images, dtype=np.uint8),
        labels=np.searchsorted(classes, raw_labels).astype(np.int64),
        class_names=tuple(str(label) for label in classes),
        name=name,
        split=split,
    )


def classes_of(raw_labels: npt.NDArray[np.generic], where: str) -> npt.NDArray[np.int64]:
    """List the classes that occur in training labels.

    Args:
        raw_labels: (n,) integers; anything else is an error.
        where: the file or folder to name in an error.

    Returns:
        (K,) int64, ascending.

    Raises:
        DataError: the labels are not integers, not one-dimensional, or empty.
    """
    check_raw_labels(raw_labels, where)
    if not len(raw_labels):
        raise DataError(f"{where}: the training labels are empty; expected at least two")
    return np.unique(raw_labels).astype(np.int64)


def check_raw_labels(raw_labels: npt.NDArray[np.generic], where: str) -> None:
    """Check that labels are one integer per image.

    Raises:
        DataError: they are not. The message names *where*.
    """
    if raw_labels.ndim != 1:
        hint = "; convert one-hot labels with y.argmax(axis=1)" if raw_labels.ndim == 2 else ""
        raise DataError(
            f"{where}: labels have the shape {raw_labels.shape}; expected (n,), one integer per image{hint}"
        )
    if raw_labels.dtype.kind not in "iu":
        hint = "; some are NaN" if raw_labels.dtype.kind == "f" and np.isnan(raw_labels).any() else ""
        raise DataError(
            f"{where}: labels are {raw_labels.dtype}{hint}; expected one integer per image; "
            "number the classes, then convert with y.astype('int64')"
        )


def split_indices(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], *, where: str
) -> dict[str, npt.NDArray[np.int64]]:
    """Split images of a source without test images into training and test images.

    Sorts the images of each class by their hashes (`contract.image_hashes`). The first fifth, at least one, becomes
    the test split. The split depends on the pixels alone, not on file names or random numbers, and all copies of an
    image land in the same split.

    Args:
        images: (n, H, W, C) uint8.
        labels: (n,) int64.
        where: the file or folder to name in an error.

    Returns:
        ``train`` and ``test`` => (m,) int64, ascending indices of the images.

    Raises:
        DataError: a class has fewer than two different images, so one split would lack it.
    """
    hashes = image_hashes(images)
    is_test = np.zeros(len(images), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        different = np.unique(hashes[members])  # ascending
        if len(different) < 2:
            raise DataError(
                f"{where}: the class with label {label} has {len(different)} different image; expected at least two, "
                "because one goes to the test split; add images or remove the class"
            )
        chosen = different[: max(1, round(TEST_SHARE * len(different)))]
        is_test[members] = np.isin(hashes[members], chosen)
    return {"train": np.flatnonzero(~is_test), "test": np.flatnonzero(is_test)}


def own_split(whole: Dataset, *, where: str) -> Dataset:
    """Select the images of a data set's split from all images of its source, by `split_indices`.

    Raises:
        DataError: a class has fewer than two different images.
    """
    chosen = split_indices(whole.images, whole.labels, where=where)[whole.split]
    return replace(whole.subset(chosen), set_aside=len(whole) - len(chosen))

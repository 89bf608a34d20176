"""A data set in memory, and the rules that every one obeys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
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
TEST_SHARE: Final = 0.2  # of the images of a source that has no test images of its own


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Labeled images of one split of one source.

    Raises:
        InvalidInputError: the arrays are not what the fields below say.
    """

    images: npt.NDArray[np.uint8]
    """(n, H, W, C), H = W from 16 to 64, C = 1 or 3, 0 … 255."""
    labels: npt.NDArray[np.int64]
    """(n,), each an index into `class_names`."""
    class_names: tuple[str, ...]
    """One name per class; for numbered classes the number as the source has it."""
    name: str
    """What the source is called, for example ``mnist``."""
    split: str
    """``train`` or ``test``."""

    def __post_init__(self) -> None:
        wrong = fault_of_images(self.images)
        if wrong:
            raise InvalidInputError(f"data set {self.name}: {wrong}")
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.images),):
            raise InvalidInputError(
                f"data set {self.name}: labels are {self.labels.dtype} {self.labels.shape}; "
                f"expected int64 ({len(self.images)},), one for each image"
            )
        if len(self.labels) and not (self.labels.min() >= 0 and self.labels.max() < len(self.class_names)):
            raise InvalidInputError(
                f"data set {self.name}: labels run from {self.labels.min()} to {self.labels.max()}; "
                f"expected 0 to {len(self.class_names) - 1}, indices into the {len(self.class_names)} class names"
            )
        if self.split not in SPLITS:
            raise InvalidInputError(f"split is {self.split!r}; expected one of {', '.join(SPLITS)}")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    @cached_property
    def sha256(self) -> str:
        """SHA-256, hexadecimal, over the images' bytes and then the labels as little-endian int64."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        return digest.hexdigest()

    def subset(self, indices: npt.ArrayLike) -> Dataset:
        """The images at *indices*, in that order, with the same classes and name.

        Args:
            indices: (m,) integers, 0 … n − 1, or (n,) booleans.

        Raises:
            InvalidInputError: they are not, or one lies outside.
        """
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iub":
            raise InvalidInputError(
                f"indices are {chosen.dtype} {chosen.shape}; expected a list of integers, or one boolean per image"
            )
        if chosen.dtype.kind == "b" and len(chosen) != len(self):
            raise InvalidInputError(f"{len(chosen)} booleans for {len(self)} images; expected one per image")
        if chosen.dtype.kind != "b" and len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise InvalidInputError(f"indices run from {chosen.min()} to {chosen.max()}; expected 0 to {len(self) - 1}")
        return Dataset(
            images=self.images[chosen],
            labels=self.labels[chosen],
            class_names=self.class_names,
            name=self.name,
            split=self.split,
        )


def fault_of_images(images: npt.NDArray[np.generic]) -> str:
    """What is wrong with *images* and what to do, or nothing.

    The range of pixels is never guessed: only uint8, 0 … 255, is taken.
    """
    if images.dtype != np.uint8:
        return f"images are {images.dtype}{_range(images)}; expected uint8, 0 to 255: {_conversion(images)}"
    if images.ndim != 4 or images.shape[3] not in CHANNELS:
        return f"images have the shape {images.shape}; expected (n, height, width, channels) with 1 or 3 channels"
    height, width = images.shape[1:3]
    if height != width or not SMALLEST_SIDE <= height <= LARGEST_SIDE:
        return (
            f"images are {height}×{width} pixels; expected squares of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels: "
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
    """How to make them uint8. The choice stays with the user: an image may well be all black."""
    if images.dtype.kind not in "biuf" or not images.size or not np.isfinite(images).all():
        return "mend or drop those images, then convert the rest" if images.dtype.kind == "f" else "convert them first"
    low, high = float(images.min()), float(images.max())
    if low < 0 and -1 <= low <= high <= 1:
        return "if they run from -1 to 1, convert them with ((x + 1) * 127.5).round().astype('uint8')"
    if 0 <= low <= high <= 1:
        return "if they run from 0 to 1, convert them with (x * 255).round().astype('uint8')"
    if 0 <= low <= high <= 255:
        return "convert them with x.round().astype('uint8')"
    return "scale them to this range, then convert them with x.round().astype('uint8')"


def dataset_from_raw(
    images: npt.NDArray[np.generic],
    raw_labels: npt.NDArray[np.generic],
    classes: npt.NDArray[np.int64],
    *,
    name: str,
    split: str,
    where: str,
) -> Dataset:
    """A data set from arrays as a file has them: any integers as labels, channels perhaps left out.

    Args:
        images: (n, H, W) or (n, H, W, C), should be uint8.
        raw_labels: (n,) integers as the source has them.
        classes: (K,) the integers that stand for classes, ascending: `classes_of` the training labels.
        name: what the source is called.
        split: ``train`` or ``test``.
        where: the file or folder to name in an error.

    Returns:
        Labels 0 … K − 1, and the source's own integers as names of the classes.

    Raises:
        DataError: the arrays do not make a data set; the message names *where*.
    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    wrong = fault_of_images(images)
    if wrong:
        raise DataError(f"{where}: {wrong}")
    if len(images) != len(raw_labels):
        raise DataError(
            f"{where}: {len(images)} images but {len(raw_labels)} labels in the {split} split; expected as many"
        )
    if len(images) < 2:
        raise DataError(f"{where}: the {split} split has {len(images)} images; at least two are needed")
    unknown = np.setdiff1d(raw_labels, classes)
    if len(unknown):
        raise DataError(
            f"{where}: label {unknown[0]} occurs in the {split} split but not among the training labels "
            f"({classes[0]} to {classes[-1]}); do the files belong together?"
        )
    return Dataset(
        images=np.ascontiguousarray(images, dtype=np.uint8),
        labels=np.searchsorted(classes, raw_labels).astype(np.int64),
        class_names=tuple(str(label) for label in classes),
        name=name,
        split=split,
    )


def classes_of(raw_labels: npt.NDArray[np.generic], where: str) -> npt.NDArray[np.int64]:
    """The classes that occur among training labels.

    Args:
        raw_labels: should be (n,) integers.
        where: the file or folder to name in an error.

    Returns:
        (K,) int64, ascending.

    Raises:
        DataError: they are not integers, not one per image, or there are none.
    """
    check_raw_labels(raw_labels, where)
    if not len(raw_labels):
        raise DataError(f"{where}: there are no training labels; at least two images are needed")
    return np.unique(raw_labels).astype(np.int64)


def check_raw_labels(raw_labels: npt.NDArray[np.generic], where: str) -> None:
    """Accept labels that are one integer per image.

    Raises:
        DataError: they are not; the message names *where*.
    """
    if raw_labels.ndim != 1:
        hint = "; one-hot labels become numbers by y.argmax(axis=1)" if raw_labels.ndim == 2 else ""
        raise DataError(
            f"{where}: labels have the shape {raw_labels.shape}; expected (n,), one integer per image{hint}"
        )
    if raw_labels.dtype.kind not in "iu":
        hint = "; some are NaN" if raw_labels.dtype.kind == "f" and np.isnan(raw_labels).any() else ""
        raise DataError(
            f"{where}: labels are {raw_labels.dtype}{hint}; expected one integer per image: "
            "number the classes and convert with y.astype('int64')"
        )


def split_indices(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], *, where: str
) -> dict[str, npt.NDArray[np.int64]]:
    """Divide images that come without test images of their own, always in the same way.

    In each class the images are put in the order of their identities (`contract.image_hashes`) and the first fifth,
    at least one, becomes the test split. So the division depends on the pixels alone, neither on file
    names nor on a random generator, and copies of an image stay on one side.

    Args:
        images: (n, H, W, C) uint8.
        labels: (n,) int64.
        where: the file or folder to name in an error.

    Returns:
        For ``train`` and ``test`` the indices of the images, ascending; (m,) int64.

    Raises:
        DataError: a class has fewer than two different images, so that one split would miss it.
    """
    hashes = image_hashes(images)
    is_test = np.zeros(len(images), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        different = np.unique(hashes[members])  # ascending
        if len(different) < 2:
            raise DataError(
                f"{where}: a class has {len(different)} different image (label {label}); at least two are needed "
                "to set one aside for the test split"
            )
        chosen = different[: max(1, round(TEST_SHARE * len(different)))]
        is_test[members] = np.isin(hashes[members], chosen)
    return {"train": np.flatnonzero(~is_test), "test": np.flatnonzero(is_test)}

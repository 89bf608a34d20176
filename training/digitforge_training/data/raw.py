"""What a file or folder holds, before it becomes a `Dataset`: images of any size, and labels of any kind.

Each layout has a reader that returns a `Raw`. This module fits its images, numbers its classes and makes the split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from digitforge_client.contract import image_hashes
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data.dataset import TEST_SHARE, Dataset, DataSource
from digitforge_training.data.fitting import Fitting, fit_array, fit_picture

Labels = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that is read when it is needed."""

    where: str  #: the file, for errors
    read: Callable[[], Image.Image]  #: reads it in the mode L or RGB


@dataclass(frozen=True, kw_only=True, eq=False)
class Raw:
    """The images of one split, or all images of a source without test images."""

    where: str  #: the file or folder to name in errors
    images: npt.NDArray[np.generic] | Sequence[Picture]  #: an array of any shape that `fit_array` takes, or pictures
    labels: Labels | None  #: (n,) integers or text; None for images without labels
    training_labels: Labels | None  #: the labels of the training split, or of all images
    divided: bool  #: whether the source has test images of its own
    #: Names of the labels 0, 1 …, if the source has such a list. None: each label is the name of its class.
    class_names: tuple[str, ...] | None = None


#: The class of images without labels.
UNLABELED: Final = "unlabeled"


def without_labels(raw: Raw) -> Raw:
    """Put images without labels into the single class `UNLABELED`. Other images are returned unchanged."""
    if raw.labels is not None:
        return raw
    return replace(raw, labels=np.full(len(raw.images), UNLABELED), training_labels=np.array([UNLABELED]))


def datasets_of(raw: Raw, source: DataSource, *, name: str, split: str) -> dict[str, Dataset]:
    """Make data sets: fit the images, number the classes, and divide the images if the source has no test images.

    Args:
        raw: what a reader returned for *split*.
        source: how images are fitted, and the share of test images.
        name: name of the data set.
        split: ``train`` or ``test``.

    Returns:
        Split => data set. Both splits if the source has no test images, else only *split*.

    Raises:
        DataError: the file does not hold such a data set. The message names it.
        InvalidInputError: a share of test images is given, but the source has its own.
    """
    if raw.labels is None or raw.training_labels is None:
        raise DataError(
            f"{raw.where}: the images have no labels; expected one label, or one folder for each class. To train "
            "without labels, use the recipe forge-unlabeled"
        )
    if raw.divided and source.test_share is not None:
        raise InvalidInputError(
            f"{raw.where} has test images of its own; leave out --test-share (in Python: test_share)"
        )
    class_names = class_names_of(raw.training_labels, raw.class_names, raw.where)
    names = names_of(raw.labels, raw.class_names, raw.where)
    if len(raw.images) != len(names):
        raise DataError(
            f"{raw.where}: the {split} split has {len(raw.images)} images but {len(names)} labels; "
            "expected one label per image"
        )
    if len(names) < 2:
        raise DataError(f"{raw.where}: the {split} split has {len(names)} images; expected at least two")
    numbers = {name: number for number, name in enumerate(class_names)}
    distinct, inverse = np.unique(names, return_inverse=True)
    if unknown := [name for name in distinct.tolist() if name not in numbers]:
        raise DataError(
            f"{raw.where}: label {unknown[0]} occurs in the {split} split but not among the training labels "
            f"({class_names[0]} to {class_names[-1]}); check that both belong to the same data set"
        )
    labels = np.array([numbers[name] for name in distinct.tolist()], dtype=np.int64)[inverse.reshape(-1)]
    images, hashes = fitted_images(raw, source, hashed=not raw.divided)
    made = Dataset(images=images, labels=labels, class_names=class_names, name=name, split=split, origin=source)
    if hashes is None:
        return {split: made}
    share = TEST_SHARE if source.test_share is None else source.test_share
    halves = split_indices(images, labels, where=raw.where, keys=hashes, share=share, class_names=class_names)
    return {
        half: replace(made.subset(rows), split=half, set_aside=len(made) - len(rows), origin=source)
        for half, rows in halves.items()
    }


def fitted_images(
    raw: Raw, fitting: Fitting, *, hashed: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64] | None]:
    """Fit the images: (n, side, side, C) uint8. With *hashed*, also the hash of each image before fitting.

    Raises:
        DataError: an image cannot be read or fitted, or the images have several sizes or modes.
    """
    if isinstance(raw.images, np.ndarray):
        fitted, whole = fit_array(raw.images, fitting, where=raw.where)
        return fitted, image_hashes(whole) if hashed else None
    images: npt.NDArray[np.uint8] | None = None
    hashes = np.empty(len(raw.images), np.int64)
    first = ""
    for i, each in enumerate(raw.images):
        picture = each.read()
        image = fit_picture(picture, fitting, where=each.where)
        if images is None:
            images, first = np.empty((len(raw.images), *image.shape), np.uint8), each.where
        if image.shape != images.shape[1:]:
            option = "--size" if image.shape[:2] != images.shape[1:3] else "--channels gray or --channels rgb"
            raise DataError(
                f"{each.where}: {_described(image.shape)}, but {first} is {_described(images.shape[1:])}; "
                f"make all pictures the same with {option}"
            )
        images[i] = image
        if hashed:
            hashes[i] = image_hashes(np.asarray(picture).reshape(1, picture.height, picture.width, -1))[0]
    if images is None:
        raise DataError(f"{raw.where}: no pictures found; expected at least two")
    return images, hashes if hashed else None


def _described(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height}×{width} {'gray' if channels == 1 else 'color'}"


def names_of(labels: Labels, class_names: tuple[str, ...] | None, where: str) -> npt.NDArray[np.str_]:
    """The name of each image's class.

    Args:
        labels: (n,) or (n, 1) integers, or text.
        class_names: names of the integers 0, 1 …; None: the integers are the names.
        where: the file to name in errors.

    Raises:
        DataError: the labels are not one integer or text per image, or are larger than the list of names.
    """
    labels = _checked_labels(labels, where)
    if labels.dtype.kind == "U":
        if len(labels) and not np.char.str_len(labels).all():
            raise DataError(f"{where}: some labels are empty; give every image a label, or remove it")
        return labels
    if class_names is None:
        return labels.astype(str)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise DataError(
            f"{where}: labels range from {labels.min()} to {labels.max()}, but there are {len(class_names)} class "
            f"names; expected 0 to {len(class_names) - 1}"
        )
    return np.asarray(class_names, dtype=str)[labels.astype(np.int64)]


def class_names_of(labels: Labels, class_names: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
    """The classes that occur in training labels, in order: that of *class_names*, else by number, else by name.

    Raises:
        DataError: the labels are wrong or empty, or two classes have the same name.
    """
    if class_names is not None and len(set(class_names)) < len(class_names):
        twice = next(name for name in class_names if class_names.count(name) > 1)
        raise DataError(f"{where}: two classes are called {twice!r}; give each class a name of its own")
    present = set(np.unique(names_of(labels, class_names, where)).tolist())
    if not present:
        raise DataError(f"{where}: the training labels are empty; expected at least two")
    if class_names is not None:
        return tuple(name for name in class_names if name in present)
    return tuple(sorted_classes(present))


_INTEGER_DIGITS: Final = "0123456789"


def sorted_classes(names: set[str]) -> list[str]:
    """Sort class names: by number if all are integers, else by name."""
    numbered = all(name.removeprefix("-").strip(_INTEGER_DIGITS) == "" and name.strip("-") for name in names)
    return sorted(names, key=lambda name: (int(name) if numbered else 0, name))


def _checked_labels(labels: Labels, where: str) -> Labels:
    """Labels as (n,) integers or text."""
    if labels.ndim == 2 and labels.shape[1] == 1:  # MedMNIST
        labels = labels[:, 0]
    if labels.ndim != 1:
        hint = "; convert one-hot labels with y.argmax(axis=1)" if labels.ndim == 2 else ""
        raise DataError(f"{where}: labels have the shape {labels.shape}; expected (n,), one label per image{hint}")
    if labels.dtype.kind == "S":
        try:
            return np.char.decode(labels, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: labels are not UTF-8 text ({error}); write them as text") from error
    if labels.dtype.kind not in "iuU":
        hint = "; some are NaN" if labels.dtype.kind == "f" and np.isnan(labels).any() else ""
        raise DataError(
            f"{where}: labels are {labels.dtype}{hint}; expected one integer or one name per image; "
            "number the classes, then convert with y.astype('int64')"
        )
    return labels


def split_indices(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    where: str,
    keys: npt.NDArray[np.int64] | None = None,
    share: float = TEST_SHARE,
    class_names: Sequence[str] | None = None,
) -> dict[str, npt.NDArray[np.int64]]:
    """Split images of a source without test images into training and test images.

    Sorts the images of each class by their keys. The first *share*, at least one, becomes the test split. The split
    depends on the pixels alone, not on file names or random numbers, and all copies of an image land in the same split.
    With the default keys, the split also does not depend on how images are fitted, unless fitting makes some equal.

    Args:
        images: (n, H, W, C) uint8, fitted.
        labels: (n,) int64.
        where: the file or folder to name in an error.
        keys: (n,) hashes of the images before they were fitted; None: they were not.
        share: share of test images, between 0 and 1.
        class_names: names of the classes, for errors.

    Returns:
        ``train`` and ``test`` => (m,) int64, ascending indices of the images.

    Raises:
        DataError: a class has fewer than two different images, so one split would lack it.
    """
    hashes = image_hashes(images)
    keys = hashes if keys is None else keys
    is_test = np.zeros(len(images), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        different = np.unique(keys[members])  # ascending
        chosen = different[: min(max(1, round(share * len(different))), len(different) - 1)]
        is_test[members] = np.isin(keys[members], chosen)
        # Fitting can make different images equal.
        is_test[members] |= np.isin(hashes[members], hashes[members[is_test[members]]])
        if is_test[members].all() or len(different) < 2:
            name = label if class_names is None else class_names[label]
            count = len(np.unique(hashes[members]))
            raise DataError(
                f"{where}: the class with label {name} has {count} different image{'s' * (count != 1)}; expected at "
                "least two, because one goes to the test split; add images or remove the class"
            )
    return {"train": np.flatnonzero(~is_test), "test": np.flatnonzero(is_test)}

"""`Dataset`, a labeled data set in memory, and `DataSource`, where and how it was read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_training.data.fitting import CHANNELS, Fitting, problem_with_dtype, problem_with_sides

SPLITS: Final[tuple[Literal["train"], Literal["test"]]] = ("train", "test")
TEST_SHARE: Final = 0.2  # share of the images that become the test split if a source has none


@dataclass(frozen=True, kw_only=True)
class DataSource(Fitting):
    """Everything that `digitforge.load_data` needs, except the split. A run remembers it.

    Raises:
        InvalidInputError: a value is out of range.
    """

    source: str  #: ``mnist``, ``digits``, or a path
    data_dir: str | None = None  #: folder with MNIST's files; None for the cache or a download
    #: Share of the images, between 0 and 1, that become test images if the source has none. None: a fifth.
    test_share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_share is not None and not 0 < self.test_share < 1:
            raise InvalidInputError(
                f"test_share is {self.test_share}; expected a number between 0 and 1, such as 0.2 (--test-share)"
            )


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
    #: Number of images that `raw.split_indices` has put into the other split. 0 if the source has its own test images.
    set_aside: int = 0
    #: Where `digitforge.load_data` read these images. None for other images, and for a subset.
    origin: DataSource | None = None

    def __post_init__(self) -> None:
        if wrong := _problem_with_images(self.images):
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


def _problem_with_images(images: npt.NDArray[np.generic]) -> str:
    """Say what is wrong with the images of a data set. Returns "" if nothing is wrong."""
    if wrong := problem_with_dtype(images):
        return wrong
    if images.ndim != 4 or images.shape[3] not in CHANNELS:
        return f"images have the shape {images.shape}; expected (n, height, width, channels) with 1 or 3 channels"
    return problem_with_sides(*images.shape[1:3])

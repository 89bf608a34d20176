"""Folders of PNG files: one folder per class, optionally below ``train`` and ``test``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from digitforge_client.errors import DataError
from digitforge_training.data.dataset import (
    LARGEST_SIDE,
    SMALLEST_SIDE,
    SPLITS,
    Dataset,
    own_split,
)

#: Pillow's modes whose values always range from 0 to 255.
MODES: Final = {"L": "gray", "RGB": "color"}


def load_pictures(folder: Path, *, split: str) -> Dataset:
    """Load one split of a folder of ``CLASS/*.png``.

    If *folder* holds ``train`` and ``test``, the class folders are expected there. Otherwise `own_split` makes the
    split. Classes are sorted by number if all names are numbers, else by name.

    Raises:
        DataError: there are no class folders, a class has no pictures, the test split has a class that the training
            split lacks, or a picture cannot be read or differs from the first one in size or mode.
    """
    divided = all((folder / each).is_dir() for each in SPLITS)
    parent = folder / split if divided else folder
    class_names = _class_names(folder / "train" if divided else folder)
    if divided and (surplus := set(_class_names(folder / "test")) - set(class_names)):
        raise DataError(
            f"{folder / 'test' / min(surplus)}: {folder / 'train'} has no folder of this class; "
            "expected the same classes in train and test"
        )
    files = {name: _pictures(parent / name) for name in class_names if (parent / name).is_dir()}
    paths = [path for each in files.values() for path in each]
    if len(paths) < 2:
        raise DataError(f"{parent}: found {len(paths)} picture; expected at least two")
    images = _read(paths)
    labels = np.repeat([class_names.index(name) for name in files], [len(each) for each in files.values()]).astype(
        np.int64
    )
    pictures = Dataset(
        images=images, labels=labels, class_names=tuple(class_names), name=folder.resolve().name, split=split
    )
    return pictures if divided else own_split(pictures, where=str(folder))


def _class_names(parent: Path) -> list[str]:
    """Names of the class folders in *parent*, in class order."""
    names = [path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not names:
        raise DataError(f"{parent}: no images found; expected one folder of PNG files per class, or the four IDX files")
    numbered = all(name.isascii() and name.isdigit() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbered else 0, name))


def _pictures(folder: Path) -> list[Path]:
    """The PNG files of one class, sorted by name."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png" and path.is_file())
    if not paths:
        raise DataError(f"{folder}: no PNG files found; add pictures of this class, or remove the folder")
    return paths


def _read(paths: list[Path]) -> npt.NDArray[np.uint8]:
    """Read pictures of the same size and mode: (n, H, W, C) uint8."""
    first = _read_one(paths[0])
    images = np.empty((len(paths), *first.shape), dtype=np.uint8)
    for i, path in enumerate(paths):
        image = _read_one(path)
        if image.shape != first.shape:
            raise DataError(
                f"{path}: {_format_of(image)}, but {paths[0]} is {_format_of(first)}; "
                "expected all pictures to have the same size and mode"
            )
        images[i] = image
    return images


def _read_one(path: Path) -> npt.NDArray[np.uint8]:
    """Read one picture: (H, W, C) uint8."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            width, height = picture.size  # from the header: checked before a huge picture is decoded
            if width != height or not SMALLEST_SIDE <= width <= LARGEST_SIDE:
                raise DataError(
                    f"{path}: {height}×{width} pixels; expected a square of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels; "
                    "crop or resize the pictures first"
                )
            if picture.mode not in MODES:
                raise DataError(
                    f"{path}: the picture's mode is {picture.mode}; expected L (gray) or RGB, 8 bits each; convert it "
                    "first, for example with Pillow's picture.convert('L')"
                )
            return np.asarray(picture).reshape(height, width, -1)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a readable PNG file: {error}") from error


def _format_of(image: npt.NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{height}×{width} {'gray' if channels == 1 else 'color'}"

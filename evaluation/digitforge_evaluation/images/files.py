"""Reads a set of images from files: an ``.npz``, IDX files, or PNG files with or without class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from digitforge_client.common.archives import open_archive
from digitforge_client.errors import DataError
from digitforge_evaluation.images.sources import Images, ImageSet, Labels
from digitforge_training.data import idx

#: Names of the image and label arrays in an archive. The labels may be missing.
ARCHIVE_NAMES = (("images", "labels"), ("x", "y"))


def read_images(path: Path) -> ImageSet:
    """Read all images at *path*.

    Args:
        path: an ``.npz`` with ``images`` and ``labels`` or ``x`` and ``y``, a folder of IDX files, a folder with one
            subfolder of PNG files per class (named 0, 1 …), or a folder of PNG files without classes.

    Raises:
        DataError: there are no such files, or a file cannot be read; the message names it.
        InvalidInputError: the arrays are not images and labels.
    """
    if path.is_file():
        images, labels = _read_archive(path)
    elif path.is_dir():
        images, labels = _read_idx(path) if idx.found_sets(path) else _read_pictures(path)
    else:
        raise DataError(f"{path}: no such file or folder; expected an .npz, IDX files or PNG files")
    return ImageSet(images[..., np.newaxis] if images.ndim == 3 else images, labels, str(path))


def _read_archive(path: Path) -> tuple[Images, Labels | None]:
    with open_archive(path) as archive:
        for image_name, label_name in ARCHIVE_NAMES:
            if image_name in archive:
                return archive[image_name], _as_labels(archive.get(label_name), path)
        names = archive.files
    raise DataError(
        f"{path}: found the arrays {', '.join(sorted(names)) or '(none)'}; expected images and labels, or x and y"
    )


def _as_labels(labels: npt.NDArray[np.generic] | None, path: Path) -> Labels | None:
    """Convert integers to int64. If all are −1, as for an unconditional generator, there are no labels."""
    if labels is None:
        return None
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels are {labels.dtype}; expected integers from 0")
    as_int64 = labels.astype(np.int64)
    return None if len(as_int64) and (as_int64 == -1).all() else as_int64


def _read_idx(folder: Path) -> tuple[Images, Labels | None]:
    """Read and concatenate all image and label files in the folder."""
    images, labels = [], []
    for files in idx.found_sets(folder).values():
        for split in ("train", "test"):
            if ("images", split) in files:
                images.append(idx.read_images(files["images", split]))
                if ("labels", split) in files:
                    labels.append(idx.read_labels(files["labels", split]).astype(np.int64))
    if not images or len({part.shape[1:] for part in images}) > 1:
        sizes = ", ".join(sorted({"×".join(map(str, part.shape[1:])) for part in images}))
        raise DataError(
            f"{folder}: the IDX files have {f'images of the sizes {sizes}' if sizes else 'no images'}; expected images "
            "of one size"
        )
    if labels and sum(map(len, labels)) != sum(map(len, images)):
        raise DataError(
            f"{folder}: {sum(map(len, images))} images but {sum(map(len, labels))} labels; expected one label for each"
        )
    return np.concatenate(images), np.concatenate(labels) if labels else None


def _read_pictures(folder: Path) -> tuple[Images, Labels | None]:
    plain = _pictures(folder)
    if plain:
        return np.stack(_read_each(plain)), None
    classes = {path.name: _pictures(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    files = [path for paths in classes.values() for path in paths]
    if not files:
        raise DataError(
            f"{folder}: no images found; expected PNG files, folders of PNG files named 0, 1 …, or IDX files"
        )
    wrong = [name for name in classes if not name.isdecimal()]
    if wrong:
        raise DataError(f"{folder / wrong[0]}: a class folder must have a number as its name: 0, 1 …")
    labels = np.repeat([int(name) for name in classes], [len(paths) for paths in classes.values()])
    return np.stack(_read_each(files)), labels.astype(np.int64)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png" and path.is_file())


def _read_each(paths: list[Path]) -> list[Images]:
    """Read gray PNG files of 28×28 pixels: (28, 28, 1) uint8 each."""
    images = []
    for path in paths:
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                if picture.mode != "L" or picture.size != (28, 28):
                    raise DataError(
                        f"{path}: {picture.width}×{picture.height} pixels, mode {picture.mode}; expected 28×28 pixels, "
                        "gray (mode L): convert the file first"
                    )
                images.append(np.asarray(picture)[..., np.newaxis])
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path}: not a readable PNG file: {error}") from error
    return images

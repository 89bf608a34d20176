"""Folders of pictures: one folder per class, optionally below ``train`` and ``test``."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from digitforge_client.common.class_folders import class_name_of
from digitforge_client.errors import DataError
from digitforge_training.data.raw import Picture, Raw, sorted_classes

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
FORMATS: Final = ("PNG", "JPEG", "WEBP")
#: Folders that hold a split if they hold folders, and a class if they hold pictures.
_SPLIT_FOLDERS: Final = ("train", "test", "val", "valid", "validation")
#: What to do about a picture whose values are not 0 to 255. Pixel ranges are never guessed.
_ADVICE: Final = {
    "I;16": "it has 16 bits per pixel; scale it: if the range is 0 to 65535, "
    "Image.fromarray((np.asarray(picture) / 257).round().astype('uint8')); convert('L') would turn every value above "
    "255 into white",
    "F": "it has floating-point pixels; scale them to 0 to 255 and save them as 8-bit gray",
    "alpha": "it is partly transparent; put it on a background first, for example "
    "Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture.convert('RGBA')).convert('RGB')",
    "CMYK": "it has the colors of a printer; convert it with picture.convert('RGB')",
}


def read_pictures(folder: Path, *, split: str) -> Raw:
    """Read one split of a folder of ``CLASS/*.png``, or all images if there is no folder ``test``.

    Pictures without class folders have no labels. Hidden folders and ``__MACOSX`` are skipped, and so are folders for
    validation. Classes are sorted by number if all names are numbers, else by name.

    Raises:
        DataError: there are no pictures, a class has none, or the test split has a class that the training split lacks.
    """
    train = folder / "train" if _is_split(folder / "train") else folder
    divided = train != folder and _is_split(folder / "test")
    plain = _pictures(folder)
    if plain and not any(_pictures(each) for each in _folders(train)):
        return Raw(
            where=str(folder),
            images=[picture_at(path) for path in plain],
            labels=None,
            training_labels=None,
            divided=False,
        )
    training = _class_folders(train)
    test = _class_folders(folder / "test") if divided else {}
    wanted = test if divided and split == "test" else training
    if surplus := sorted(set(test) - set(training)):
        raise DataError(
            f"{test[surplus[0]]}: {train} has no folder of this class; expected the same classes in train and test"
        )
    paths = {name: _pictures(wanted[name]) for name in sorted_classes(set(wanted))}
    for name, found in paths.items():
        if not found:
            raise DataError(
                f"{wanted[name]}: no pictures found; expected {', '.join(SUFFIXES)}; add pictures of this class, or "
                "remove the folder"
            )
    return Raw(
        where=str(folder / split if divided else train),
        images=[picture_at(path) for found in paths.values() for path in found],
        labels=np.repeat(list(paths), [len(found) for found in paths.values()]),
        training_labels=np.array(sorted_classes(set(training))),
        divided=divided,
    )


def _is_split(folder: Path) -> bool:
    return folder.is_dir() and not _pictures(folder) and bool(_folders(folder))


def _folders(parent: Path) -> list[Path]:
    return [
        path
        for path in sorted(parent.iterdir())
        if path.is_dir() and not path.name.startswith(".") and path.name != "__MACOSX"
    ]


def _class_folders(parent: Path) -> dict[str, Path]:
    """Class name => folder."""
    found = {
        class_name_of(path.name): path
        for path in _folders(parent)
        if path.name not in _SPLIT_FOLDERS or _pictures(path)
    }
    if not found:
        raise DataError(
            f"{parent}: no images found; expected one folder of {', '.join(SUFFIXES)} files per class, four IDX files, "
            "or .parquet files"
        )
    return found


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def picture_at(path: Path) -> Picture:
    """The picture in a file."""
    return Picture(where=str(path), read=functools.partial(_read, path, str(path)))


def picture_in(content: bytes, where: str) -> Picture:
    """The picture in the content of a file."""
    return Picture(where=where, read=lambda: _read(io.BytesIO(content), where))


def _read(file: Path | io.BytesIO, where: str) -> Image.Image:
    """Read a picture in the mode L or RGB, upright.

    Raises:
        DataError: the file is no picture, or its pixels cannot become 0 to 255 without a decision of the user.
    """
    try:
        with Image.open(file, formats=FORMATS) as picture:
            picture.load()
            return _eight_bits(ImageOps.exif_transpose(picture), where)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where}: not a readable PNG, JPEG or WebP file: {error}") from error


def _eight_bits(picture: Image.Image, where: str) -> Image.Image:
    """The same pixels in the mode L or RGB."""
    mode = picture.mode
    if mode == "P":  # a palette; each entry is a color
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    elif mode in ("LA", "La", "PA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode == "RGBA":
        if picture.getchannel("A").getextrema() != (255, 255):
            raise DataError(f"{where}: the picture's mode is {mode}; expected L (gray) or RGB; {_ADVICE['alpha']}")
        return picture.convert("L" if mode in ("L", "LA", "La") else "RGB")
    if picture.mode == "1":
        return picture.convert("L")
    if picture.mode in ("L", "RGB"):
        return picture
    kind = "I;16" if picture.mode.startswith("I") else picture.mode
    advice = _ADVICE.get(kind, "convert it to one of them first")
    raise DataError(f"{where}: the picture's mode is {mode}; expected L (gray) or RGB, 8 bits each; {advice}")

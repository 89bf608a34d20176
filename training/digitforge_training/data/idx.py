"""The IDX format of MNIST and similar data sets: four files, gzipped or not.

An IDX file has two zero bytes, one byte for the type (8 means unsigned byte), one byte for the number of
dimensions, one big-endian uint32 per dimension, and the values in C order. Images are unsigned bytes. Labels may also
be signed integers, as in QMNIST, whose labels are (n, 8): the class is the first of eight numbers.

A file beside them, with the same prefix, may name the labels: ``class-names.json``, a list of the names of the labels
0, 1 …, or EMNIST's ``mapping.txt``, which has a line for each class: its number and the code points of its characters.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common import archives
from digitforge_client.errors import DataError
from digitforge_training.data.dataset import SPLITS
from digitforge_training.data.raw import Raw

#: NumPy's types, big-endian.
TYPES: Final = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC: Final = b"\x1f\x8b"

#: ``train-images-idx3-ubyte``, ``emnist-letters-test-labels-idx1-ubyte.gz``, ``t10k-images.idx3-ubyte`` …
FILE_NAME: Final = re.compile(
    r"(?P<prefix>.*?)(?P<split>train|test|t10k)-(?P<kind>images|labels)[-.]idx[1-4]-(ubyte|int)(\.gz)?"
)
CLASS_NAMES: Final = "class-names.json"
MAPPING: Final = "mapping.txt"


@dataclass(frozen=True, kw_only=True)
class IdxFiles:
    """The four files of one data set."""

    name: str  #: The prefix of the file names, without the hyphen. May be empty.
    images: dict[str, Path]  #: Split => image file.
    labels: dict[str, Path]  #: Split => label file.


def unpack(content: bytes, where: str, *, most: int | None = None) -> bytes:
    """Decompress *content* if it is a gzip file. Other content is returned unchanged.

    Args:
        content: the file.
        where: the file to name in an error.
        most: number of bytes that the result may have. None: as many as `archives.limit` allows.

    Raises:
        DataError: the gzip file is damaged, truncated or too large.
    """
    if most is None:
        most = archives.limit(len(content))
    try:
        unpacked = archives.gunzip(content, most) if content.startswith(GZIP_MAGIC) else content
    except DataError as error:
        raise DataError(f"{where}: {error}; download it again") from error
    if len(unpacked) > most:
        raise DataError(f"{where}: the file has more than {most} bytes after decompression; download it again")
    return unpacked


def parse(content: bytes, where: str) -> npt.NDArray[np.integer]:
    """Parse an uncompressed IDX file of integers.

    Args:
        content: the whole file.
        where: the file to name in an error.

    Returns:
        An array of the shape and type that the header gives.

    Raises:
        DataError: the content is not an IDX file of integers, or is shorter or longer than its header says.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise DataError(
            f"{where}: not an IDX file: the first bytes are {content[:4].hex(' ') or '(none)'}; expected 00 00 08 01 "
            "(labels) or 00 00 08 03 (images)"
        )
    if content[2] not in TYPES:
        raise DataError(
            f"{where}: the values are of the unknown type {content[2]:#04x}; expected unsigned bytes (0x08)"
        )
    dtype = np.dtype(TYPES[content[2]])
    if dtype.kind == "f":
        raise DataError(f"{where}: the values are {dtype.name}; expected unsigned bytes (type 0x08)")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{where}: truncated in the header after {len(content)} bytes; download it again")
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], dtype=">u4"))
    size = math.prod(shape) * dtype.itemsize
    if len(content) - start != size:
        what = "truncated" if len(content) - start < size else "too long"
        raise DataError(
            f"{where}: {what}: the header announces {math.prod(shape)} values ({' × '.join(map(str, shape))}), "
            f"but {(len(content) - start) / dtype.itemsize:g} follow; download it again"
        )
    if dimensions > 4:
        raise DataError(f"{where}: {dimensions} dimensions; expected 1 (labels), 3 or 4 (images)")
    return np.frombuffer(content, dtype=dtype, offset=start).reshape(shape)


def read_bytes(path: Path) -> bytes:
    """Read a file, and decompress it if it is gzipped.

    Raises:
        DataError: the file cannot be read, or is a damaged gzip file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return unpack(content, str(path))


def found_sets(folder: Path) -> dict[str, dict[tuple[str, str], Path]]:
    """List the IDX files in *folder*: data set name ("" without a prefix) => (images or labels, split) => file."""
    found: dict[str, dict[tuple[str, str], Path]] = {}
    for path in sorted(folder.iterdir(), reverse=True):  # an unpacked file comes after its .gz and replaces it
        match = FILE_NAME.fullmatch(path.name)
        if match and path.is_file():
            split = "train" if match["split"] == "train" else "test"
            found.setdefault(match["prefix"].rstrip("-_."), {})[match["kind"], split] = path
    return found


def find(folder: Path, name: str = "") -> IdxFiles:
    """Find the four files of one data set in *folder*.

    Args:
        folder: where to look.
        name: the prefix of the four file names, without the hyphen. Only needed if the folder holds several data sets.

    Raises:
        DataError: a file is missing, or the folder holds several data sets and *name* names none of them.
    """
    found = found_sets(folder)
    if not name and len(found) == 1:
        name = next(iter(found))
    if not found:
        raise DataError(
            f"{folder}: no IDX files found; expected *train-images-idx3-ubyte, *train-labels-idx1-ubyte, "
            "*t10k-images-idx3-ubyte and *t10k-labels-idx1-ubyte, gzipped or not"
        )
    if name not in found:
        choices = ", ".join(str(folder / each) for each in sorted(found))
        raise DataError(f"{folder / name}: {folder} holds {len(found)} data set(s); choose one of them: {choices}")
    files = found[name]
    missing = [f"{split} {kind}" for split in SPLITS for kind in ("images", "labels") if (kind, split) not in files]
    if missing:
        raise DataError(f"{folder}: no IDX file with the {' or the '.join(missing)}; add it")
    return IdxFiles(
        name=name,
        images={split: files["images", split] for split in SPLITS},
        labels={split: files["labels", split] for split in SPLITS},
    )


def read_idx(folder: Path, name: str = "", *, split: str) -> Raw:
    """Read one split of the IDX files in *folder*. See `find` for *name*.

    Raises:
        DataError: a file is missing or damaged, or does not hold what its name says.
    """
    files = find(folder, name)
    training_labels = read_labels(files.labels["train"])
    return Raw(
        where=str(files.images[split]),
        images=read_images(files.images[split]),
        labels=read_labels(files.labels[split]),
        training_labels=training_labels,
        divided=True,
        class_names=_read_class_names(files.images["train"]),
    )


def read_whole_set(folder: Path, name: str = "") -> Raw:
    """Read all images of one data set, even if one of the two splits, or all labels are missing. See `find` for *name*.

    Raises:
        DataError: there are no images, a file is damaged, or only some images have labels.
    """
    found = found_sets(folder)
    name = next(iter(found)) if not name and len(found) == 1 else name
    files = found.get(name, {})
    images = {split: read_images(files["images", split]) for split in SPLITS if ("images", split) in files}
    labels = {split: read_labels(files["labels", split]) for split in SPLITS if ("labels", split) in files}
    if not images:
        choices = ", ".join(str(folder / each) for each in sorted(found)) or "no IDX files"
        raise DataError(f"{folder / name}: no IDX file with images; found: {choices}")
    if len({part.shape[1:] for part in images.values()}) > 1 or (labels and labels.keys() != images.keys()):
        raise DataError(
            f"{folder}: the IDX files of both splits differ in the size of the images, or one lacks labels; give a "
            "folder with one split"
        )
    joined = np.concatenate(list(labels.values())) if labels else None
    return Raw(
        where=str(folder),
        images=np.concatenate(list(images.values())),
        labels=joined,
        training_labels=joined,
        divided=False,
        class_names=_read_class_names(next(iter(files.values()))),
    )


def _read_class_names(idx_file: Path) -> tuple[str, ...] | None:
    """The names of the labels 0, 1 …, from a file beside *idx_file*. None if there is no such file."""
    match = FILE_NAME.fullmatch(idx_file.name)
    prefix = match["prefix"] if match else ""
    for name, read, expected in (
        (CLASS_NAMES, _listed_names, "a JSON list of class names"),
        (
            MAPPING,
            _mapped_names,
            "lines with a class number from 0 to 255 and the code points of its characters: 10 65",
        ),
    ):
        path = idx_file.with_name(prefix + name)
        if path.exists():
            try:
                return read(path.read_text("utf-8-sig"))
            except (OSError, ValueError, OverflowError) as error:
                raise DataError(
                    f"{path}: no class names ({error}); expected {expected}; repair or remove it"
                ) from error
    return None


def _listed_names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("it is another JSON value")
    return tuple(names)


def _mapped_names(text: str) -> tuple[str, ...]:
    """The characters of each class. A number without a line, such as 0 in EMNIST letters, is its own name."""
    names: dict[int, str] = {}
    for line in filter(str.strip, text.splitlines()):
        number, *code_points = map(int, line.split())
        if number in names or not 0 <= number <= 255 or not code_points:
            raise ValueError(f"the line {line[:40]!r} is wrong, or repeats a number")
        names[number] = "".join(map(chr, code_points))
    if not names:
        raise ValueError("it is empty")
    return tuple(names.get(number, str(number)) for number in range(max(names) + 1))


def read_images(path: Path) -> npt.NDArray[np.integer]:
    """Read the images of an IDX file: (n, H, W) or (n, H, W, C) uint8.

    Raises:
        DataError: the file is damaged or does not hold images.
    """
    images = parse(read_bytes(path), str(path))
    if images.ndim not in (3, 4):
        raise DataError(
            f"{path}: the file name says images, but the array has {images.ndim} dimension(s) like labels; "
            "expected 3 or 4; check whether two files were swapped"
        )
    return images


def read_labels(path: Path) -> npt.NDArray[np.integer]:
    """Read the labels of an IDX file: (n,) integers.

    Raises:
        DataError: the file is damaged or does not hold labels.
    """
    labels = parse(read_bytes(path), str(path))
    if labels.ndim == 2 and labels.dtype.itemsize > 1 and labels.shape[1]:  # QMNIST
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{path}: the file name says labels, but the array has {labels.ndim} dimensions like images; "
            "expected 1; check whether two files were swapped"
        )
    return labels

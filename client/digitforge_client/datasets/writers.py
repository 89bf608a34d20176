"""Writes digits to files.

A writer is a context manager. It provides a function that takes batches, and it completes the files at the end. It
raises its errors at the start where it can, so that nobody waits for digits that cannot be saved.

Formats:

* ``npz``: a file with ``x`` (n, H, W) uint8, ``y`` and ``seeds`` (n,) int64, ``class_names`` (K,), ``generator_id``,
  and ``truncation``, ``expansion`` or ``class_weights`` if given
* ``png``: a file with one picture of all digits, row by row
* ``idx``: a new folder with ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, like MNIST's training set, and
  ``class-names.json`` with a list of names if the classes are not called 0, 1 …
* ``files``: a new folder with ``CLASS/ROW-SEED.png``, where CLASS is the name of the class; see `class_folder`
* ``npy``: a file with two NumPy arrays, one after the other: images and labels
* ``tfrecord``: a file with one ``tf.train.Example`` per digit, see `tfrecord`. It needs the extra ``tfrecord``.
* ``parquet``: a file with a table of ``image`` (PNG), ``label`` and ``seed``, as on Hugging Face, see `parquet`. It
  needs the extra ``parquet``.

The file ``-`` is standard output. An existing file is replaced; an existing folder is an error.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from digitforge_client import pictures
from digitforge_client.batch import Batch
from digitforge_client.common.class_folders import class_folder
from digitforge_client.common.extras import needs_extra
from digitforge_client.common.files import new_folder, replacing, standard_output
from digitforge_client.errors import InvalidInputError

#: Digits of the largest picture: 100 × 100.
GRID_DIGITS: Final = 10_000
#: Digits of the largest archive. An archive is built in memory.
ARCHIVE_DIGITS: Final = 1_000_000
STANDARD_OUTPUT: Final = "-"
#: Formats that make a folder.
FOLDERS: Final = ("idx", "files")
#: Format => the library that it needs. The extra has the name of the format.
_LIBRARIES: Final = {"parquet": "pyarrow", "tfrecord": "google_crc32c"}

Add = Callable[[Batch], None]
Writer = Callable[[Path, int], AbstractContextManager[Add]]


@contextmanager
def _output(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write, or standard output for ``-``.

    Raises:
        InvalidInputError: it is a terminal.
    """
    with standard_output() if str(path) == STANDARD_OUTPUT else replacing(path) as file:
        if file.isatty():
            raise InvalidInputError(
                f"{path} is a terminal, and images are not text; redirect the output, as in `--out - > digits.npy`, or "
                "name a file"
            )
        yield file


@contextmanager
def npz(path: Path, n: int) -> Iterator[Add]:
    """Write a NumPy archive."""
    if n > ARCHIVE_DIGITS:
        raise InvalidInputError(
            f"{n} images are too many for one .npz archive; expected at most {ARCHIVE_DIGITS}, because it is built in "
            "memory: write several archives with --start, or choose another format, such as idx"
        )
    batches: list[Batch] = []
    with _output(path) as file:
        yield batches.append
        about: dict[str, Any] = {name: np.array(value) for name, value in batches[-1].scaling.items()}
        weights: list[Any] = [batch.class_weights for batch in batches]
        if weights[0] is not None:
            about["class_weights"] = np.concatenate(weights)
        if batches[-1].class_names:
            about["class_names"] = np.array(batches[-1].class_names)
        np.savez_compressed(
            file,
            x=np.concatenate([batch.images for batch in batches]),
            y=np.concatenate([batch.labels for batch in batches]),
            seeds=np.concatenate([batch.seeds for batch in batches]),
            generator_id=np.array(batches[-1].generator_id),
            **about,
        )


@contextmanager
def png(path: Path, n: int) -> Iterator[Add]:
    """Write one picture of all digits, about as wide as high; see `pictures.grid`."""
    if n > GRID_DIGITS:
        raise InvalidInputError(
            f"{n} images are too many for one picture; expected at most {GRID_DIGITS}: write an .npz archive instead"
        )
    batches: list[Batch] = []
    with _output(path) as file:
        yield batches.append
        file.write(pictures.png(pictures.grid(np.concatenate([batch.images for batch in batches]))))


@contextmanager
def idx(path: Path, n: int) -> Iterator[Add]:
    """Write the two files of MNIST's training set. Most loaders need the two files of a real test set beside them."""
    with (
        new_folder(path) as folder,
        (folder / "train-images-idx3-ubyte").open("wb") as images,
        (folder / "train-labels-idx1-ubyte").open("wb") as labels,
    ):
        labels.write(_idx_header(n))

        def add(batch: Batch) -> None:
            low, high = batch.labels.min(initial=0), batch.labels.max(initial=0)
            if batch.images.ndim != 3 or low < 0 or high > 255:
                raise InvalidInputError(
                    f"the images have the shape {batch.images.shape[1:]} and labels from {low} to {high}; IDX "
                    "files only hold gray images with labels from 0 to 255: write an .npz archive instead"
                )
            if images.tell() == 0:
                if list(batch.class_names) != [str(number) for number in range(len(batch.class_names))]:
                    (folder / "class-names.json").write_text(json.dumps(batch.class_names), encoding="utf-8")
                images.write(_idx_header(n, *batch.images.shape[1:]))
            images.write(batch.images.tobytes())
            labels.write(batch.labels.astype(np.uint8).tobytes())

        yield add


@contextmanager
def files(path: Path, n: int) -> Iterator[Add]:  # noqa: ARG001 - all writers have this parameter
    """Write one PNG file per digit, in one folder per class. The folders have the names of the classes."""
    with new_folder(path) as folder:

        def add(batch: Batch) -> None:
            for image, label, seed in zip(batch.images, batch.labels, batch.seeds, strict=True):
                name = class_folder(batch.class_names[label] if batch.class_names else str(label))
                parent = folder / name if label >= 0 else folder
                parent.mkdir(exist_ok=True)
                _image(image).save(parent / f"{seed}.png")

        yield add


@contextmanager
def npy(path: Path, n: int) -> Iterator[Add]:
    """Write two arrays, for a pipe.

    Read them with two calls of ``np.load`` on ``io.BytesIO(sys.stdin.buffer.read())``.
    """
    labels: list[npt.NDArray[np.int64]] = []
    with _output(path) as file:

        def add(batch: Batch) -> None:
            if not labels:
                header = {"descr": "|u1", "fortran_order": False, "shape": (n, *batch.images.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(batch.images.tobytes())
            labels.append(batch.labels)

        yield add
        np.save(file, np.concatenate(labels))


@contextmanager
def tfrecord(path: Path, n: int) -> Iterator[Add]:  # noqa: ARG001 - all writers have this parameter
    """Write a TFRecord file for ``tf.data.TFRecordDataset``."""
    check_library("tfrecord")
    from digitforge_client.datasets.tfrecord import examples, frames

    with _output(path) as file:

        def add(batch: Batch) -> None:
            file.write(frames(examples(batch)))

        yield add


@contextmanager
def parquet(path: Path, n: int) -> Iterator[Add]:  # noqa: ARG001 - all writers have this parameter
    """Write a Parquet file for ``datasets.load_dataset``; see the module `parquet`."""
    check_library("parquet")
    from digitforge_client.datasets.parquet import Writer as ParquetWriter

    with _output(path) as file:
        writer = ParquetWriter(file)
        yield writer.add
        writer.close()


def check_library(form: str) -> None:
    """Check that the library of a format is installed. Most formats need no library.

    Raises:
        MissingExtraError: the library is not installed.
    """
    with needs_extra(form, f"the format {form}"):
        if form in _LIBRARIES:
            importlib.import_module(_LIBRARIES[form])


WRITERS: Final[dict[str, Writer]] = {
    "npz": npz,
    "png": png,
    "idx": idx,
    "files": files,
    "npy": npy,
    "tfrecord": tfrecord,
    "parquet": parquet,
}


def writer_for(path: Path, form: str | None = None) -> Writer:
    """Return the writer for a format. If *form* is None, the suffix of the file name decides.

    Raises:
        InvalidInputError: the format or the suffix is unknown, or standard output cannot have this format.
    """
    if form is None:
        form = "npy" if str(path) == STANDARD_OUTPUT else path.suffix.lower().removeprefix(".")
    if form not in WRITERS:
        raise InvalidInputError(
            f"the format of {path} is unknown; use a file name that ends in .npz, .png, .tfrecord or .parquet, use "
            f"- for standard output, or choose a format with --format: {', '.join(WRITERS)}"
        )
    if str(path) == STANDARD_OUTPUT and form in FOLDERS:
        raise InvalidInputError(f"the format {form} makes a folder, not standard output; name a new folder")
    return WRITERS[form]


def save(batch: Batch, path: Path) -> None:
    """Write one batch to a file; see `Batch.save`."""
    writer = writer_for(path)
    if not len(batch):
        raise InvalidInputError("the batch is empty, so there is nothing to write")
    if batch.class_weights is not None and writer in (tfrecord, parquet):
        raise InvalidInputError(
            f"the images are blends of classes, and {path.suffix} files cannot hold class weights; write "
            "an .npz archive"
        )
    with writer(path, len(batch)) as add:
        add(batch)


def _image(pixels: npt.NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def _idx_header(*sizes: int) -> bytes:
    """The header of an IDX file: magic number (unsigned bytes, number of dimensions) and sizes, big-endian."""
    return bytes([0, 0, 8, len(sizes)]) + np.array(sizes, dtype=">u4").tobytes()

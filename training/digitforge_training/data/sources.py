"""Loads a data set by the name of its source. All commands read their images here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import idx
from digitforge_training.data.archive import read_archive
from digitforge_training.data.dataset import SPLITS, Dataset, DataSource
from digitforge_training.data.digits import read_digits
from digitforge_training.data.fitting import Channels, Fit, Fitting
from digitforge_training.data.mnist import read_mnist
from digitforge_training.data.pictures import read_pictures
from digitforge_training.data.raw import Raw, class_names_of, datasets_of, fitted_images, names_of, without_labels
from digitforge_training.data.tables import parquet_files, read_csv, read_parquet

#: Sources that are not a path.
NAMED: Final = ("mnist", "digits")
EXPECTED: Final = (
    "expected mnist, digits, a folder of CLASS/*.png (also .jpg and .webp), a folder with the four IDX files, or an "
    ".npz, .csv or .parquet file"
)


def load(
    source: str | Path | DataSource,
    *,
    split: Literal["train", "test"] = "train",
    data_dir: str | Path | None = None,
    size: int | None = None,
    fit: Fit | None = None,
    channels: Channels | None = None,
    transpose: bool | None = None,
    test_share: float | None = None,
    need_labels: bool = True,
) -> Dataset:
    """Load one split of a data set.

    ::

        data = digitforge.load_data("digits")
        data.images, data.labels  # (1438, 28, 28, 1) uint8 and (1438,) int64
        photos = digitforge.load_data("photos", size=32, fit="crop")

    Args:
        source: one of

            * ``mnist``: from *data_dir* or DIGITFORGE_DATA_DIR, else from the cache, else downloaded. Always verified.
            * ``digits``: the 1 797 digits that scikit-learn ships, enlarged to 28 × 28. Needs no download.
            * a folder with the four IDX files, gzipped or not, with any prefix (Fashion-MNIST, KMNIST, EMNIST, QMNIST
              …). If the folder holds several data sets, add the prefix: ``emnist/emnist-letters``.
            * a folder of ``CLASS/*.png``, ``.jpg`` or ``.webp``, optionally below ``train`` and ``test``.
            * an ``.npz`` file with ``x`` and ``y`` (optionally ``x_test`` and ``y_test``), ``images`` and ``labels``,
              ``x_train`` … ``y_test``, or ``arr_0`` and ``arr_1``. ``class_names`` names the labels 0, 1 …
            * a ``.csv`` file with the columns ``label``, ``pixel0``, ``pixel1`` …
            * a ``.parquet`` file with ``image`` and ``label``, or a folder of ``train-….parquet`` and
              ``test-….parquet``. It needs the extra ``parquet``.

            Pixels must be uint8, with 1 or 3 channels. Without *size*, images must be squares of 16 to 64 pixels.
            Labels are integers or names, and become 0 to K − 1, where the training split defines the K classes. A
            source without test images is split by `raw.split_indices`.
        split: ``train`` or ``test``.
        data_dir: the folder with MNIST's files. Other sources ignore it.
        size: resize images to squares of this many pixels, 16 to 64. None leaves them.
        fit: how images that are not square become so: ``crop`` (the default), ``pad`` or ``stretch``.
        channels: ``gray`` or ``rgb``; None leaves the images as they are.
        transpose: swap rows and columns of every image, as EMNIST needs.
        test_share: share of the images, between 0 and 1, that become test images if the source has none. None: a fifth.
        need_labels: if False, images without labels become a single class. Labels that exist are read all the same.

    Raises:
        InvalidInputError: an argument has a value that is not allowed, or *test_share* is given for a source that has
            test images.
        DataError: the data cannot be found or read, or fail a check. The message names the file.
        MissingExtraError: pyarrow is not installed, which reads Parquet.
    """
    if split not in SPLITS:
        raise InvalidInputError(f"split is {split!r}; expected {' or '.join(SPLITS)}")
    given = source_of(
        source,
        data_dir=data_dir,
        size=size,
        fit=fit,
        channels=channels,
        transpose=transpose,
        test_share=test_share,
    )
    raw = _read(given, split)
    if not need_labels:
        raw = without_labels(raw)
    return datasets_of(raw, given, name=name_of(given), split=split)[split]


def source_of(source: str | Path | DataSource, **options: Any) -> DataSource:
    """Make a `DataSource`. Paths become absolute. Options that are None keep the value of *source*, or the default.

    Raises:
        InvalidInputError: an option has a value that is not allowed.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(source, DataSource):
        source = DataSource(source=str(source))
    source = replace(source, **given)
    named = source.source in NAMED
    data_dir = source.data_dir if source.source == "mnist" else None
    return replace(
        source,
        source=source.source if named else _absolute(source.source),
        data_dir=None if data_dir is None else _absolute(data_dir),
    )


#: Names of the options that say how images are read, besides the source and its folder.
OPTIONS: Final = (*(field.name for field in fields(Fitting)), "test_share")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A data set as a user chose it, perhaps incompletely."""

    source: str | None  #: see `load`; None if the user named none
    options: Mapping[str, Any]  #: arguments of `load` that the user gave

    def over(self, remembered: DataSource | None = None) -> DataSource | None:
        """The chosen data set. What the user did not give comes from *remembered*. None if there is no source at all.

        Raises:
            InvalidInputError: an option has a value that is not allowed.
        """
        if self.source is not None:
            return source_of(self.source, **self.options)
        return None if remembered is None else source_of(remembered, **self.options)

    def over_fitting(self, fitting: Fitting) -> DataSource | None:
        """The chosen data set. Where the user gave no option, images are fitted like *fitting*."""
        chosen = self.over()
        return None if chosen is None else source_of(chosen, **{**fitting.as_dict(), **self.options})


def name_of(source: DataSource) -> str:
    """The name of a data set: that of the file, of the folder, or the prefix of its IDX files."""
    path = Path(source.source)
    if source.source in NAMED or not path.is_dir():
        return path.stem if path.is_file() else path.name
    prefixes = list(idx.found_sets(path))
    return prefixes[0] if len(prefixes) == 1 and prefixes[0] else path.resolve().name


def _absolute(path: str | Path) -> str:
    return str(Path(path).expanduser().absolute()) if str(path) else ""


def load_splits(source: str | Path | DataSource | tuple[Dataset, Dataset], **options: Any) -> tuple[Dataset, Dataset]:
    """Load the training and the test split of a source. A pair of data sets is returned unchanged.

    Args:
        source: see `load`, or a pair.
        **options: see `load`.

    Raises:
        DataError: the data cannot be found or read, or fail a check. The message names the file.
    """
    if isinstance(source, tuple):
        return source
    given = source_of(source, **options)
    name = name_of(given)
    found = datasets_of(_read(given, "train"), given, name=name, split="train")
    if "test" not in found:
        found |= datasets_of(_read(given, "test"), given, name=name, split="test")
    return found["train"], found["test"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Images from files, with or without labels."""

    images: npt.NDArray[np.uint8]  #: (n, H, W, C)
    labels: npt.NDArray[np.int64] | None  #: (n,) indices into `class_names`; None for images without labels
    class_names: tuple[str, ...]  #: the classes that occur; empty without labels
    named: bool  #: whether the source names its classes; else the names are numbers


def load_images(source: str | Path | DataSource, **options: Any) -> Images:
    """Load all images of a source, of both splits, with or without labels.

    Args:
        source: see `load`. A folder of pictures may also have no folders for classes.
        **options: see `load`.

    Raises:
        DataError: the images cannot be found or read, or fail a check. The message names the file.
    """
    given = source_of(source, **options)
    path = Path(given.source)
    raws = [_whole_idx(path)] if given.source not in NAMED and _is_idx(path) else [_read(given, "train")]
    if raws[0].divided:
        raws.append(_read(given, "test"))
    images = np.concatenate([fitted_images(raw, given, hashed=False)[0] for raw in raws])
    labels: npt.NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    if all(raw.labels is not None for raw in raws):
        names = np.concatenate(
            [names_of(raw.labels, raw.class_names, raw.where) for raw in raws if raw.labels is not None]
        )
        if len(names) != len(images):
            raise DataError(
                f"{raws[0].where}: {len(images)} images but {len(names)} labels; expected one label for each"
            )
        if len(names):
            class_names = class_names_of(names, None, raws[0].where)
            order = np.argsort(np.asarray(class_names))
            labels = order[np.searchsorted(np.asarray(class_names)[order], names)].astype(np.int64)
    return Images(
        images=images,
        labels=labels,
        class_names=class_names,
        named=any(raw.class_names is not None for raw in raws) or not _numbered(class_names),
    )


def _numbered(names: Iterable[str]) -> bool:
    return all(name.isascii() and name.isdigit() for name in names)


def _is_idx(path: Path) -> bool:
    return bool(path.is_dir() and idx.found_sets(path)) or _names_idx_set(path)


def _names_idx_set(path: Path) -> bool:
    return not path.exists() and path.parent.is_dir() and path.name in idx.found_sets(path.parent)


def _whole_idx(path: Path) -> Raw:
    return idx.read_whole_set(path) if path.is_dir() else idx.read_whole_set(path.parent, path.name)


def _read(source: DataSource, split: str) -> Raw:
    if source.source == "mnist":
        return read_mnist(split=split, data_dir=None if source.data_dir is None else Path(source.data_dir))
    if source.source == "digits":
        return read_digits()
    path = Path(source.source)
    try:
        if source.source and path.is_dir():
            return _read_folder(path, split)
        if path.is_file():
            return _read_file(path, split)
        if source.source and _names_idx_set(path):
            return idx.read_idx(path.parent, path.name, split=split)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    raise DataError(f"{source.source!r}: no such file or folder, and no known data set; {EXPECTED}")


def _read_folder(path: Path, split: str) -> Raw:
    if idx.found_sets(path):
        return idx.read_idx(path, split=split)
    return read_parquet(path, split=split) if parquet_files(path) else read_pictures(path, split=split)


def _read_file(path: Path, split: str) -> Raw:
    if path.suffix.lower() == ".csv":
        return read_csv(path)
    return read_parquet(path, split=split) if path.suffix.lower() == ".parquet" else read_archive(path, split=split)

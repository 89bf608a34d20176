"""Tables of images: CSV as on Kaggle (``label,pixel0,…``), and Parquet as on Hugging Face (``image``, ``label``)."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.extras import needs_extra
from digitforge_client.errors import DataError
from digitforge_training.data.pictures import picture_in
from digitforge_training.data.raw import Picture, Raw

#: Longest label in a CSV file. NumPy needs to know it.
_LABEL_CHARACTERS: Final = 100
_LABEL: Final = "label"
_IMAGE: Final = ("image", "img")  # CIFAR-10 says img


def read_csv(path: Path) -> Raw:
    """Read a CSV file: a header, one column ``label``, and one column per pixel of gray squares, row by row.

    Raises:
        DataError: the file cannot be read, has no header, or a pixel is not an integer from 0 to 255.
    """
    where = str(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            columns = [name.strip() for name in next(csv.reader([file.readline()]), [])]
            if not columns or all(_is_number(name) for name in columns):
                raise DataError(
                    f"{where}: the first line has no names of columns; expected label,pixel0,pixel1 …; add this line"
                )
            place = next((i for i, name in enumerate(columns) if name.lower() == _LABEL), None)
            if place is None and not columns[0].lower().startswith("pixel"):
                raise DataError(
                    f"{where}: the columns are {', '.join(columns[:3])} …; expected one that is called label, and one "
                    "per pixel; rename the column with the classes"
                )
            pixels = [i for i in range(len(columns)) if i != place]
            fields: list[Any] = [("pixels", np.uint8, (len(pixels),))]
            if place is not None:
                fields.insert(0, (_LABEL, f"U{_LABEL_CHARACTERS}"))
            rows = np.loadtxt(
                file,
                dtype=fields,
                delimiter=",",
                quotechar='"',
                usecols=pixels if place is None else [place, *pixels],
                ndmin=1,
                comments=None,
            )
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text ({error}); save it as UTF-8") from error
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{where}: {reason}; expected one label and integers from 0 to 255 in every row") from error
    labels = None if place is None else np.char.strip(rows[_LABEL])
    return Raw(where=where, images=rows["pixels"], labels=labels, training_labels=labels, divided=False)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files in a folder: split => files, ``train-00000-of-00002.parquet`` …; "" for other names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        start = path.name.partition(".")[0].partition("-")[0]
        if start not in ("val", "valid", "validation"):
            found.setdefault(start if start in ("train", "test") else "", []).append(path)
    return found


def read_parquet(path: Path, *, split: str) -> Raw:
    """Read one split of a Parquet file or of a folder of such files, or all images if there are no test files.

    ``image`` holds PNG, JPEG or WebP files, as Hugging Face writes them, or pixels, as digitforge 0.2.0 wrote them.
    ``label`` holds integers or names.

    Raises:
        DataError: a file cannot be read or has other columns.
        MissingExtraError: pyarrow is not installed.
    """
    with needs_extra("parquet", "reading Parquet files"):
        import pyarrow as arrow
        from pyarrow import parquet
    files = parquet_files(path) if path.is_dir() else {"": [path]}
    divided = {"train", "test"} <= files.keys()
    training = files.get("train") or files.get("") or files["test"]
    wanted = files[split] if divided else training

    def table_of(paths: Sequence[Path], columns: list[str] | None) -> Any:
        try:
            return arrow.concat_tables(parquet.read_table(each, columns=columns) for each in paths)
        except (arrow.ArrowException, OSError) as error:
            raise DataError(f"{paths[0]}: not a readable Parquet file: {error}") from error

    where = str(wanted[0])
    table = table_of(wanted, None)
    image = next((name for name in _IMAGE if name in table.column_names), None)
    if image is None:
        raise DataError(
            f"{where}: the columns are {', '.join(table.column_names)}; expected image and label; rename the columns"
        )
    about = {key.decode(errors="replace"): value for key, value in (table.schema.metadata or {}).items()}
    labels = _labels(table, where)
    return Raw(
        where=where,
        images=_images(table[image], about, where),
        labels=labels,
        training_labels=_labels(table_of(training, [_LABEL]), str(training[0]))
        if divided and labels is not None
        else labels,
        divided=divided,
        class_names=_class_names(about),
    )


def _labels(table: Any, where: str) -> npt.NDArray[Any] | None:
    if _LABEL not in table.column_names:
        return None
    values = table[_LABEL].to_pylist()
    if None in values:
        raise DataError(f"{where}: row {values.index(None)} has no label; remove rows without a label")
    labels = np.array(values)
    return None if labels.dtype.kind == "i" and len(labels) and np.all(labels == -1) else labels


def _images(column: Any, about: dict[str, bytes], where: str) -> npt.NDArray[np.uint8] | list[Picture]:
    values = column.to_pylist()
    shape = _json(about, "digitforge").get("image_shape")
    if shape is not None and values and isinstance(values[0], bytes):  # digitforge 0.2.0 wrote pixels
        try:
            return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), *shape)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: the images do not have the shape {shape} that the file states") from error
    pictures = []
    for row, value in enumerate(values):
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(
                f"{where}: row {row} has no image; expected the bytes of a PNG, JPEG or WebP file, as Hugging Face "
                "writes them with embedded files"
            )
        pictures.append(picture_in(content, f"{where}: row {row}"))
    return pictures


def _class_names(about: dict[str, bytes]) -> tuple[str, ...] | None:
    """Names of the labels, from the metadata of digitforge or of Hugging Face."""
    names = _json(about, "digitforge").get("class_names")
    if names is None:
        features = (_json(about, "huggingface").get("info") or {}).get("features") or {}
        names = (features.get(_LABEL) or {}).get("names")
    return tuple(map(str, names)) if names else None


def _json(about: dict[str, bytes], key: str) -> dict[str, Any]:
    try:
        values = json.loads(about.get(key, b"{}"))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}

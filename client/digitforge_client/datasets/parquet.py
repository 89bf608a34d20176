"""Parquet files of digits, as ``datasets.load_dataset`` of Hugging Face reads them.

A file has the columns ``image``, a struct of ``bytes`` (a PNG file) and ``path`` (always null), ``label`` and ``seed``.
The metadata have two keys with JSON:

* ``huggingface``: the features of the columns, with the names of the classes
* ``digitforge``: ``generator_id``, ``image_shape``, ``class_names``, and ``truncation`` or ``expansion`` if given

Files of version 0.2.0 have the pixels instead of PNG files. `read` also reads those.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from digitforge_client import pictures
from digitforge_client.batch import Batch
from digitforge_client.common.archives import limit
from digitforge_client.common.json_text import parse_json
from digitforge_client.errors import InvalidInputError
from digitforge_client.latent_space import SCALING

#: Rows per row group of a file: 13 MB of MNIST-sized digits.
ROW_GROUP: Final = 16_384
COLUMNS: Final = ("image", "label", "seed")
#: Channels of images that a PNG file can hold: gray, gray with alpha, RGB, RGBA.
_CHANNELS: Final = (1, 2, 3, 4)


def features(class_names: Sequence[str]) -> dict[str, Any]:
    """The features of the columns, as Hugging Face's library ``datasets`` describes them.

    Args:
        class_names: empty for an unconditional generator, whose labels are all −1.
    """
    whole_number = {"dtype": "int64", "_type": "Value"}
    label = {"names": list(class_names), "_type": "ClassLabel"} if class_names else whole_number
    return {"image": {"_type": "Image"}, "label": label, "seed": whole_number}


class Writer:
    """Writes batches to one file, group by group."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting: list[Batch] = []
        self._table: Any = None

    def add(self, batch: Batch) -> None:
        """Take a batch, and write a row group if there are enough rows.

        Raises:
            InvalidInputError: a PNG file cannot hold images with this number of channels.
        """
        channels = [*batch.images.shape[1:], 1][2]
        if channels not in _CHANNELS:
            raise InvalidInputError(
                f"the digits have {channels} channels; Parquet files hold PNG pictures, with 1 to 4 channels: write "
                "an .npz archive instead"
            )
        self._waiting.append(batch)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last rows, and complete the file."""
        if self._waiting:
            self._flush()
        self._table.close()

    def _flush(self) -> None:
        import pyarrow as arrow
        from pyarrow import parquet

        first, waiting = self._waiting[0], self._waiting
        shape = [*first.images.shape[1:], 1][:3]
        names = {"class_names": first.class_names} if first.class_names else {}
        metadata = {
            "huggingface": {"info": {"features": features(first.class_names)}},
            "digitforge": {"generator_id": first.generator_id, "image_shape": shape, **names, **first.scaling},
        }
        n = sum(map(len, waiting))
        files = [pictures.png(image, optimize=False) for batch in waiting for image in batch.images.reshape(-1, *shape)]
        columns = [
            arrow.StructArray.from_arrays(
                [arrow.array(files, arrow.binary()), arrow.nulls(n, arrow.string())], ["bytes", "path"]
            ),
            np.concatenate([batch.labels for batch in waiting]),
            np.concatenate([batch.seeds for batch in waiting]),
        ]
        rows = arrow.table(columns, COLUMNS, metadata={key: json.dumps(value) for key, value in metadata.items()})
        # PNG files do not compress, and no two are equal.
        self._table = self._table or parquet.ParquetWriter(
            self._file, rows.schema, compression="zstd", use_dictionary=["label"]
        )
        self._table.write_table(rows)
        self._waiting = []


def read(path: Path) -> Batch:
    """Read the digits of a file.

    Raises:
        ValueError: the file has other columns, a picture has another shape than the file states, or the digits would
            need too much memory. pyarrow's errors are subclasses of ValueError and OSError.
        KeyError: the metadata lack a key.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        about = parse_json(file.schema_arrow.metadata[b"digitforge"])
        shape = [int(size) for size in about["image_shape"]]
        raw = _check_columns(file, shape, path)
    # As a dictionary, a value that many rows share needs memory once.
    with parquet.ParquetFile(path, read_dictionary=[] if raw else ["image.bytes"]) as file:
        table = file.read(list(COLUMNS))
    values = table["image"].to_pylist()
    pixels = values if raw else [_pixels(value["bytes"], shape) for value in values]
    images = np.frombuffer(b"".join(pixels), dtype=np.uint8).reshape(len(pixels), *shape)
    return Batch(
        images=images[..., 0] if shape[-1] == 1 else images,
        labels=table["label"].to_numpy(),
        seeds=table["seed"].to_numpy(),
        generator_id=about["generator_id"],
        seed=None,
        class_names=tuple(about.get("class_names", ())),
        **{name: about[name] for name in SCALING if name in about},
    )


def _check_columns(file: Any, shape: Sequence[int], path: Path) -> bool:
    """Check the types of the columns, and the memory that they need, before they are read.

    Returns:
        Whether the images are pixels instead of PNG files.

    Raises:
        ValueError: a column has another type, or the digits need too much memory.
    """
    import pyarrow as arrow

    image = file.schema_arrow.field("image").type
    raw = arrow.types.is_fixed_size_binary(image)
    if not raw and not (arrow.types.is_struct(image) and image.get_field_index("bytes") >= 0):
        raise ValueError(f"the images are of type {image}")
    for name in ("label", "seed"):
        if file.schema_arrow.field(name).type != arrow.int64():
            raise ValueError(f"the column {name} is of type {file.schema_arrow.field(name).type}")
    about = file.metadata
    stored = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    size = image.byte_width if raw else math.prod(shape)
    unpacked, most = stored + about.num_rows * (size + 16), limit(path.stat().st_size)
    if unpacked > most:
        raise ValueError(f"the table has {unpacked / 2**20:.0f} MiB; at most {most / 2**20:.0f} MiB are read")
    return bool(raw)


def _pixels(content: bytes, shape: Sequence[int]) -> bytes:
    """The pixels of a PNG file, whose size is checked before they are read."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        found = [picture.height, picture.width, len(picture.getbands())]
        if found != list(shape):
            raise ValueError(f"a picture has the shape {found}, but the file states {list(shape)}")
        pixels: npt.NDArray[np.uint8] = np.asarray(picture)
        if pixels.dtype != np.uint8:
            raise ValueError(f"a picture has pixels of dtype {pixels.dtype}")
        return pixels.tobytes()

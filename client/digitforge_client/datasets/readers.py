"""Reads files of digits, with their addresses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.batch import Batch
from digitforge_client.common.archives import DAMAGED, limit, open_archive
from digitforge_client.common.json_text import parse_json
from digitforge_client.datasets import tfrecord
from digitforge_client.datasets.writers import check_library
from digitforge_client.errors import DataError
from digitforge_client.latent_space import SCALING


def read(path: Path, form: str) -> Batch:
    """Read the digits of a file that `writers` wrote.

    Args:
        path: the file.
        form: the format: ``"npz"``, ``"tfrecord"`` or ``"parquet"``.

    Raises:
        DataError: the file cannot be read, or is not a file of digits.
        MissingExtraError: a library is needed that is not installed.
    """
    try:
        batch = _READERS[form](path)
        batch.addresses  # noqa: B018 - raises an error for wrong shapes, dtypes and row seeds
        if batch.images.dtype != np.uint8 or batch.images.ndim not in (3, 4) or len(batch.images) != len(batch):
            raise ValueError(
                f"{len(batch)} labels, and images of dtype {batch.images.dtype} and shape {batch.images.shape}"
            )
    except DataError:
        raise
    except (*DAMAGED, AttributeError) as error:  # pyarrow's errors are subclasses of these
        raise DataError(f"cannot read {path} as {form}: {error!r}; expected a file that digitforge wrote") from error
    return batch


def _npz(path: Path) -> Batch:
    with open_archive(path, advice="expected a file that digitforge wrote") as archive:
        scaling: dict[str, Any] = {name: float(archive[name]) for name in SCALING if name in archive}
        return Batch(
            images=archive["x"],
            labels=archive["y"],
            seeds=archive["seeds"],
            generator_id=str(archive["generator_id"]),
            seed=None,
            class_weights=archive.get("class_weights"),
            class_names=tuple(archive["class_names"].tolist()) if "class_names" in archive else (),
            **scaling,
        )


def _tfrecord(path: Path) -> Batch:
    def values(list_type: str, name: str) -> list[Any]:
        return [getattr(features[name], list_type).value[0] for features in rows]

    rows = [example.features.feature for example in tfrecord.read(path)]
    # str() gives the shortest decimal number that rounds to this float32. That is the number that was written.
    scaling: dict[str, Any] = {
        name: float(str(np.float32(rows[0][name].float_list.value[0]))) for name in SCALING if name in rows[0]
    }
    return Batch(
        images=_images(values("bytes_list", "image"), list(rows[0]["shape"].int64_list.value)),
        labels=np.array(values("int64_list", "label"), dtype=np.int64),
        seeds=np.array(values("int64_list", "seed"), dtype=np.int64),
        generator_id=rows[0]["generator_id"].bytes_list.value[0].decode(),
        seed=None,
        **scaling,
    )


def _parquet(path: Path) -> Batch:
    check_library("parquet")
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        _check_columns(file.schema_arrow, file.metadata.num_rows, path)
        table = file.read(["image", "label", "seed"])
    about = parse_json(table.schema.metadata[b"digitforge"])
    return Batch(
        images=_images(table["image"].to_pylist(), about["image_shape"]),
        labels=table["label"].to_numpy(),
        seeds=table["seed"].to_numpy(),
        generator_id=about["generator_id"],
        seed=None,
        class_names=tuple(about.get("class_names", ())),
        **{name: about[name] for name in SCALING if name in about},
    )


def _check_columns(schema: Any, rows: int, path: Path) -> None:
    """Check the types of the columns, and with them the size of the table before it is read.

    Raises:
        ValueError: a column has another type, or the table is too large.
    """
    import pyarrow as arrow

    image = schema.field("image").type
    if not arrow.types.is_fixed_size_binary(image):
        raise ValueError(f"the images are of type {image}")
    for name in ("label", "seed"):
        if schema.field(name).type != arrow.int64():
            raise ValueError(f"the column {name} is of type {schema.field(name).type}")
    unpacked, most = rows * (image.byte_width + 16), limit(path.stat().st_size)
    if unpacked > most:
        raise ValueError(f"the table has {unpacked / 2**20:.0f} MiB; at most {most / 2**20:.0f} MiB are read")


def _images(pixels: list[bytes], shape: list[int]) -> npt.NDArray[np.uint8]:
    images = np.frombuffer(b"".join(pixels), dtype=np.uint8).reshape(len(pixels), *shape)
    return images[..., 0] if images.shape[-1] == 1 else images


_READERS: Final[dict[str, Callable[[Path], Batch]]] = {"npz": _npz, "tfrecord": _tfrecord, "parquet": _parquet}

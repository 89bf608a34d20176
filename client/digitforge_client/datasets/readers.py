"""Files of digits, read again: whole, with their addresses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.batch import Batch
from digitforge_client.common.archives import DAMAGED, open_archive
from digitforge_client.datasets import tfrecord
from digitforge_client.datasets.writers import check_library
from digitforge_client.errors import DataError
from digitforge_client.latent_space import SCALING


def read(path: Path, form: str) -> Batch:
    """The digits of a file that `writers` wrote.

    Args:
        path: the file.
        form: ``"npz"``, ``"tfrecord"`` or ``"parquet"``.

    Raises:
        DataError: it cannot be read, or is something else.
        MissingExtraError: a library is needed that is not installed.
    """
    try:
        return _READERS[form](path)
    except DAMAGED as error:  # pyarrow's errors are of these kinds too
        raise DataError(f"cannot read {path} as {form}: {error}") from error


def _npz(path: Path) -> Batch:
    with open_archive(path, advice="it is not as digitforge wrote it") as archive:
        scaling: dict[str, Any] = {name: float(archive[name]) for name in SCALING if name in archive}
        return Batch(
            images=archive["x"],
            labels=archive["y"],
            seeds=archive["seeds"],
            generator_id=str(archive["generator_id"]),
            seed=None,
            **scaling,
        )


def _tfrecord(path: Path) -> Batch:
    def values(kind: str, name: str) -> list[Any]:
        return [getattr(features[name], kind).value[0] for features in rows]

    rows = [example.features.feature for example in tfrecord.read(path)]
    # The shortest number that is this float32 is the one that was written.
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

    table = parquet.read_table(path)
    about = json.loads(table.schema.metadata[b"digitforge"])
    return Batch(
        images=_images(table["image"].to_pylist(), about["image_shape"]),
        labels=table["label"].to_numpy(),
        seeds=table["seed"].to_numpy(),
        generator_id=about["generator_id"],
        seed=None,
        **{name: about[name] for name in SCALING if name in about},
    )


def _images(pixels: list[bytes], shape: list[int]) -> npt.NDArray[np.uint8]:
    images = np.frombuffer(b"".join(pixels), dtype=np.uint8).reshape(len(pixels), *shape)
    return images[..., 0] if images.shape[-1] == 1 else images


_READERS: Final[dict[str, Callable[[Path], Batch]]] = {"npz": _npz, "tfrecord": _tfrecord, "parquet": _parquet}

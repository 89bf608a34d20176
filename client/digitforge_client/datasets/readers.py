"""Reads files of digits, with their addresses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.batch import Batch
from digitforge_client.common.archives import DAMAGED, open_archive
from digitforge_client.datasets import parquet, tfrecord
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
    return parquet.read(path)


def _images(pixels: list[bytes], shape: list[int]) -> npt.NDArray[np.uint8]:
    images = np.frombuffer(b"".join(pixels), dtype=np.uint8).reshape(len(pixels), *shape)
    return images[..., 0] if images.shape[-1] == 1 else images


_READERS: Final[dict[str, Callable[[Path], Batch]]] = {"npz": _npz, "tfrecord": _tfrecord, "parquet": _parquet}

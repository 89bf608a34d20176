"""TFRecord files, without TensorFlow: framing, checksums and records.

A file is a sequence of frames: the record's length (8 bytes), its checksum (4), the record, its checksum (4), all
little-endian. The checksum is CRC-32C (Castagnoli), rotated and offset, so that one of data with checksums in it stays
meaningful; https://www.tensorflow.org/tutorials/load_data/tfrecord. A record is a `tf.train.Example`:

| feature | | |
|---|---|---|
| ``image`` | bytes | the pixels, H·W·C of them: ``tf.reshape(tf.io.decode_raw(image, tf.uint8), shape)`` |
| ``shape`` | 3 × int64 | H, W, C |
| ``label`` | int64 | class number; −1 without one |
| ``seed`` | int64 | row seed; with the label and the generator, the digit's address |
| ``generator_id`` | bytes | |
| ``truncation``, ``expansion`` | float | if any |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from digitforge_client.batch import Batch
from digitforge_client.datasets import example_pb2
from digitforge_client.errors import DataError

_MASK_OFFSET: Final = 0xA282EAD8


def examples(batch: Batch) -> list[bytes]:
    """The records of a batch, in order."""
    shape = [*batch.images.shape[1:], 1][:3]
    same = {"generator_id": _bytes(batch.generator_id.encode()), "shape": _int64(*shape)}
    same |= {name: _float(value) for name, value in batch.scaling.items()}
    pixels = batch.images.reshape(len(batch), -1)
    records = []
    for image, label, seed in zip(pixels, batch.labels.tolist(), batch.seeds.tolist(), strict=True):
        feature = same | {"image": _bytes(image.tobytes()), "label": _int64(label), "seed": _int64(seed)}
        record = example_pb2.Example(features=example_pb2.Features(feature=feature))
        records.append(record.SerializeToString(deterministic=True))
    return records


def frames(records: Iterable[bytes]) -> bytes:
    """Records as they stand in a file, one after the other.

    Raises:
        ModuleNotFoundError: google-crc32c is not installed.
    """
    import google_crc32c

    def checked(part: bytes) -> bytes:
        """A part of a frame with its checksum: rotated right by 15 bits, and offset."""
        crc = google_crc32c.value(part)
        masked = ((crc >> 15 | crc << 17) + _MASK_OFFSET) & 0xFFFFFFFF
        return part + masked.to_bytes(4, "little")

    return b"".join(checked(len(record).to_bytes(8, "little")) + checked(record) for record in records)


def read(path: Path) -> Iterator[example_pb2.Example]:
    """The records of a file that `frames` filled, in order.

    Checksums are not looked at; `digitforge verify` has one for the whole file.

    Raises:
        DataError: it is no such file.
    """
    try:
        with path.open("rb") as file:
            while head := file.read(12):
                length = int.from_bytes(head[:8], "little")
                record = file.read(length)
                if len(head) < 12 or len(record) < length or len(file.read(4)) < 4:
                    raise DataError(f"{path} ends in the midst of a record; it was not written whole")
                yield example_pb2.Example.FromString(record)
    except (DecodeError, OverflowError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as TFRecord of examples: {error}") from error


def _bytes(value: bytes) -> example_pb2.Feature:
    return example_pb2.Feature(bytes_list=example_pb2.BytesList(value=[value]))


def _float(value: float) -> example_pb2.Feature:
    return example_pb2.Feature(float_list=example_pb2.FloatList(value=[value]))


def _int64(*values: int) -> example_pb2.Feature:
    return example_pb2.Feature(int64_list=example_pb2.Int64List(value=values))

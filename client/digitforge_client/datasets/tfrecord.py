"""Reads and writes TFRecord files without TensorFlow.

A file is a sequence of frames. A frame holds the record's length (8 bytes), the checksum of the length (4), the record,
and the checksum of the record (4), all little-endian. The checksum is CRC-32C (Castagnoli), rotated and offset, so that
it also works for data that contain checksums. See https://www.tensorflow.org/tutorials/load_data/tfrecord.

A record is a ``tf.train.Example`` with these features:

* ``image`` (bytes): H·W·C pixels, for ``tf.reshape(tf.io.decode_raw(image, tf.uint8), shape)``
* ``shape`` (3 × int64): H, W, C
* ``label`` (int64): class number, or −1 without a class
* ``class_name`` (bytes): name of the class in UTF-8, if there is a class
* ``seed`` (int64): row seed
* ``generator_id`` (bytes)
* ``truncation`` and ``expansion`` (float), if given
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
    """Make the records of a batch, in order."""
    shape = [*batch.images.shape[1:], 1][:3]
    shared = {"generator_id": _bytes(batch.generator_id.encode()), "shape": _int64(*shape)}
    shared |= {name: _float(value) for name, value in batch.scaling.items()}
    pixels = batch.images.reshape(len(batch), -1)
    records = []
    for image, label, seed in zip(pixels, batch.labels.tolist(), batch.seeds.tolist(), strict=True):
        feature = shared | {"image": _bytes(image.tobytes()), "label": _int64(label), "seed": _int64(seed)}
        if batch.class_names and label >= 0:
            feature["class_name"] = _bytes(batch.class_names[label].encode())
        record = example_pb2.Example(features=example_pb2.Features(feature=feature))
        records.append(record.SerializeToString(deterministic=True))
    return records


def frames(records: Iterable[bytes]) -> bytes:
    """Put records into frames, one after the other.

    Raises:
        ModuleNotFoundError: google-crc32c is not installed.
    """
    import google_crc32c

    def checked(part: bytes) -> bytes:
        """Append the checksum to a part of a frame: rotated right by 15 bits, and offset."""
        crc = google_crc32c.value(part)
        masked = ((crc >> 15 | crc << 17) + _MASK_OFFSET) & 0xFFFFFFFF
        return part + masked.to_bytes(4, "little")

    return b"".join(checked(len(record).to_bytes(8, "little")) + checked(record) for record in records)


def read(path: Path) -> Iterator[example_pb2.Example]:
    """Read the records of a file, in order.

    The frames' checksums are ignored, because ``digitforge verify`` checks the SHA-256 of the whole file.

    Raises:
        DataError: the file is not a complete TFRecord file of examples.
    """
    try:
        with path.open("rb") as file:
            while head := file.read(12):
                length = int.from_bytes(head[:8], "little")
                record = file.read(length)
                if len(head) < 12 or len(record) < length or len(file.read(4)) < 4:
                    raise DataError(f"{path} ends inside a record, so it is incomplete; generate the file again")
                yield example_pb2.Example.FromString(record)
    except (DecodeError, OverflowError, MemoryError) as error:
        raise DataError(
            f"cannot read {path} as a TFRecord file of examples: {error}; expected a file that digitforge wrote"
        ) from error


def _bytes(value: bytes) -> example_pb2.Feature:
    return example_pb2.Feature(bytes_list=example_pb2.BytesList(value=[value]))


def _float(value: float) -> example_pb2.Feature:
    return example_pb2.Feature(float_list=example_pb2.FloatList(value=[value]))


def _int64(*values: int) -> example_pb2.Feature:
    return example_pb2.Feature(int64_list=example_pb2.Int64List(value=values))

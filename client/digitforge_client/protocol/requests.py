"""Splits rows into requests and joins the answers. It does no I/O.

An image depends on its address alone. So a split never changes an image, and any request may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_client.batch import Batch
from digitforge_client.contract import Field, Signature
from digitforge_client.errors import UnexpectedReplyError
from digitforge_client.protocol.description import Generator
from digitforge_client.protocol.rows import Labels, Rows, RowSeeds
from digitforge_client.transport.wire import messages
from digitforge_client.transport.wire.tensors import encode, output_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """The rows of one request, and their position in a batch."""

    #: Number of the batch.
    batch: int
    #: Position of the chunk's first row in its batch.
    offset: int
    #: Rows of the whole batch.
    batch_rows: int
    labels: Labels | None
    seeds: RowSeeds

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def last(self) -> bool:
        """Whether this chunk completes its batch."""
        return self.offset + len(self) == self.batch_rows


def split(rows: Rows, *, batch_size: int, max_rows: int, first_batch: int = 0) -> Iterator[Chunk]:
    """Cut rows into batches, and batches into requests.

    Args:
        rows: the addresses.
        batch_size: rows per batch. The last batch may be smaller.
        max_rows: rows of the largest request.
        first_batch: skip the batches before this one.
    """
    for batch, begin in enumerate(range(first_batch * batch_size, len(rows), batch_size), start=first_batch):
        batch_rows = min(batch_size, len(rows) - begin)
        for offset in range(0, batch_rows, max_rows):
            labels, seeds = rows.addresses(begin + offset, min(max_rows, batch_rows - offset))
            yield Chunk(batch=batch, offset=offset, batch_rows=batch_rows, labels=labels, seeds=seeds)


def predict_request(
    spec: messages.ModelSpec, signature: str, inputs: Mapping[str, npt.NDArray[Any]], *, outputs: tuple[str, ...] = ()
) -> messages.PredictRequest:
    """Make a request to one signature of the model *spec*."""
    request = messages.PredictRequest(model_spec=spec, output_filter=outputs)
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(encode(array))
    return request


def sample_request(spec: messages.ModelSpec, chunk: Chunk) -> messages.PredictRequest:
    """Make the request for a chunk's digits."""
    inputs = {Field.SEEDS: chunk.seeds}
    if chunk.labels is not None:
        inputs[Field.LABELS] = chunk.labels
    return predict_request(spec, Signature.SAMPLE, inputs)


class Joiner:
    """Joins the answers to the chunks of a batch."""

    def __init__(self, generator: Generator, *, seed: int | None) -> None:
        self._generator = generator
        self._seed = seed

    def begin(self, rows: int) -> None:
        """Allocate the arrays of a batch."""
        self._images = np.empty((rows, *self._generator.image_shape), dtype=np.uint8)
        self._labels = np.full(rows, -1, dtype=np.int64)
        self._seeds = np.empty(rows, dtype=np.int64)

    def add(self, chunk: Chunk, reply: messages.PredictResponse) -> None:
        """Add one answer.

        Raises:
            UnexpectedReplyError: the answer breaks the contract, or the server rejects a label that the card contains.
        """
        n, rows = len(chunk), slice(chunk.offset, chunk.offset + len(chunk))
        images = output_of(reply, Field.IMAGES, dtype="uint8", shape=(n, *self._generator.image_shape))
        if chunk.offset == 0:
            self.begin(chunk.batch_rows)
        self._images[rows] = images
        self._seeds[rows] = chunk.seeds
        if chunk.labels is not None:
            valid = output_of(reply, Field.VALID, dtype="bool", shape=(n,))
            if not valid.all():
                raise UnexpectedReplyError(
                    f"the server rejects the labels {sorted(set(chunk.labels[~valid].tolist()))}, although the card of "
                    f"generator {self._generator.generator_id} names {len(self._generator.class_names)} classes; "
                    "export the generator again"
                )
            self._labels[rows] = chunk.labels

    def batch(self) -> Batch:
        """The finished batch. Gray images have no channel axis."""
        images = self._images[..., 0] if self._images.shape[-1] == 1 else self._images
        return Batch(
            images=images,
            labels=self._labels,
            seeds=self._seeds,
            generator_id=self._generator.generator_id,
            seed=self._seed,
            class_names=self._generator.class_names,
        )


def empty_batch(generator: Generator | None, *, seed: int | None) -> Batch:
    """A batch without digits. Without a known generator it has MNIST's image shape."""
    shape = generator.image_shape if generator else (28, 28, 1)
    return Batch(
        images=np.empty((0, *(shape if shape[-1] > 1 else shape[:2])), dtype=np.uint8),
        labels=np.empty(0, dtype=np.int64),
        seeds=np.empty(0, dtype=np.int64),
        generator_id=generator.generator_id if generator else "",
        seed=seed,
        class_names=generator.class_names if generator else (),
    )

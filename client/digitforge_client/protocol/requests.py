"""Splits rows into requests, and joins the answers. No input or output.

A row's image depends on its address alone, so a split never changes an image, and any request may be repeated.
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
from digitforge_client.transport.wire.tensors import decode, encode


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """One request's rows, and where they belong."""

    batch: int  # number of the batch
    offset: int  # of the chunk's first row in its batch
    batch_rows: int  # rows of the whole batch
    labels: Labels | None
    seeds: RowSeeds

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def last(self) -> bool:
        """Whether it completes its batch."""
        return self.offset + len(self) == self.batch_rows


def split(rows: Rows, *, batch_size: int, max_rows: int, first_batch: int = 0) -> Iterator[Chunk]:
    """Cut rows into batches, and batches into requests.

    Args:
        rows: the addresses.
        batch_size: rows of every batch but the last.
        max_rows: rows of the largest request.
        first_batch: leave out the batches before this one.
    """
    for batch, begin in enumerate(range(first_batch * batch_size, len(rows), batch_size), start=first_batch):
        batch_rows = min(batch_size, len(rows) - begin)
        for offset in range(0, batch_rows, max_rows):
            labels, seeds = rows.addresses(begin + offset, min(max_rows, batch_rows - offset))
            yield Chunk(batch=batch, offset=offset, batch_rows=batch_rows, labels=labels, seeds=seeds)


def predict_request(
    spec: messages.ModelSpec, signature: str, inputs: Mapping[str, npt.NDArray[Any]], *, outputs: tuple[str, ...] = ()
) -> messages.PredictRequest:
    """A request to one signature of the model that *spec* names."""
    request = messages.PredictRequest(model_spec=spec, output_filter=outputs)
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(encode(array))
    return request


def sample_request(spec: messages.ModelSpec, chunk: Chunk) -> messages.PredictRequest:
    """The request for a chunk's digits."""
    inputs = {Field.SEEDS: chunk.seeds}
    if chunk.labels is not None:
        inputs[Field.LABELS] = chunk.labels
    return predict_request(spec, Signature.SAMPLE, inputs)


def output_of(reply: messages.PredictResponse, name: str, *, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """One output of a reply.

    Raises:
        UnexpectedReplyError: it is missing, or has another dtype or shape than the contract promises.
    """
    if name not in reply.outputs:
        raise UnexpectedReplyError(f"the server's answer has no output {name!r}, only {sorted(reply.outputs)}")
    array = decode(reply.outputs[name])
    if array.dtype != dtype or array.shape != shape:
        raise UnexpectedReplyError(
            f"output {name!r} is {array.dtype.name} {array.shape}; the contract promises {dtype} {shape}"
        )
    return array


class Joiner:
    """Puts the answers to one batch's chunks together."""

    def __init__(self, generator: Generator, *, seed: int | None) -> None:
        self._generator = generator
        self._seed = seed

    def begin(self, rows: int) -> None:
        """Make room for a batch."""
        self._images = np.empty((rows, *self._generator.image_shape), dtype=np.uint8)
        self._labels = np.full(rows, -1, dtype=np.int64)
        self._seeds = np.empty(rows, dtype=np.int64)

    def add(self, chunk: Chunk, reply: messages.PredictResponse) -> None:
        """Take in one answer.

        Raises:
            UnexpectedReplyError: the answer is not what the contract promises, or denies a label of the card's.
        """
        if chunk.offset == 0:
            self.begin(chunk.batch_rows)
        n, here = len(chunk), slice(chunk.offset, chunk.offset + len(chunk))
        self._images[here] = output_of(reply, Field.IMAGES, dtype="uint8", shape=(n, *self._generator.image_shape))
        self._seeds[here] = chunk.seeds
        if chunk.labels is not None:
            valid = output_of(reply, Field.VALID, dtype="bool", shape=(n,))
            if not valid.all():
                raise UnexpectedReplyError(
                    f"the server took no label {sorted(set(chunk.labels[~valid].tolist()))}, although the card of "
                    f"generator {self._generator.generator_id} names {len(self._generator.class_names)} classes"
                )
            self._labels[here] = chunk.labels

    def batch(self) -> Batch:
        """The finished batch; images lose a channel axis of length 1."""
        images = self._images[..., 0] if self._images.shape[-1] == 1 else self._images
        return Batch(
            images=images,
            labels=self._labels,
            seeds=self._seeds,
            generator_id=self._generator.generator_id,
            seed=self._seed,
        )


def empty_batch(generator: Generator | None, *, seed: int | None) -> Batch:
    """No digits; of the shape of MNIST's where no generator is known yet."""
    shape = generator.image_shape if generator else (28, 28, 1)
    return Batch(
        images=np.empty((0, *(shape if shape[-1] > 1 else shape[:2])), dtype=np.uint8),
        labels=np.empty(0, dtype=np.int64),
        seeds=np.empty(0, dtype=np.int64),
        generator_id=generator.generator_id if generator else "",
        seed=seed,
    )

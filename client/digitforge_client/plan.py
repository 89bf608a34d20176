"""Splits what a user asks for into requests, and joins the answers. No input or output.

A row's image depends on its address alone, so a split never changes an image, and any request may be repeated.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from digitforge_client.addresses import Addresses
from digitforge_client.batch import Batch
from digitforge_client.contract import SEEDS, Field, Signature, balanced_labels, check_seed, row_seeds
from digitforge_client.description import Generator
from digitforge_client.errors import GeneratorChangedError, InvalidInputError, UnexpectedReplyError
from digitforge_client.wire import messages
from digitforge_client.wire.tensors import decode, encode

Labels = npt.NDArray[np.int64]
RowSeeds = npt.NDArray[np.int64]


class Rows(Protocol):
    """Addresses of one generator, in order, made on demand: ten million rows need no memory before their turn."""

    @property
    def seed(self) -> int | None:
        """The user's seed, if they come from one."""

    def __len__(self) -> int: ...

    def addresses(self, first: int, n: int) -> tuple[Labels | None, RowSeeds]:
        """Labels and row seeds of *n* rows from the *first*; no labels for an unconditional generator."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeededRows:
    """Rows *start* … *start + n − 1* of a user's seed."""

    seed: int
    start: int
    n: int
    classes: int  # 0: unconditional
    labels: Labels | None = None  # (n,), or () for one class throughout; None: row i has class i mod K

    def __len__(self) -> int:
        return self.n

    def addresses(self, first: int, n: int) -> tuple[Labels | None, RowSeeds]:
        seeds = row_seeds(self.seed, n, self.start + first)
        if not self.classes:
            return None, seeds
        if self.labels is None:
            return balanced_labels(n, self.classes, self.start + first), seeds
        if self.labels.ndim == 0:
            return np.full(n, self.labels), seeds
        return self.labels[first : first + n], seeds


@dataclass(frozen=True, kw_only=True, eq=False)
class AddressedRows:
    """Rows that were asked for by their addresses."""

    labels: Labels | None
    seeds: RowSeeds
    seed: int | None = None

    @classmethod
    def of(cls, addresses: Addresses, generator: Generator) -> AddressedRows:
        """The rows of addresses, if this generator can have made them.

        Raises:
            GeneratorChangedError: they belong to another generator.
            InvalidInputError: a label is none of its classes.
        """
        if addresses.generator_id not in (None, generator.generator_id):
            raise GeneratorChangedError(
                f"the addresses are of generator {addresses.generator_id}, but the server has "
                f"{generator.generator_id}, whose digits differ; serve the former"
            )
        unlabelled = not generator.conditional and bool((addresses.labels == -1).all())
        labels = None if unlabelled else generator.class_numbers(addresses.labels)
        return cls(labels=labels, seeds=addresses.seeds)

    def __len__(self) -> int:
        return len(self.seeds)

    def addresses(self, first: int, n: int) -> tuple[Labels | None, RowSeeds]:
        here = slice(first, first + n)
        return None if self.labels is None else self.labels[here], self.seeds[here]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ask:
    """What a user asked for, checked as far as it can be without knowing the generator."""

    n: int
    labels: Any  # as given
    seed: int
    start: int

    @classmethod
    def of(cls, n: int | None, *, labels: Any, seed: int | None, start: int) -> Ask:
        """Check the arguments of `sample` and `stream`; draw a seed if none is given.

        Raises:
            InvalidInputError: an argument is out of range, or *n* and *labels* disagree.
        """
        if labels is not None:
            shape = np.shape(labels)
            if len(shape) > 1:
                raise InvalidInputError(f"labels have shape {shape}; expected one label, or one for each row")
            if len(shape) == 1:
                if n is not None and n != shape[0]:
                    raise InvalidInputError(f"n is {n}, but there are {shape[0]} labels; leave n out")
                n = shape[0]
        if n is None:
            raise InvalidInputError("say how many digits: n, or one label for each")
        for name, value in (("n", n), ("start", start)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise InvalidInputError(f"{name} is {value!r}; expected an integer, 0 or more")
        seed = secrets.randbelow(SEEDS) if seed is None else check_seed(seed)
        row_seeds(seed, 0, int(start) + int(n))  # raises where the seed has not so many rows
        return cls(n=int(n), labels=labels, seed=seed, start=int(start))

    def rows(self, generator: Generator) -> SeededRows:
        """The addresses, now that the generator is known.

        Raises:
            InvalidInputError: a label is none of its classes.
        """
        return SeededRows(
            seed=self.seed,
            start=self.start,
            n=self.n,
            classes=len(generator.class_names),
            labels=None if self.labels is None else generator.class_numbers(self.labels),
        )


def check_sample_size(n: int, most: int) -> None:
    """Refuse a sample that should be a stream.

    Raises:
        InvalidInputError: it is larger than *most*.
    """
    if n > most:
        raise InvalidInputError(
            f"{n} digits in one sample; at most {most} are held in memory at once: use stream() for batches of them, "
            "or raise Limits(sample_rows=…)"
        )


def check_stream(batch_size: int, on_change: str) -> None:
    """Check what only `stream` takes.

    Raises:
        InvalidInputError: it is out of range.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InvalidInputError(f"batch_size is {batch_size!r}; expected an integer, 1 or more")
    if on_change not in ("raise", "accept"):
        raise InvalidInputError(f'on_change is {on_change!r}; expected "raise" or "accept"')


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """One request's rows, and where they belong."""

    batch: int  # number of the batch
    offset: int  # of the piece's first row in its batch
    batch_rows: int  # rows of the whole batch
    labels: Labels | None
    seeds: RowSeeds

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def last(self) -> bool:
        """Whether it completes its batch."""
        return self.offset + len(self) == self.batch_rows


def pieces(rows: Rows, *, batch_size: int, max_rows: int, first_batch: int = 0) -> Iterator[Piece]:
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
            yield Piece(batch=batch, offset=offset, batch_rows=batch_rows, labels=labels, seeds=seeds)


def predict_request(
    spec: messages.ModelSpec, signature: str, inputs: Mapping[str, npt.NDArray[Any]], *, outputs: tuple[str, ...] = ()
) -> messages.PredictRequest:
    """A request to one signature of the model that *spec* names."""
    request = messages.PredictRequest(model_spec=spec, output_filter=outputs)
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(encode(array))
    return request


def sample_request(spec: messages.ModelSpec, piece: Piece) -> messages.PredictRequest:
    """The request for a piece's digits."""
    inputs = {Field.SEEDS: piece.seeds}
    if piece.labels is not None:
        inputs[Field.LABELS] = piece.labels
    return predict_request(spec, Signature.SAMPLE, inputs)


def output(reply: messages.PredictResponse, name: str, *, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """One output of a reply.

    Raises:
        UnexpectedReplyError: it is missing, or has another dtype or shape than the contract promises.
    """
    if name not in reply.outputs:
        raise UnexpectedReplyError(f"the server's answer has no output {name!r}, only {sorted(reply.outputs)}")
    array = decode(reply.outputs[name])
    if array.dtype.name != dtype or array.shape != shape:
        raise UnexpectedReplyError(
            f"output {name!r} is {array.dtype.name} {array.shape}; the contract promises {dtype} {shape}"
        )
    return array


class Joiner:
    """Puts the answers to one batch's pieces together."""

    def __init__(self, generator: Generator, *, seed: int | None) -> None:
        self._generator = generator
        self._seed = seed

    def begin(self, rows: int) -> None:
        """Make room for a batch."""
        self._images = np.empty((rows, *self._generator.image_shape), dtype=np.uint8)
        self._labels = np.full(rows, -1, dtype=np.int64)
        self._seeds = np.empty(rows, dtype=np.int64)

    def add(self, piece: Piece, reply: messages.PredictResponse) -> None:
        """Take in one answer.

        Raises:
            UnexpectedReplyError: the answer is not what the contract promises, or denies a label of the card's.
        """
        if piece.offset == 0:
            self.begin(piece.batch_rows)
        n, here = len(piece), slice(piece.offset, piece.offset + len(piece))
        self._images[here] = output(reply, Field.IMAGES, dtype="uint8", shape=(n, *self._generator.image_shape))
        self._seeds[here] = piece.seeds
        if piece.labels is not None:
            valid = output(reply, Field.VALID, dtype="bool", shape=(n,))
            if not valid.all():
                raise UnexpectedReplyError(
                    f"the server took no label {sorted(set(piece.labels[~valid].tolist()))}, although the card of "
                    f"generator {self._generator.generator_id} names {len(self._generator.class_names)} classes"
                )
            self._labels[here] = piece.labels

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

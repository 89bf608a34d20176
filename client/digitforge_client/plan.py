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
from digitforge_client.truncation import check_truncation
from digitforge_client.wire import Reply, messages
from digitforge_client.wire.tensors import decode, encode

Labels = npt.NDArray[np.int64]
RowSeeds = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]
Answer = Reply | messages.PredictResponse


@dataclass(frozen=True, kw_only=True, eq=False)
class Variation:
    """What makes digits other ones than label and row seed alone would; it goes through their latents."""

    truncation: float | None = None
    class_weights: Weights | None = None  # (n, K), or (K,) for all; None: the classes of the labels

    @classmethod
    def of(cls, *, truncation: float | None, class_weights: Weights | None) -> Variation | None:
        """None where nothing varies."""
        if truncation is None and class_weights is None:
            return None
        return cls(truncation=truncation, class_weights=class_weights)

    def weights(self, first: int, n: int) -> Weights | None:
        """(n, K) class weights of *n* rows from the *first*, if there are any."""
        if self.class_weights is None or self.class_weights.ndim == 2:
            return None if self.class_weights is None else self.class_weights[first : first + n]
        return np.broadcast_to(self.class_weights, (n, len(self.class_weights)))


class Rows(Protocol):
    """Addresses of one generator, in order, made on demand: ten million rows need no memory before their turn."""

    @property
    def seed(self) -> int | None:
        """The user's seed, if they come from one."""

    @property
    def variation(self) -> Variation | None:
        """None: the digits are those of label and row seed."""

    def __len__(self) -> int: ...

    def addresses(self, first: int, n: int) -> tuple[Labels | None, RowSeeds]:
        """Labels and row seeds of *n* rows from the *first*; no labels without classes, or for blends of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeededRows:
    """Rows *start* … *start + n − 1* of a user's seed."""

    seed: int
    start: int
    n: int
    classes: int  # 0: unconditional
    labels: Labels | None = None  # (n,), or () for one class throughout; None: row i has class i mod K
    variation: Variation | None = None

    def __len__(self) -> int:
        return self.n

    def addresses(self, first: int, n: int) -> tuple[Labels | None, RowSeeds]:
        seeds = row_seeds(self.seed, n, self.start + first)
        if not self.classes or (self.variation is not None and self.variation.class_weights is not None):
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
    variation: Variation | None = None

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
        weights = addresses.class_weights
        if weights is not None:
            weights = class_weights_of(generator, len(addresses), labels=None, class_weights=weights)
        may_lack_labels = weights is not None or not generator.conditional
        unlabelled = may_lack_labels and bool((addresses.labels == -1).all())
        return cls(
            labels=None if unlabelled else generator.class_numbers(addresses.labels),
            seeds=addresses.seeds,
            variation=Variation.of(
                truncation=check_truncation(addresses.truncation, law=generator.latent_law), class_weights=weights
            ),
        )

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
    truncation: float | None = None
    class_weights: Weights | None = None  # (n, K), or (K,) for all

    @classmethod
    def of(
        cls,
        n: int | None,
        *,
        labels: Any,
        seed: int | None,
        start: int,
        truncation: float | None = None,
        class_weights: npt.ArrayLike | None = None,
    ) -> Ask:
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
        weights = None if class_weights is None else _weights(class_weights)
        if weights is not None and weights.ndim == 2:
            if n is not None and n != len(weights):
                raise InvalidInputError(f"n is {n}, but there are {len(weights)} rows of class_weights; leave n out")
            n = len(weights)
        if labels is not None and weights is not None:
            raise InvalidInputError("labels and class_weights were given; a digit has a class or is a blend of several")
        if n is None:
            raise InvalidInputError("say how many digits: n, or one label for each")
        for name, value in (("n", n), ("start", start)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise InvalidInputError(f"{name} is {value!r}; expected an integer, 0 or more")
        seed = secrets.randbelow(SEEDS) if seed is None else check_seed(seed)
        row_seeds(seed, 0, int(start) + int(n))  # raises where the seed has not so many rows
        return cls(
            n=int(n),
            labels=labels,
            seed=seed,
            start=int(start),
            truncation=check_truncation(truncation),
            class_weights=weights,
        )

    def rows(self, generator: Generator) -> SeededRows:
        """The addresses, now that the generator is known.

        Raises:
            InvalidInputError: a label is none of its classes, class weights are not of its classes, or its latents
                cannot be truncated so.
        """
        check_truncation(self.truncation, law=generator.latent_law)
        weights = self.class_weights
        if weights is not None:
            weights = class_weights_of(generator, self.n, labels=None, class_weights=weights)
        return SeededRows(
            seed=self.seed,
            start=self.start,
            n=self.n,
            classes=len(generator.class_names),
            labels=None if self.labels is None else generator.class_numbers(self.labels),
            variation=Variation.of(truncation=self.truncation, class_weights=weights),
        )


def _weights(given: npt.ArrayLike) -> Weights:
    """Class weights as an array."""
    try:
        weights = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"class_weights are no array of numbers: {error}") from error
    if weights.ndim not in (1, 2):
        raise InvalidInputError(f"class_weights have shape {weights.shape}; expected (K,), or (n, K) with one row each")
    return weights


def class_weights_of(
    generator: Generator, n: int, *, labels: Any, class_weights: npt.ArrayLike | None
) -> npt.NDArray[np.float32]:
    """Class weights of *n* rows as given, or those of labels.

    Returns:
        (n, K) float32, or (K,) if given so; rows summing to 1.

    Raises:
        InvalidInputError: the generator has no classes, or not these, or the weights do not sum to 1.
    """
    classes = len(generator.class_names)
    if not classes:
        raise InvalidInputError(f"generator {generator.generator_id} is unconditional: it takes no classes")
    if (labels is None) == (class_weights is None):
        raise InvalidInputError(f"generator {generator.generator_id} has classes: give either labels or class_weights")
    if class_weights is None:
        numbers = generator.class_numbers(labels)
        if numbers.shape not in ((), (n,)):
            raise InvalidInputError(f"labels have shape {numbers.shape} for {n} latents; expected one, or ({n},)")
        return np.eye(classes, dtype=np.float32)[np.broadcast_to(numbers, (n,))]
    weights = _weights(class_weights)
    fits = weights.shape in ((classes,), (n, classes))
    if not fits or not np.allclose(weights.sum(axis=-1), 1.0, atol=1e-3):
        raise InvalidInputError(
            f"class_weights have shape {weights.shape}; expected ({classes},) or ({n}, {classes}), rows summing to 1"
        )
    return weights


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


def output(reply: Answer, name: str, *, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
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

    def add(self, piece: Piece, reply: Answer) -> None:
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

"""The rows of a request: labels, row seeds and latent options. It does no I/O."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any, Protocol, Unpack, cast

import numpy as np
import numpy.typing as npt

from digitforge_client.batch import Addresses
from digitforge_client.contract import SEEDS, balanced_labels, check_seed, row_seeds
from digitforge_client.errors import GeneratorChangedError, InvalidInputError
from digitforge_client.latent_space import Scaling, ScalingOptions
from digitforge_client.protocol.description import Generator

Labels = npt.NDArray[np.int64]
RowSeeds = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentOptions(Scaling):
    """Sampling options beyond label and row seed: scaled latents and class weights."""

    #: (n, K), or (K,) for all rows. None uses the labels.
    class_weights: Weights | None = None

    @classmethod
    def of(cls, scaling: Scaling, class_weights: Weights | None) -> LatentOptions | None:
        """Make the options, or return None if there are none."""
        if not scaling.scaling and class_weights is None:
            return None
        return cls(class_weights=class_weights, **scaling.scaling)

    def weights(self, first: int, n: int) -> Weights | None:
        """(n, K) class weights of *n* rows, starting at row *first*. None if there are no class weights."""
        if self.class_weights is None or self.class_weights.ndim == 2:
            return None if self.class_weights is None else self.class_weights[first : first + n]
        return np.broadcast_to(self.class_weights, (n, len(self.class_weights)))


class Rows(Protocol):
    """Addresses of one generator, in order. They are computed on demand, so ten million rows need little memory."""

    @property
    def seed(self) -> int | None:
        """The user's seed. None if the rows were requested by address."""

    @property
    def latent_options(self) -> LatentOptions | None:
        """None if the digits depend on label and row seed only."""

    def __len__(self) -> int: ...

    def addresses(self, first: int, n: int) -> tuple[Labels | None, RowSeeds]:
        """Labels and row seeds of *n* rows, starting at row *first*.

        Labels are None for an unconditional generator and for blends of classes.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class SeededRows:
    """Rows *start* … *start + n − 1* of a user's seed."""

    seed: int
    start: int
    n: int
    #: Number of classes. 0 for an unconditional generator.
    classes: int
    #: (n,), or () for the same class in all rows. None: row i has class i mod K.
    labels: Labels | None = None
    latent_options: LatentOptions | None = None

    def __len__(self) -> int:
        return self.n

    def addresses(self, first: int, n: int) -> tuple[Labels | None, RowSeeds]:
        seeds = row_seeds(self.seed, n, self.start + first)
        if not self.classes or (self.latent_options is not None and self.latent_options.class_weights is not None):
            return None, seeds
        if self.labels is None:
            return balanced_labels(n, self.classes, self.start + first), seeds
        if self.labels.ndim == 0:
            return np.full(n, self.labels), seeds
        return self.labels[first : first + n], seeds


@dataclass(frozen=True, kw_only=True, eq=False)
class AddressedRows:
    """Rows that were requested by address."""

    labels: Labels | None
    seeds: RowSeeds
    seed: int | None = None
    latent_options: LatentOptions | None = None

    @classmethod
    def of(cls, addresses: Addresses, generator: Generator) -> AddressedRows:
        """Check addresses against a generator, and turn them into rows.

        Raises:
            GeneratorChangedError: the addresses belong to another generator.
            InvalidInputError: the generator lacks a class, or its latents cannot be scaled like this.
        """
        if addresses.generator_id not in (None, generator.generator_id):
            raise GeneratorChangedError(
                f"the addresses belong to generator {addresses.generator_id}, but the server has generator "
                f"{generator.generator_id}; serve generator {addresses.generator_id} to get the same images"
            )
        weights = addresses.class_weights
        if weights is not None:
            weights = class_weights_of(generator, len(addresses), labels=None, class_weights=weights)
        may_lack_labels = weights is not None or not generator.conditional
        unlabeled = may_lack_labels and bool((addresses.labels == -1).all())
        addresses.check_distribution(generator.latent_distribution)
        return cls(
            labels=None if unlabeled else generator.class_numbers(addresses.labels),
            seeds=addresses.seeds,
            latent_options=LatentOptions.of(addresses, weights),
        )

    def __len__(self) -> int:
        return len(self.seeds)

    def addresses(self, first: int, n: int) -> tuple[Labels | None, RowSeeds]:
        rows = slice(first, first + n)
        return None if self.labels is None else self.labels[rows], self.seeds[rows]


class SampleOptions(ScalingOptions, total=False):
    """Options of `DigitClient.sample` and `DigitClient.stream`, described there.

    To add an option, add a line here, and a field and a check to ``SampleSpec``. An option that scales latents belongs
    to `ScalingOptions` and `Scaling` instead.
    """

    labels: Any
    seed: int | None
    start: int
    class_weights: npt.ArrayLike | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleSpec(Scaling):
    """A user's request. `of` checks everything that does not depend on the generator."""

    n: int
    #: As given by the user.
    labels: Any
    seed: int
    start: int
    #: (n, K), or (K,) for all rows.
    class_weights: Weights | None = None

    @classmethod
    def of(
        cls,
        n: int | None,
        *,
        labels: Any = None,
        seed: int | None = None,
        start: int = 0,
        class_weights: npt.ArrayLike | None = None,
        **scaling: Unpack[ScalingOptions],
    ) -> SampleSpec:
        """Check the arguments of `DigitClient.sample` and `DigitClient.stream`. Draw a seed if *seed* is None.

        Raises:
            InvalidInputError: an argument is out of range, or two arguments contradict each other.
            TypeError: an option is unknown.
        """
        checked = Scaling(**scaling)
        if labels is not None:
            shape = np.shape(labels)
            if len(shape) > 1:
                raise InvalidInputError(f"labels have shape {shape}; expected a single label, or (n,)")
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
            raise InvalidInputError("labels and class_weights were both given; give only one of them")
        if n is None:
            raise InvalidInputError("the number of images is missing; give n, or one label for each image")
        for name, value in (("n", n), ("start", start)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise InvalidInputError(f"{name} is {value!r}; expected an integer, 0 or more")
        seed = secrets.randbelow(SEEDS) if seed is None else check_seed(seed)
        row_seeds(seed, 0, int(start) + int(n))  # raises an error if the seed has too few rows
        return cls(n=int(n), labels=labels, seed=seed, start=int(start), class_weights=weights, **checked.scaling)

    @property
    def options(self) -> SampleOptions:
        """The options for `DigitClient.sample` and `DigitClient.stream` that return the same digits again."""
        own = ("labels", "seed", "start", "class_weights")
        return cast(SampleOptions, {name: getattr(self, name) for name in own} | self.scaling)

    def part(self, first: int, end: int) -> SampleSpec:
        """The request for the part of this request from row *first* to *end − 1*."""
        labels, weights = self.labels, self.class_weights
        return replace(
            self,
            n=end - first,
            labels=labels[first:end] if np.ndim(labels) else labels,
            start=self.start + first,
            class_weights=weights[first:end] if weights is not None and weights.ndim == 2 else weights,
        )

    def rows(self, generator: Generator) -> SeededRows:
        """Check the request against a generator, and turn it into rows.

        Raises:
            InvalidInputError: the generator lacks a class, *class_weights* do not fit its classes, or its latents
                cannot be scaled like this.
        """
        self.check_distribution(generator.latent_distribution)
        weights = self.class_weights
        if weights is not None:
            weights = class_weights_of(generator, self.n, labels=None, class_weights=weights)
        return SeededRows(
            seed=self.seed,
            start=self.start,
            n=self.n,
            classes=len(generator.class_names),
            labels=None if self.labels is None else generator.class_numbers(self.labels),
            latent_options=LatentOptions.of(self, weights),
        )


def _weights(given: npt.ArrayLike) -> Weights:
    """Convert class weights to an array."""
    try:
        weights = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"class_weights are invalid ({error}); expected an array of numbers") from error
    if weights.ndim not in (1, 2):
        raise InvalidInputError(f"class_weights have shape {weights.shape}; expected (K,) for all images, or (n, K)")
    return weights


def class_weights_of(
    generator: Generator, n: int, *, labels: Any, class_weights: npt.ArrayLike | None
) -> npt.NDArray[np.float32]:
    """Check the class weights of *n* rows, or make them from labels.

    Returns:
        (n, K) float32, or (K,) if *class_weights* have that shape. Each row sums to 1.

    Raises:
        InvalidInputError: the generator lacks a class, or the weights have the wrong shape or do not sum to 1.
    """
    classes = len(generator.class_names)
    if not classes:
        raise InvalidInputError(
            f"generator {generator.generator_id} is unconditional and has no classes; "
            "leave out labels and class_weights"
        )
    if (labels is None) == (class_weights is None):
        given = "neither labels nor class_weights" if labels is None else "both labels and class_weights"
        raise InvalidInputError(f"generator {generator.generator_id} has classes, but got {given}; give one of them")
    if class_weights is None:
        numbers = generator.class_numbers(labels)
        if numbers.shape not in ((), (n,)):
            raise InvalidInputError(
                f"labels have shape {numbers.shape} for {n} latents; expected a single label, or shape ({n},)"
            )
        one_hot = np.zeros((n, classes), dtype=np.float32)
        one_hot[np.arange(n), numbers] = 1
        return one_hot
    weights = _weights(class_weights)
    fits = weights.shape in ((classes,), (n, classes))
    if not fits or not np.allclose(weights.sum(axis=-1), 1.0, atol=1e-3):
        raise InvalidInputError(
            f"class_weights have shape {weights.shape}; expected ({classes},) or ({n}, {classes}), and each row must "
            "sum to 1"
        )
    return weights


def check_sample_size(n: int, most: int) -> None:
    """Check that a sample of *n* digits fits into memory.

    Raises:
        InvalidInputError: *n* is larger than *most*.
    """
    if n > most:
        raise InvalidInputError(
            f"{n} images were requested in one sample; expected at most {most}, because a sample is held in memory: "
            "use stream(), or raise the limit with Limits(sample_rows=…)"
        )


def check_stream(batch_size: int, on_change: str) -> None:
    """Check the arguments that only `DigitClient.stream` has.

    Raises:
        InvalidInputError: an argument is out of range.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InvalidInputError(f"batch_size is {batch_size!r}; expected an integer, 1 or more")
    if on_change not in ("raise", "accept"):
        raise InvalidInputError(f'on_change is {on_change!r}; expected "raise" or "accept"')

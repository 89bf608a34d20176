"""What a user asks for, row by row: labels, row seeds, and what is to be done to their latents. No input or output."""

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
    """What is done to the latents of digits, so that label and row seed alone do not make them."""

    class_weights: Weights | None = None  # (n, K), or (K,) for all; None: the classes of the labels

    @classmethod
    def of(cls, scaling: Scaling, class_weights: Weights | None) -> LatentOptions | None:
        """None where nothing is done to them."""
        if not scaling.scaling and class_weights is None:
            return None
        return cls(class_weights=class_weights, **scaling.scaling)

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
    def latent_options(self) -> LatentOptions | None:
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
    """Rows that were asked for by their addresses."""

    labels: Labels | None
    seeds: RowSeeds
    seed: int | None = None
    latent_options: LatentOptions | None = None

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
        here = slice(first, first + n)
        return None if self.labels is None else self.labels[here], self.seeds[here]


class SampleOptions(ScalingOptions, total=False):
    """What `sample` and `stream` of both clients take; `DigitClient.sample` says what it means.

    A new option needs a line here, and a field and a check in `SampleSpec`; one that scales latents needs them in
    `ScalingOptions` and `Scaling` instead.
    """

    labels: Any
    seed: int | None
    start: int
    class_weights: npt.ArrayLike | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleSpec(Scaling):
    """What a user asked for, checked as far as it can be without knowing the generator."""

    n: int
    labels: Any  # as given
    seed: int
    start: int
    class_weights: Weights | None = None  # (n, K), or (K,) for all

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
        """Check the arguments of `sample` and `stream`; draw a seed if none is given.

        Raises:
            InvalidInputError: an argument is out of range, or *n* and *labels* disagree.
            TypeError: there is no such option.
        """
        checked = Scaling(**scaling)
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
        return cls(n=int(n), labels=labels, seed=seed, start=int(start), class_weights=weights, **checked.scaling)

    @property
    def options(self) -> SampleOptions:
        """With what `sample` and `stream` give these digits again."""
        own = ("labels", "seed", "start", "class_weights")
        return cast(SampleOptions, {name: getattr(self, name) for name in own} | self.scaling)

    def part(self, first: int, end: int) -> SampleSpec:
        """The rows from the *first* to the one before *end*."""
        labels, weights = self.labels, self.class_weights
        return replace(
            self,
            n=end - first,
            labels=labels[first:end] if np.ndim(labels) else labels,
            start=self.start + first,
            class_weights=weights[first:end] if weights is not None and weights.ndim == 2 else weights,
        )

    def rows(self, generator: Generator) -> SeededRows:
        """The addresses, now that the generator is known.

        Raises:
            InvalidInputError: a label is none of its classes, class weights are not of its classes, or its latents
                cannot be scaled so.
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

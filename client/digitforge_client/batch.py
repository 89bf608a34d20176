"""Batches of labeled digits, and their addresses.

An address is a generator id, a label and a row seed. It always gives the same image.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import ROWS_PER_SEED, SEEDS
from digitforge_client.errors import InvalidInputError
from digitforge_client.latent_space import Scaling


@dataclass(frozen=True, kw_only=True, eq=False)
class Addresses(Scaling):
    """Addresses of digits, in order, with their truncation, expansion and class weights if any.

    Raises:
        InvalidInputError: a shape or dtype is wrong, or a row seed is out of range.
    """

    #: None accepts any generator.
    generator_id: str | None
    #: (n,) class numbers. All are −1 for blends of classes and for unconditional generators.
    labels: npt.NDArray[np.int64]
    #: (n,) row seeds.
    seeds: npt.NDArray[np.int64]
    #: (n, K) for blends of classes.
    class_weights: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels.shape != self.seeds.shape or self.seeds.ndim != 1:
            raise InvalidInputError(
                f"labels have shape {self.labels.shape} and row seeds have shape {self.seeds.shape}; "
                "expected (n,) for both"
            )
        if self.class_weights is not None and self.class_weights.shape[:1] != self.seeds.shape:
            raise InvalidInputError(
                f"class_weights have shape {self.class_weights.shape}; expected one row for each of the {len(self)} "
                "row seeds"
            )
        for name, array in (("labels", self.labels), ("row seeds", self.seeds)):
            if array.dtype != np.int64:
                raise InvalidInputError(f"{name} have dtype {array.dtype}; expected int64")
        if len(self) and not 0 <= self.seeds.min() <= self.seeds.max() < SEEDS * ROWS_PER_SEED:
            raise InvalidInputError(
                f"row seeds range from {self.seeds.min()} to {self.seeds.max()}; expected 0 to "
                f"{SEEDS * ROWS_PER_SEED - 1}"
            )

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], *, generator_id: str | None = None) -> Self:
        """Make addresses from pairs of label and row seed.

        Raises:
            InvalidInputError: *pairs* are not pairs of integers.
        """
        try:
            array = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInputError(f"addresses are invalid ({error}); expected pairs of label and row seed") from error
        return cls(generator_id=generator_id, labels=array[:, 0].copy(), seeds=array[:, 1].copy())

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, which: Any) -> Addresses:
        """Select addresses with a position, a slice, or an array of positions or booleans."""
        weights = self.class_weights
        return replace(
            self,
            labels=np.atleast_1d(self.labels[which]),
            seeds=np.atleast_1d(self.seeds[which]),
            class_weights=None if weights is None else np.atleast_2d(weights[which]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch(Scaling):
    """Digits, in the requested order.

    Row *i* has the address ``(generator_id, labels[i], seeds[i])``. Truncation, expansion and class weights belong to
    the address too, if they were given.
    """

    #: (n, H, W), or (n, H, W, C) if C > 1.
    images: npt.NDArray[np.uint8]
    #: (n,) class numbers. All are −1 for blends of classes and for unconditional generators.
    labels: npt.NDArray[np.int64]
    #: (n,) row seeds.
    seeds: npt.NDArray[np.int64]
    #: Empty only in an empty batch that was made without asking a server.
    generator_id: str
    #: The user's seed, given or drawn. None if the digits were requested by address.
    seed: int | None
    #: (n, K) for blends of classes.
    class_weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def addresses(self) -> Addresses:
        """The addresses of these digits. `DigitClient.fetch` returns the same digits for them."""
        return Addresses(
            generator_id=self.generator_id,
            labels=self.labels,
            seeds=self.seeds,
            class_weights=self.class_weights,
            **self.scaling,
        )

    @property
    def start(self) -> int | None:
        """Row number of the first digit. None if the batch is empty or was requested by address."""
        return None if self.seed is None or not len(self) else int(self.seeds[0] % ROWS_PER_SEED)


#: The batches of a stream. Closing the generator cancels its requests.
Batches = Generator[Batch, None, None]


def addresses_of(digits: Batch | Addresses | Iterable[tuple[int, int]]) -> Addresses:
    """Turn a batch, or pairs of label and row seed, into addresses.

    Raises:
        InvalidInputError: *digits* are not addresses.
    """
    if isinstance(digits, Batch):
        return digits.addresses
    return digits if isinstance(digits, Addresses) else Addresses.of(digits)

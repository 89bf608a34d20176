"""What a client hands out: labeled digits, and their addresses.

An address is a generator, a label and a row seed. It always gives the same image.
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
    """Addresses of digits, in order; scaled latents and blends of classes need more than label and row seed."""

    generator_id: str | None  # None: of whichever generator answers
    labels: npt.NDArray[np.int64]  # (n,) class numbers; −1 throughout where there is no one class
    seeds: npt.NDArray[np.int64]  # (n,) row seeds
    class_weights: npt.NDArray[np.float32] | None = None  # (n, K) for blends of classes

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels.shape != self.seeds.shape or self.seeds.ndim != 1:
            raise InvalidInputError(
                f"labels have shape {self.labels.shape} and row seeds {self.seeds.shape}; expected (n,) for both"
            )
        if self.class_weights is not None and self.class_weights.shape[:1] != self.seeds.shape:
            raise InvalidInputError(
                f"class_weights have shape {self.class_weights.shape}; expected one row for each of {len(self)} seeds"
            )
        for name, array in (("labels", self.labels), ("row seeds", self.seeds)):
            if array.dtype != np.int64:
                raise InvalidInputError(f"{name} are {array.dtype}; expected int64")
        if len(self) and not 0 <= self.seeds.min() <= self.seeds.max() < SEEDS * ROWS_PER_SEED:
            raise InvalidInputError(f"a row seed lies from 0 to {SEEDS * ROWS_PER_SEED - 1}")

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], *, generator_id: str | None = None) -> Self:
        """Addresses from pairs of label and row seed.

        Raises:
            InvalidInputError: they are no such pairs.
        """
        try:
            array = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInputError(f"addresses are pairs of label and row seed: {error}") from error
        return cls(generator_id=generator_id, labels=array[:, 0].copy(), seeds=array[:, 1].copy())

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, which: Any) -> Addresses:
        """Some of them: a slice, or an array of positions or truth values."""
        weights = self.class_weights
        return replace(
            self,
            labels=np.atleast_1d(self.labels[which]),
            seeds=np.atleast_1d(self.seeds[which]),
            class_weights=None if weights is None else np.atleast_2d(weights[which]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch(Scaling):
    """Digits, in the order in which they were asked for.

    Row *i* has the address ``(generator_id, labels[i], seeds[i])``, with the truncation or expansion and the class
    weights if there are any: the same address gives the same image again.
    """

    images: npt.NDArray[np.uint8]  # (n, H, W), with a last axis C only if C > 1
    labels: npt.NDArray[np.int64]  # (n,) class numbers; −1 throughout where there is no one class
    seeds: npt.NDArray[np.int64]  # (n,) row seeds
    generator_id: str  # empty only in an empty batch for which no server was asked
    seed: int | None  # the user's seed, given or drawn; None where the rows were asked for by address
    class_weights: npt.NDArray[np.float32] | None = None  # (n, K) for blends of classes, whose labels are −1

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def addresses(self) -> Addresses:
        """Where these digits come from; `DigitClient.fetch` gives them again."""
        return Addresses(
            generator_id=self.generator_id,
            labels=self.labels,
            seeds=self.seeds,
            class_weights=self.class_weights,
            **self.scaling,
        )

    @property
    def start(self) -> int | None:
        """The row of `seed` that comes first here; None where the batch is empty or was asked for by address."""
        return None if self.seed is None or not len(self) else int(self.seeds[0] % ROWS_PER_SEED)


#: What a stream hands out; closing it cancels what is under way.
Batches = Generator[Batch, None, None]


def addresses_of(digits: Batch | Addresses | Iterable[tuple[int, int]]) -> Addresses:
    """The addresses of a batch, or of pairs of label and row seed.

    Raises:
        InvalidInputError: they are none.
    """
    if isinstance(digits, Batch):
        return digits.addresses
    return digits if isinstance(digits, Addresses) else Addresses.of(digits)

"""Where digits come from: an address is a generator, a label and a row seed, and always gives the same image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import ROWS_PER_SEED, SEEDS
from digitforge_client.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Addresses:
    """Addresses of digits, in order."""

    generator_id: str | None  # None: of whichever generator answers
    labels: npt.NDArray[np.int64]  # (n,) class numbers; −1 throughout where the generator has no classes
    seeds: npt.NDArray[np.int64]  # (n,) row seeds

    def __post_init__(self) -> None:
        if self.labels.shape != self.seeds.shape or self.seeds.ndim != 1:
            raise InvalidInputError(
                f"labels have shape {self.labels.shape} and row seeds {self.seeds.shape}; expected (n,) for both"
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
        labels, seeds = np.atleast_1d(self.labels[which]), np.atleast_1d(self.seeds[which])
        return Addresses(generator_id=self.generator_id, labels=labels, seeds=seeds)

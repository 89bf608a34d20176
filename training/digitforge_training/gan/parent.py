"""`Parent`: a trained generator that another training starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = Sequence[npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Parent:
    """A generator to adapt to other images."""

    card: dict[str, Any]  #: Its card.
    generator: Weights  #: The generator's averaged weights, in the order of its variables.
    discriminator: Weights | None  #: The discriminator's weights. None if the export lacks them.
    seen: npt.NDArray[np.int64]  #: (m,) hashes of the images that it was trained on.

    @property
    def described(self) -> dict[str, Any]:
        """What a run and the card of its generator say about the parent."""
        return {key: self.card[key] for key in ("generator_id", "recipe", "training_data")}

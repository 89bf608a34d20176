"""Expansion: how far from the middle an exported generator draws its latents.

A finished generator is often a little tame: its digits crowd where real ones are dense (density above real digits',
recall below). Latents that are multiplied by a little more than one give some of that variety back; it is the reverse
of truncation (Brock et al. 2018, arXiv:1809.11096). How much is a choice, and so it is made on training images, by a
judge (judging.py), and stands on the card.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_training.runs.judging import Judge

#: What a judge chooses from.
FACTORS: Final = (0.95, 0.975, 1.0, 1.025, 1.05, 1.075, 1.1, 1.125, 1.15)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expansion:
    """What latents are multiplied by inside an exported generator.

    Raises:
        InvalidInputError: the factor is no number above 0.
    """

    factor: float = 1.0
    judge: str | None = None  # who chose it; None: nobody did
    values: tuple[tuple[float, float], ...] = ()  # each factor that was tried, and the judge's value: lower is better

    def __post_init__(self) -> None:
        """Refuse factors that make no latents."""
        if not 0 < self.factor < math.inf:
            raise InvalidInputError(f"the expansion is {self.factor}; expected a number above 0, and 1 for none")

    def as_dict(self) -> dict[str, Any]:
        """As it stands on a card."""
        return {"factor": self.factor, "judge": self.judge}


NO_EXPANSION: Final = Expansion()


def choose(
    generate: Callable[[float], npt.NDArray[np.uint8]],
    *,
    labels: npt.NDArray[np.int64],
    judge: Judge,
    name: str,
) -> Expansion:
    """The factor whose images *judge* finds nearest to real ones.

    Args:
        generate: factor => images (n, H, W, C) uint8, of the classes in *labels*. The latents before the expansion
            had better be the same for every factor, so that none is luckier than another.
        labels: (n,) int64.
        judge: ``judge(images, labels)``, lower is better.
        name: of the judge.
    """
    values = tuple((factor, float(judge(generate(factor), labels))) for factor in FACTORS)
    best, _ = min(values, key=lambda tried: tried[1])
    return Expansion(factor=best, judge=name, values=values)

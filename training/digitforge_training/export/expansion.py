"""Expansion: a factor for the latents of an exported generator. Above 1 it gives more variety.

A trained generator often makes too many typical images: its density is higher than that of real images, and its recall
is lower. Slightly larger latents restore some variety. Expansion is the reverse of truncation (Brock et al. 2018,
arXiv:1809.11096). A judge (see ``runs/judging.py``) can choose the factor, by comparison with held-out images or else
with training images. The card records the factor.
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

#: The factors that a judge chooses from.
FACTORS: Final = (0.95, 0.975, 1.0, 1.025, 1.05, 1.075, 1.1, 1.125, 1.15)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expansion:
    """The factor that an exported generator multiplies its latents by.

    Raises:
        InvalidInputError: the factor is not a finite number above 0.
    """

    factor: float = 1.0  #: 1 leaves the latents unchanged.
    judge: str | None = None  #: Judge that chose the factor. None if the user chose it.
    values: tuple[tuple[float, float], ...] = ()  #: (factor, judge's score) of each tried factor. Lower is better.

    def __post_init__(self) -> None:
        """Check the factor."""
        if not 0 < self.factor < math.inf:
            raise InvalidInputError(
                f"expansion is {self.factor}; expected a number above 0, where 1 leaves the latents unchanged"
            )

    def as_dict(self) -> dict[str, Any]:
        """The expansion as a card holds it."""
        return {"factor": self.factor, "judge": self.judge}


NO_EXPANSION: Final = Expansion()


def choose(
    generate: Callable[[float], npt.NDArray[np.uint8]],
    *,
    labels: npt.NDArray[np.int64],
    judge: Judge,
    name: str,
) -> Expansion:
    """Choose the factor whose images *judge* scores best.

    Args:
        generate: factor => images (n, H, W, C) uint8 of the classes in *labels*. It should multiply the same latents by
            every factor, so that only the factor makes a difference.
        labels: (n,) int64.
        judge: ``judge(images, labels)``, lower is better.
        name: name of the judge.
    """
    values = tuple((factor, float(judge(generate(factor), labels))) for factor in FACTORS)
    best, _ = min(values, key=lambda tried: tried[1])
    return Expansion(factor=best, judge=name, values=values)

"""What clients do with latents: truncation, expansion and walks. Pure mathematics."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

#: Where the table for the normal distribution begins: no float32 that a generator draws lies lower.
_LOWEST: Final = -9.0
#: Points of that table: linear interpolation between them is exact to 1e-5.
_POINTS: Final = 4001


class ScalingOptions(TypedDict, total=False):
    """The arguments of `Scaling`, for functions that pass them on."""

    truncation: float | None
    expansion: float | None


@dataclass(frozen=True, kw_only=True, eq=False)  # those who inherit decide what equality means
class Scaling:
    """How latents are scaled, if at all; checked as far as it can be without knowing their distribution.

    What is made of scaled latents inherits from this: specs, batches, addresses, plans.

    Raises:
        InvalidInputError: a value is no positive number, or several are given.
    """

    truncation: float | None = None  # see `truncated`; None: none
    expansion: float | None = None  # see `expanded`; None: none

    def __post_init__(self) -> None:
        for name, value in self.scaling.items():
            number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise InvalidInputError(f"{name} is {value!r}; expected a number above 0, such as 1.0, or None")
            object.__setattr__(self, name, float(value))
        if len(self.scaling) > 1:
            raise InvalidInputError(
                f"{' and '.join(self.scaling)} were given; one undoes the other: give one of the two"
            )

    @property
    def scaling(self) -> dict[str, Any]:
        """What is given of it, by name."""
        return {name: value for name in SCALING if (value := getattr(self, name)) is not None}

    def check_distribution(self, distribution: str) -> None:
        """Raise InvalidInputError if latents of this distribution cannot be scaled so."""
        if distribution != "normal" and self.truncation is not None and self.truncation > 1:
            raise InvalidInputError(
                f"truncation is {self.truncation:g}; this generator's latents are uniform: 1 at most"
            )

    def scaled(self, latents: npt.NDArray[np.float32], *, distribution: str) -> npt.NDArray[np.float32]:
        """(n, d) float32 latents of this distribution, scaled."""
        if self.truncation is not None:
            latents = truncated(latents, self.truncation, distribution=distribution)
        if self.expansion is not None:
            latents = expanded(latents, self.expansion)
        return latents


SCALING: Final = tuple(field.name for field in fields(Scaling))


def truncated(latents: npt.NDArray[np.floating], truncation: float, *, distribution: str) -> npt.NDArray[np.float32]:
    """Latents whose components lie within ± *truncation*, with the distribution that components drawn anew would have.

    "The truncation trick: values whose magnitude is above a chosen threshold are drawn again" (Brock, Donahue &
    Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", 2019, section 3.1). Here nothing is
    drawn: each component goes from its quantile of the whole distribution to the same quantile of the truncated one. So
    the result has that distribution, still depends on the row seed alone, and stays near what it was.

    Args:
        latents: (n, d) floats of the distribution.
        truncation: the threshold, a number above 0.
        distribution: ``"normal"``, or ``"uniform"`` in [−1, 1], of which nothing lies beyond 1.

    Returns:
        (n, d) float32.
    """
    if distribution != "normal":
        return expanded(latents, truncation)
    places, values = _table(truncation)
    return (-np.sign(latents) * np.interp(-np.abs(latents), places, values)).astype(np.float32)


def expanded(latents: npt.NDArray[np.floating], expansion: float) -> npt.NDArray[np.float32]:
    """Latents multiplied by *expansion*: with one above 1, unusual digits are more frequent, and new ones appear.

    Args:
        latents: (n, d) floats.
        expansion: the factor.

    Returns:
        (n, d) float32.
    """
    return (np.asarray(latents, dtype=np.float32) * np.float32(expansion)).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _table(truncation: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where the left half of the normal distribution goes; the right half is its mirror image."""
    places = np.linspace(_LOWEST, 0.0, _POINTS)
    beyond = math.erfc(truncation / math.sqrt(2)) / 2
    below = [math.erfc(-place / math.sqrt(2)) / 2 for place in places]
    quantile = NormalDist().inv_cdf
    return places, np.array([quantile(beyond + share * (1 - 2 * beyond)) for share in below])


Array = npt.NDArray[np.floating]


def walk(first: Array, last: Array, *, steps: int, distribution: str) -> Array:
    """Latents on the way from one to another.

    Args:
        first: (d,) floats.
        last: (d,) floats.
        steps: how many, both ends included; 2 or more.
        distribution: of the latents. ``"normal"``: along the great circle, since long normal vectors have nearly one
            length, and a straight way would leave it (T. White, "Sampling Generative Networks", 2016); otherwise
            straight.

    Returns:
        (steps, d) float32.
    """
    start, end = first.astype(np.float64), last.astype(np.float64)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    if distribution == "normal":
        lengths = np.linalg.norm(start) * np.linalg.norm(end)
        angle = np.arccos(np.clip(start @ end / lengths, -1.0, 1.0)) if lengths else 0.0
        if np.sin(angle) > 1e-6:  # neither the same direction nor its opposite, which no single circle joins
            near, far = np.sin((1 - t) * angle), np.sin(t * angle)
            return ((near * start + far * end) / np.sin(angle)).astype(np.float32)
    return ((1 - t) * start + t * end).astype(np.float32)


def blend(first: int, last: int, *, steps: int, classes: int) -> Array:
    """Class weights on the way from one class to another, straight.

    Returns:
        (steps, classes) float32, rows summing to 1.
    """
    t = np.linspace(0.0, 1.0, steps)[:, None]
    return ((1 - t) * np.eye(classes)[first] + t * np.eye(classes)[last]).astype(np.float32)

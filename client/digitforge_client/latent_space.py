"""Mathematics of latents: truncation, expansion and interpolation."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

#: First point of the table for the normal distribution. Normal latents in float32 never lie below it.
_LOWEST: Final = -9.0
#: Points of the table. Linear interpolation between them is exact to 1e-5.
_POINTS: Final = 4001


class ScalingOptions(TypedDict, total=False):
    """The arguments of `Scaling`, for functions that forward them."""

    truncation: float | None
    expansion: float | None


@dataclass(frozen=True, kw_only=True, eq=False)  # subclasses decide about equality
class Scaling:
    """How to scale latents. Specs, batches, addresses and plans inherit from it.

    `check_distribution` does the checks that need the distribution of the latents.

    Raises:
        InvalidInputError: a value is not a positive number, or both values are given.
    """

    #: See `truncated`. None leaves the latents unchanged.
    truncation: float | None = None
    #: See `expanded`. None leaves the latents unchanged.
    expansion: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.scaling.items():
            number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise InvalidInputError(f"{name} is {value!r}; expected a number above 0, such as 1.0, or None")
            object.__setattr__(self, name, float(value))
        if len(self.scaling) > 1:
            raise InvalidInputError(
                f"{' and '.join(f'{name}={value:g}' for name, value in self.scaling.items())} were given; "
                "they work against each other: give only one of them"
            )

    @property
    def scaling(self) -> dict[str, Any]:
        """The options that are not None, by name."""
        return {name: value for name in SCALING if (value := getattr(self, name)) is not None}

    def check_distribution(self, distribution: str) -> None:
        """Raise InvalidInputError if latents of this distribution cannot be scaled like this."""
        if distribution != "normal" and self.truncation is not None and self.truncation > 1:
            raise InvalidInputError(
                f"truncation is {self.truncation:g}; expected at most 1, because this generator's latents are uniform"
            )

    def scaled(self, latents: npt.NDArray[np.float32], *, distribution: str) -> npt.NDArray[np.float32]:
        """Scale latents of this distribution: (n, d) float32 => (n, d) float32."""
        if self.truncation is not None:
            latents = truncated(latents, self.truncation, distribution=distribution)
        if self.expansion is not None:
            latents = expanded(latents, self.expansion)
        return latents


SCALING: Final = tuple(field.name for field in fields(Scaling))


def truncated(latents: npt.NDArray[np.floating], truncation: float, *, distribution: str) -> npt.NDArray[np.float32]:
    """Map latents into ± *truncation*, so that they follow the truncated distribution.

    The truncation trick draws each value above a threshold again (Brock, Donahue & Simonyan, "Large Scale GAN Training
    for High Fidelity Natural Image Synthesis", 2019, section 3.1). This function draws nothing. It maps each component
    to the same quantile of the truncated distribution. The result follows the same distribution as redrawn values, it
    still depends on the row seed alone, and each component stays close to its old value.

    Args:
        latents: (n, d) floats.
        truncation: the threshold, a number above 0.
        distribution: ``"normal"``, or ``"uniform"`` for values in [−1, 1], which are multiplied by *truncation*.

    Returns:
        (n, d) float32.
    """
    if distribution != "normal":
        return expanded(latents, truncation)
    places, values = _table(truncation)
    return (-np.sign(latents) * np.interp(-np.abs(latents), places, values)).astype(np.float32)


def expanded(latents: npt.NDArray[np.floating], expansion: float) -> npt.NDArray[np.float32]:
    """Multiply latents by *expansion*. A factor above 1 makes unusual digits more frequent and adds new ones.

    Args:
        latents: (n, d) floats.
        expansion: the factor.

    Returns:
        (n, d) float32.
    """
    return (np.asarray(latents, dtype=np.float32) * np.float32(expansion)).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _table(truncation: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A table that maps normal to truncated normal values: points and their values, for the left half."""
    places = np.linspace(_LOWEST, 0.0, _POINTS)
    beyond = math.erfc(truncation / math.sqrt(2)) / 2
    below = [math.erfc(-place / math.sqrt(2)) / 2 for place in places]
    quantile = NormalDist().inv_cdf
    return places, np.array([quantile(beyond + share * (1 - 2 * beyond)) for share in below])


Array = npt.NDArray[np.floating]


def walk(first: Array, last: Array, *, steps: int, distribution: str) -> Array:
    """Interpolate between two latents.

    Normal latents follow the great circle. Their norms are nearly equal in high dimensions, and a straight line would
    leave that norm (T. White, "Sampling Generative Networks", 2016). Other latents follow a straight line.

    Args:
        first: (d,) floats.
        last: (d,) floats.
        steps: number of latents, including both ends; 2 or more.
        distribution: of the latents, ``"normal"`` or ``"uniform"``.

    Returns:
        (steps, d) float32.
    """
    start, end = first.astype(np.float64), last.astype(np.float64)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    if distribution == "normal":
        lengths = np.linalg.norm(start) * np.linalg.norm(end)
        angle = np.arccos(np.clip(start @ end / lengths, -1.0, 1.0)) if lengths else 0.0
        if np.sin(angle) > 1e-6:  # vectors of the same or the opposite direction do not define a great circle
            near, far = np.sin((1 - t) * angle), np.sin(t * angle)
            return ((near * start + far * end) / np.sin(angle)).astype(np.float32)
    return ((1 - t) * start + t * end).astype(np.float32)


def blend(first: int, last: int, *, steps: int, classes: int) -> Array:
    """Interpolate class weights between two classes, on a straight line.

    Returns:
        (steps, classes) float32, rows summing to 1.
    """
    t = np.linspace(0.0, 1.0, steps)[:, None]
    return ((1 - t) * np.eye(classes)[first] + t * np.eye(classes)[last]).astype(np.float32)

"""The truncation trick, as pure mathematics: fewer unusual digits, and less variety."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

#: Where the table for the normal law begins: no float32 that a generator draws lies lower.
_LOWEST: Final = -9.0
#: Points of that table: linear interpolation between them is exact to 1e-5.
_POINTS: Final = 4001


def check_truncation(truncation: Any, *, law: str = "normal") -> float | None:
    """Return *truncation* if it can be one for latents of this law: None, or a positive number.

    Raises:
        InvalidInputError: it is something else.
    """
    if truncation is None:
        return None
    number = isinstance(truncation, int | float | np.integer | np.floating) and not isinstance(truncation, bool)
    if not number or not 0 < truncation < math.inf:
        raise InvalidInputError(f"truncation is {truncation!r}; expected a number above 0, such as 1.0, or None")
    if law != "normal" and truncation > 1:
        raise InvalidInputError(f"truncation is {truncation:g}; this generator's latents are uniform: 1 at most")
    return float(truncation)


def truncated(latents: npt.NDArray[np.floating], truncation: float, *, law: str) -> npt.NDArray[np.float32]:
    """Latents whose components lie within ± *truncation*, with the law that components drawn anew would have.

    "The truncation trick: values whose magnitude is above a chosen threshold are drawn again" (Brock, Donahue &
    Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", 2019, section 3.1). Here nothing is
    drawn: each component goes from its quantile of the whole law to the same quantile of the truncated one, so that the
    result is of the same law, still depends on the row seed alone, and stays near what it was.

    Args:
        latents: (n, d) floats of the law.
        truncation: the threshold; see `check_truncation`.
        law: ``"normal"``, or ``"uniform"`` in [−1, 1], of which nothing lies beyond 1.

    Returns:
        (n, d) float32.
    """
    if law != "normal":
        return (np.asarray(latents, dtype=np.float32) * np.float32(truncation)).astype(np.float32)
    places, values = _table(truncation)
    return (-np.sign(latents) * np.interp(-np.abs(latents), places, values)).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _table(truncation: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where the left half of the normal law goes; the right half is its mirror image."""
    places = np.linspace(_LOWEST, 0.0, _POINTS)
    beyond = math.erfc(truncation / math.sqrt(2)) / 2
    below = [math.erfc(-place / math.sqrt(2)) / 2 for place in places]
    quantile = NormalDist().inv_cdf
    return places, np.array([quantile(beyond + share * (1 - 2 * beyond)) for share in below])

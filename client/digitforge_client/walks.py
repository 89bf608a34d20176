"""Walks between latents, as pure mathematics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def walk(first: Array, last: Array, *, steps: int, law: str) -> Array:
    """Latents on the way from one to another.

    Args:
        first: (d,) floats.
        last: (d,) floats.
        steps: how many, both ends included; 2 or more.
        law: of the latents. ``"normal"``: along the great circle, since long normal vectors have nearly one length and
            a straight way would leave it (T. White, "Sampling Generative Networks", 2016); otherwise straight.

    Returns:
        (steps, d) float32.
    """
    start, end = first.astype(np.float64), last.astype(np.float64)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    if law == "normal":
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

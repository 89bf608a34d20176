"""Class counts and random subsets in given class proportions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Number of random subsets of real images over which a floor is averaged.
FLOOR_REPEATS = 10


def class_counts(proportions: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Divide *n* images among classes in given proportions. The largest remainders are rounded up.

    Args:
        proportions: (K,) numbers ≥ 0, not all zero.
        n: total number of images.

    Returns:
        (K,) int64, summing to *n*.
    """
    shares = np.asarray(proportions, np.float64)
    exact = shares / shares.sum() * n
    counts = np.floor(exact).astype(np.int64)
    for label in np.argsort(counts - exact, kind="stable")[: n - counts.sum()]:
        counts[label] += 1
    return counts


def random_subsets(
    labels: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], *, repeats: int = FLOOR_REPEATS, seed: int = 0
) -> list[npt.NDArray[np.int64]]:
    """Draw random subsets of rows with given class counts, each without replacement.

    Args:
        labels: (n,) int64.
        counts: (K,) number of rows of each class.
        repeats: number of subsets.
        seed: for the random choice.

    Returns:
        *repeats* arrays of rows. The list is empty if some class has too few rows.
    """
    members = [np.flatnonzero(labels == label) for label in range(len(counts))]
    if any(len(rows) < count for rows, count in zip(members, counts, strict=True)):
        return []
    rng = np.random.default_rng(seed)
    return [
        np.concatenate(
            [rng.choice(rows, int(count), replace=False) for rows, count in zip(members, counts, strict=True)]
        )
        for _ in range(repeats)
    ]

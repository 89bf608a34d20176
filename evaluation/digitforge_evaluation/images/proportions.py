"""Random images in given class proportions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: The floor's repeats: random subsets of real training images.
FLOOR_REPEATS = 10


def class_counts(proportions: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """*n* images shared among classes in given proportions: whole numbers, the largest remainders rounded up.

    Args:
        proportions: (K,) numbers ≥ 0, not all zero.
        n: images in all.

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
    """Random rows with given class counts, without replacement inside a subset.

    Args:
        labels: (n,) int64.
        counts: (K,) rows wanted of each class.
        repeats: how many subsets.
        seed: of the choice.

    Returns:
        *repeats* arrays of rows; none at all if some class has fewer rows than wanted.
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

"""Precision, recall, density and coverage: fidelity and variety told apart.

A set's manifold is the union of balls around its points, each reaching the point's k-th nearest neighbor in the set.

* precision: share of generated points inside the real manifold; recall: share of real points inside the generated
  one. Kynkäänniemi et al., *Improved precision and recall metric for assessing generative models*, NeurIPS 2019.
* density: how many real balls a generated point lies in, over k (1 is par; can exceed it); coverage: share of real
  balls that hold a generated point. Naeem et al., *Reliable fidelity and diversity metrics for generative models*,
  ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import (
    Floats,
    Points,
    checked_groups,
    checked_pair,
    over_distances,
    rounding,
    smallest,
)


@dataclass(frozen=True, kw_only=True)
class Manifold:
    """The four figures; all are shares in [0, 1] but density, which is ≥ 0."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(*, real: npt.ArrayLike, generated: npt.ArrayLike, k: int = 5) -> Manifold:
    """Precision, recall, density and coverage. Points on a ball's surface are inside it.

    Args:
        real: (n, d) features of real images.
        generated: (m, d) features of generated images. Compare values only at equal n, m and k.
        k: the neighbor that a ball reaches to, its own center not counted.

    Memory, besides that of one of the arrays in float64, stays below some 100 MiB whatever n and m.

    Raises:
        InvalidInputError: k < 1, n ≤ k or m ≤ k, not finite, every row the same, or widths that differ.
    """
    real_points, generated_points = _checked(real, generated, k)
    return _measure(real_points, generated_points, np.zeros(len(generated_points), np.int64), k)[0]


def manifold_and_left_out(
    *, real: npt.ArrayLike, generated: npt.ArrayLike, groups: npt.ArrayLike, k: int = 5
) -> tuple[Manifold, tuple[Manifold, ...]]:
    """`manifold`, and what it is without each group of generated points: what a jackknife needs, in one pass.

    Args:
        real: as there.
        generated: as there.
        groups: (m,) integers, 0 … G − 1, at least two.
        k: as there.

    Raises:
        InvalidInputError: as there, wrong groups, or a group without which k points or fewer are left.
    """
    real_points, generated_points = _checked(real, generated, k)
    which = checked_groups(groups, len(generated_points))
    left = len(which) - np.bincount(which).max()
    if left <= k:
        raise InvalidInputError(f"without its largest group, {left} generated points are left; expected more than {k}")
    return _measure(real_points, generated_points, which, k)


def _checked(real: npt.ArrayLike, generated: npt.ArrayLike, k: int) -> tuple[Points, Points]:
    if k < 1:
        raise InvalidInputError(f"k is {k}; expected at least 1")
    return checked_pair(real, generated, more_than=k)


def _measure(
    real: Points, generated: Points, groups: npt.NDArray[np.int64], k: int
) -> tuple[Manifold, tuple[Manifold, ...]]:
    """The figures with all groups, and without each; none of the latter if there is one group."""
    counts = np.bincount(groups)
    generated = generated[np.argsort(groups, kind="stable")]  # so that a group is a slice of columns
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    slices = [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]
    slack = rounding(real, generated)
    real_radii = _radii(real, [slice(0, len(real))], k)[0] + slack
    radii, *radii_without = _radii(generated, slices, k) + slack

    balls = np.zeros(len(generated), np.int64)  # real balls that each generated point lies in
    recalled = np.zeros((1 + len(radii_without), len(real)), bool)
    covered = np.zeros_like(recalled)

    def block(at: slice, squares: Floats) -> npt.NDArray[np.int32]:
        in_real_ball = squares <= real_radii[at, None]
        in_generated_ball = squares <= radii
        held = np.logical_or.reduceat(in_real_ball, starts, axis=1)  # by a point of each group
        reached = np.logical_or.reduceat(in_generated_ball, starts, axis=1)
        covered[0, at], recalled[0, at] = held.any(axis=1), reached.any(axis=1)
        # Without a group, balls only grow: what two groups reach is reached without either.
        unsure = np.flatnonzero(reached.sum(axis=1) < 2)
        for group, larger in enumerate(radii_without):
            covered[1 + group, at] = np.delete(held, group, axis=1).any(axis=1)
            recalled[1 + group, at] = True
            inside = squares[unsure] <= larger
            inside[:, slices[group]] = False
            recalled[1 + group, at.start + unsure] = inside.any(axis=1)
        return np.add.reduce(in_real_ball.view(np.uint8), axis=0, dtype=np.int32)

    for _, inside in over_distances(real, generated, block):
        balls += inside

    def figures(which: int, kept: npt.NDArray[np.int64]) -> Manifold:
        return Manifold(
            precision=float((kept > 0).mean()),
            recall=float(recalled[which].mean()),
            density=float(kept.mean() / k),
            coverage=float(covered[which].mean()),
        )

    return figures(0, balls), tuple(
        figures(1 + group, np.delete(balls, slices[group])) for group in range(len(radii_without))
    )


def _radii(points: Points, slices: list[slice], k: int) -> Floats:
    """Squared distance of each point to its k-th nearest other point, among all and then without each slice.

    Args:
        points: (n, d), n > k.
        slices: of the points, which together are all of them.
        k: neighbor.

    Returns:
        (1 + G, n) for G > 1 slices, else (1, n). Without its own slice, a point's value means nothing.
    """
    radii = np.empty((1 + len(slices) if len(slices) > 1 else 1, len(points)))

    def block(at: slice, squares: Floats) -> None:
        nearest = [smallest(squares[:, part], min(k + 1, part.stop - part.start)) for part in slices]
        radii[0, at] = smallest(np.concatenate(nearest, axis=1), k + 1).max(axis=1)  # the point itself is one of them
        for group in range(len(radii) - 1):
            others = np.concatenate(nearest[:group] + nearest[group + 1 :], axis=1)
            radii[1 + group, at] = smallest(others, k + 1).max(axis=1)

    for _ in over_distances(points, points, block):
        pass
    return radii

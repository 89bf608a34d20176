"""Precision, recall, density and coverage (PRDC): fidelity and variety as separate numbers.

Each point of a set has a ball around it that reaches to its k-th nearest neighbor in the set.

* precision: share of generated points in at least one real ball.
* recall: share of real points in at least one generated ball.
* density: mean number of real balls that hold a generated point, divided by k. 1 is ideal, more is possible.
* coverage: share of real balls that hold at least one generated point.

Precision and recall: Kynkäänniemi et al., *Improved precision and recall metric for assessing generative models*,
NeurIPS 2019. Density and coverage: Naeem et al., *Reliable fidelity and diversity metrics for generative models*, ICML
2020.

Compare values only at equal n, m and k.
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

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class PRDC:
    """The four metrics. All are shares in [0, 1] except density, which is ≥ 0."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(*, real: npt.ArrayLike, generated: npt.ArrayLike, k: int = 5) -> PRDC:
    """Compute precision, recall, density and coverage. A point on the surface of a ball is inside.

    It needs about 100 MiB at most for any n and m, plus a copy of one of the arrays in float64.

    Args:
        real: (n, d) features of real images.
        generated: (m, d) features of generated images.
        k: a ball reaches to the k-th nearest neighbor of its center; the center itself does not count.

    Raises:
        InvalidInputError: k < 1, n ≤ k or m ≤ k, an array is not finite or has all rows the same, or the widths differ.
    """
    real_points, points = _checked(real, generated, k)
    slack = rounding(real_points, points)
    real_radii, radii = (_radii(each, k) + slack for each in (real_points, points))

    def block(at: slice, squares: Floats) -> tuple[npt.NDArray[np.int32], Bools, Bools]:
        in_real_ball = squares <= real_radii[at, None]
        in_generated_ball = squares <= radii
        return (
            _count(in_real_ball),
            np.logical_or.reduce(in_real_ball, axis=1),
            np.logical_or.reduce(in_generated_ball, axis=1),
        )

    balls = np.zeros(len(points), np.int64)
    covered, recalled = np.empty(len(real_points), bool), np.empty(len(real_points), bool)
    for at, (inside, held, reached) in over_distances(real_points, points, block):
        balls += inside
        covered[at], recalled[at] = held, reached
    return _prdc(balls, covered, recalled, k)


def _prdc(balls: npt.NDArray[np.int64], covered: Bools, recalled: Bools, k: int) -> PRDC:
    """The four metrics by their definitions.

    Args:
        balls: (m,) number of real balls that hold each generated point.
        covered: (n,) whether each real ball holds a generated point.
        recalled: (n,) whether each real point lies in a generated ball.
        k: number of nearest neighbors.
    """
    return PRDC(
        precision=float((balls > 0).mean()),
        recall=float(recalled.mean()),
        density=float(balls.mean() / k),
        coverage=float(covered.mean()),
    )


def prdc_left_out(
    *, real: npt.ArrayLike, generated: npt.ArrayLike, groups: npt.ArrayLike, k: int = 5
) -> tuple[PRDC, ...]:
    """`prdc` without each group of generated points in turn, for a jackknife. One pass computes all.

    Args:
        real: see `prdc`.
        generated: see `prdc`.
        groups: (m,) integers, 0 … G − 1, G ≥ 2.
        k: see `prdc`.

    Raises:
        InvalidInputError: an argument is invalid, or without one of the groups only k generated points or fewer remain.
    """
    real_points, points = _checked(real, generated, k)
    which = checked_groups(groups, len(points))
    counts = np.bincount(which)
    if len(points) - counts.max() <= k:
        left = len(points) - counts.max()
        raise InvalidInputError(f"without the largest group, {left} generated points remain; expected more than {k}")
    points = points[np.argsort(which, kind="stable")]  # sorted by group, so that each group is a slice of columns
    starts = np.cumsum(counts) - counts
    slices = [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]
    slack = rounding(real_points, points)
    real_radii, radii = _radii(real_points, k) + slack, _radii(points, k) + slack
    radii_without = _radii_left_out(points, slices, k) + slack
    covered = np.zeros((len(slices), len(real_points)), bool)
    recalled = np.ones_like(covered)

    def block(at: slice, squares: Floats) -> npt.NDArray[np.int32]:
        in_real_ball = squares <= real_radii[at, None]
        held = np.logical_or.reduceat(in_real_ball, starts, axis=1)  # by a point of each group
        reached = np.logical_or.reduceat(squares <= radii, starts, axis=1)
        # Without a group, the other balls never shrink. So a point inside balls of two groups stays inside a ball.
        unsure = np.flatnonzero(reached.sum(axis=1) < 2)
        for group, larger in enumerate(radii_without):
            covered[group, at] = np.delete(held, group, axis=1).any(axis=1)
            inside = squares[unsure] <= larger
            inside[:, slices[group]] = False
            recalled[group, at.start + unsure] = inside.any(axis=1)
        return _count(in_real_ball)

    balls = np.zeros(len(points), np.int64)
    for _, inside in over_distances(real_points, points, block):
        balls += inside
    return tuple(
        _prdc(np.delete(balls, slices[group]), covered[group], recalled[group], k) for group in range(len(slices))
    )


def _checked(real: npt.ArrayLike, generated: npt.ArrayLike, k: int) -> tuple[Points, Points]:
    if k < 1:
        raise InvalidInputError(f"k is {k}; expected at least 1")
    return checked_pair(real, generated, more_than=k)


def _count(inside: Bools) -> npt.NDArray[np.int32]:
    """Number of true values in each column."""
    return np.add.reduce(inside.view(np.uint8), axis=0, dtype=np.int32)


def _radii(points: Points, k: int) -> Floats:
    """Squared distance from each of (n, d) points to its k-th nearest other point: (n,), n > k."""
    # k + 1, because each point is its own nearest neighbor.
    blocks = over_distances(points, points, lambda _, squares: smallest(squares, k + 1).max(axis=1))
    return np.concatenate([found for _, found in blocks])


def _radii_left_out(points: Points, slices: list[slice], k: int) -> Floats:
    """`_radii` without each slice of the points in turn: (G, n). Values of the points in that slice are meaningless.

    Args:
        points: (n, d).
        slices: G slices that together cover all points. More than k points must remain without each.
        k: number of nearest neighbors.
    """

    def block(_: slice, squares: Floats) -> Floats:
        nearest = [smallest(squares[:, part], min(k + 1, part.stop - part.start)) for part in slices]
        others = (np.concatenate(nearest[:group] + nearest[group + 1 :], axis=1) for group in range(len(slices)))
        return np.stack([smallest(each, k + 1).max(axis=1) for each in others])

    return np.concatenate([found for _, found in over_distances(points, points, block)], axis=1)

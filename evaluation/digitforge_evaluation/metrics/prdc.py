"""Precision, recall, density and coverage (PRDC): fidelity and variety told apart.

Around each point of a set lies a ball that reaches the point's k-th nearest neighbor in the set.

* precision: share of generated points in some real ball; recall: share of real points in some generated ball.
  Kynkäänniemi et al., *Improved precision and recall metric for assessing generative models*, NeurIPS 2019.
* density: how many real balls a generated point lies in, over k (1 is par; can exceed it); coverage: share of real
  balls that hold a generated point. Naeem et al., *Reliable fidelity and diversity metrics for generative models*,
  ICML 2020.

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
    """Precision, recall, density and coverage. Points on a ball's surface are inside it.

    Memory, besides that of one of the arrays in float64, stays below some 100 MiB whatever n and m.

    Args:
        real: (n, d) features of real images.
        generated: (m, d) features of generated images.
        k: the neighbor that a ball reaches to, its own center not counted.

    Raises:
        InvalidInputError: k < 1, n ≤ k or m ≤ k, not finite, every row the same, or widths that differ.
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
    """The definitions.

    Args:
        balls: (m,) real balls that each generated point lies in.
        covered: (n,) whether each real ball holds a generated point.
        recalled: (n,) whether each real point lies in a generated ball.
        k: neighbor.
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
    """`prdc` without each group of generated points in turn: what a jackknife needs, in one pass.

    Args:
        real: as there.
        generated: as there.
        groups: (m,) integers, 0 … G − 1, at least two.
        k: as there.

    Raises:
        InvalidInputError: as there, wrong groups, or a group without which k points or fewer are left.
    """
    real_points, points = _checked(real, generated, k)
    which = checked_groups(groups, len(points))
    counts = np.bincount(which)
    if len(points) - counts.max() <= k:
        left = len(points) - counts.max()
        raise InvalidInputError(f"without its largest group, {left} generated points are left; expected more than {k}")
    points = points[np.argsort(which, kind="stable")]  # so that a group is a slice of columns
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
        # Without a group, balls only grow: what two groups reach is reached without either.
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
    """How many of each column are true."""
    return np.add.reduce(inside.view(np.uint8), axis=0, dtype=np.int32)


def _radii(points: Points, k: int) -> Floats:
    """Squared distance of each of (n, d) points to its k-th nearest other point: (n,), n > k."""
    # The point itself is among the k + 1 nearest.
    blocks = over_distances(points, points, lambda _, squares: smallest(squares, k + 1).max(axis=1))
    return np.concatenate([found for _, found in blocks])


def _radii_left_out(points: Points, slices: list[slice], k: int) -> Floats:
    """`_radii` without each slice of the points in turn: (G, n). Without its own slice, a point's value means nothing.

    Args:
        points: (n, d).
        slices: of the points, which together are all of them. More than k points are left without each.
        k: neighbor.
    """

    def block(_: slice, squares: Floats) -> Floats:
        nearest = [smallest(squares[:, part], min(k + 1, part.stop - part.start)) for part in slices]
        others = (np.concatenate(nearest[:group] + nearest[group + 1 :], axis=1) for group in range(len(slices)))
        return np.stack([smallest(each, k + 1).max(axis=1) for each in others])

    return np.concatenate([found for _, found in over_distances(points, points, block)], axis=1)

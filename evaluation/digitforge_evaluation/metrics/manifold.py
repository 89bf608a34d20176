"""Precision, recall, density and coverage: fidelity and variety told apart.

A set's manifold is the union of balls around its points, each reaching the point's k-th nearest neighbour in the set.

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
from digitforge_evaluation.metrics.arrays import Floats, checked_pair, rounding, squared_distances


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
        k: the neighbour that a ball reaches to, its own centre not counted.

    Memory stays below some 100 MiB whatever n and m.

    Raises:
        InvalidInputError: k < 1, n ≤ k or m ≤ k, not finite, every row the same, or widths that differ.
    """
    if k < 1:
        raise InvalidInputError(f"k is {k}; expected at least 1")
    real_points, generated_points = checked_pair(real, generated, more_than=k)
    centre = real_points.mean(axis=0)  # near the origin, squared distances lose fewer digits
    real_points, generated_points = real_points - centre, generated_points - centre
    slack = rounding(real_points, generated_points)
    real_radii = kth_neighbour(real_points, k) + slack
    generated_radii = kth_neighbour(generated_points, k) + slack

    recalled = np.zeros(len(real_points), bool)
    covered = np.zeros(len(real_points), bool)
    balls = np.zeros(len(generated_points), np.int64)  # real balls that each generated point lies in
    for at, squares in squared_distances(real_points, generated_points):
        recalled[at] = (squares <= generated_radii).any(axis=1)
        in_real_ball = squares <= real_radii[at, None]
        covered[at] = in_real_ball.any(axis=1)
        balls += in_real_ball.sum(axis=0)
    return Manifold(
        precision=float((balls > 0).mean()),
        recall=float(recalled.mean()),
        density=float(balls.mean() / k),
        coverage=float(covered.mean()),
    )


def kth_neighbour(points: Floats, k: int) -> Floats:
    """Squared distance of each point to its k-th nearest other point.

    Args:
        points: (n, d), n > k.

    Returns:
        (n,).
    """
    radii = np.empty(len(points))
    for at, squares in squared_distances(points, points):
        squares.partition(k, axis=1)  # place 0 is the point itself
        radii[at] = squares[:, k]
    return radii

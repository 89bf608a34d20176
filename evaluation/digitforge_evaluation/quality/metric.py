"""One entry of the registry: how to compute a metric and its interval, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.frechet import size_name
from digitforge_evaluation.metrics.intervals import Groups, Interval, jackknife_interval, share_interval
from digitforge_evaluation.quality.comparison import Comparison, StandIns, training_subsets
from digitforge_evaluation.quality.reference import Floor

#: Which values are better. "as real": the value of real images is the ideal.
Better = Literal["lower", "higher", "as real"]
Value = Callable[[Comparison], float]
#: ``interval(metric, comparison, value)``, where ``value = metric(comparison)``. None if nothing varies.
IntervalOf = Callable[[Value, Comparison, float], Interval | None]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The value of a metric, with an interval."""

    value: float
    interval: Interval | None = None  #: 95 %, over the generated images alone; None if it cannot be computed


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    A metric is left out if there are fewer than ``fewest`` images, or if the ``Comparison`` lacks something that the
    functions ask for.
    """

    title: str  #: name in tables
    name: str  #: full name, with the placeholders ``{features}``, ``{n}`` and ``{k}`` if the value depends on them
    better: Better  #: which values are better
    value: Value  #: computes the value of a comparison
    interval: IntervalOf | None  #: computes the interval; None: the metric has no interval
    fewest: Callable[[Comparison], int] = lambda _: 2  #: smallest number of generated images
    fewest_applies_to_held_out: bool = False  #: whether ``fewest`` also applies to the held-out images
    training: StandIns | None = training_subsets  #: training images to measure in place of generated ones
    unseen: StandIns | None = None  #: held-out images to measure in place of generated ones
    floor: Callable[[Comparison], Floor] | None = None  #: computes the floor of training images, without ``training``
    named: bool = False  #: whether tables show the full name, not the title
    stage: str = "comparing"  #: progress message while the metric is computed

    def full_name(self, *, features: str, n: int, k: int) -> str:
        """The full name, with all that the value depends on: ``fd[digitnet-64]@10k``.

        Args:
            features: name of the feature network.
            n: number of generated images, in all or of one class.
            k: number of nearest neighbors.

        Raises:
            InvalidInputError: n < 1.
        """
        return self.name.format(features=features, n=size_name(n), k=k)

    def measure(self, comparison: Comparison) -> Estimate:
        """Compute the value, and the interval if the comparison has groups.

        Raises:
            InvalidInputError: the metric cannot be computed. The message is the reason that reports print after
                "left out:".
        """
        fewest = self.fewest(comparison)
        if self.fewest_applies_to_held_out and len(comparison.test) < fewest:
            raise InvalidInputError(f"needs at least {fewest} held-out images; there are {len(comparison.test)}")
        if len(comparison.generated) < fewest:
            raise InvalidInputError(f"needs at least {fewest} generated images; there are {len(comparison.generated)}")
        value = self.value(comparison)
        if comparison.groups is None or self.interval is None:
            return Estimate(value=value)
        try:
            return Estimate(value=value, interval=self.interval(self.value, comparison, value))
        except InvalidInputError:  # enough images for the value, but too few to leave a group out
            return Estimate(value=value)


def jackknife(value: Value, comparison: Comparison, whole: float) -> Interval:
    """A jackknife interval: compute the metric again without each group of generated images."""
    groups = comparison.groups
    assert groups is not None  # `Metric.measure` asks for an interval only if there are groups
    return jackknife_interval(whole, [value(comparison.of(groups != group)) for group in np.unique(groups)])


def jackknife_of(
    left_out: Callable[[Comparison, Groups], npt.ArrayLike], *, low: float = -inf, high: float = inf
) -> IntervalOf:
    """A jackknife interval for a metric that has a fast function to leave groups out.

    Args:
        left_out: computes the metric without each group of generated images.
        low: smallest possible value of the metric; the interval is cut off there.
        high: largest possible value.
    """

    def interval(_: Value, comparison: Comparison, whole: float) -> Interval:
        assert comparison.groups is not None
        below, above = jackknife_interval(whole, left_out(comparison, comparison.groups))
        return max(low, below), min(high, above)

    return interval


def wilson(_: Value, comparison: Comparison, whole: float) -> Interval:
    """Wilson's interval, for a metric that is a share of the generated images."""
    return share_interval(whole, len(comparison.generated))

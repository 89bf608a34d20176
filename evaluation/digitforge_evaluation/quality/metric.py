"""What an entry of the registry says of a metric: how it is computed, how sure it is, and what it needs."""

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

#: "as real" where real digits' own value is the ideal.
Better = Literal["lower", "higher", "as real"]
Value = Callable[[Comparison], float]
#: Of a metric's function, what is compared, and the value there; None where nothing varies.
Spread = Callable[[Value, Comparison, float], Interval | None]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric of some generated images."""

    value: float
    interval: Interval | None = None  # 95 %, over the generated images alone; None where there are too few for one


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. What it needs is what its functions ask a `Comparison` for, and a number of images."""

    title: str  # in tables
    name: str  # in full, with {features}, {n} and {k} where the value depends on them
    better: Better
    value: Value
    interval: Spread
    fewest: Callable[[Comparison], int] = lambda _: 2  # images
    held_out_too: bool = False  # whether so many held-out images are needed as well
    stand_ins: StandIns = training_subsets  # the real images that are measured in place of generated ones
    floor: Callable[[Comparison], Floor] | None = None  # what real images score, if that is found in another way
    named: bool = False  # in tables by its full name instead of its title
    stage: str = "comparing"  # what a user waits for

    def full_name(self, *, features: str, n: int, k: int) -> str:
        """The name with its features, and with what its value depends on: ``fd[digitnet-64]@10k``.

        Args:
            features: name of the feature network.
            n: images in the generated set, or of the class.
            k: nearest neighbors.

        Raises:
            InvalidInputError: n < 1.
        """
        return self.name.format(features=features, n=size_name(n), k=k)

    def measure(self, comparison: Comparison) -> Estimate:
        """The value, and its interval if the comparison has groups.

        Raises:
            InvalidInputError: it cannot be computed; the message says why, in a form that fits behind "left out:".
        """
        fewest = self.fewest(comparison)
        if self.held_out_too and len(comparison.test) < fewest:
            raise InvalidInputError(f"needs {fewest} held-out images")
        if len(comparison.generated) < fewest:
            raise InvalidInputError(f"needs {fewest} generated images")
        value = self.value(comparison)
        if comparison.groups is None:
            return Estimate(value=value)
        try:
            return Estimate(value=value, interval=self.interval(self.value, comparison, value))
        except InvalidInputError:  # images enough for a value, and too few to leave any out
            return Estimate(value=value)


def jackknife(value: Value, comparison: Comparison, whole: float) -> Interval:
    """The metric is computed again without each group of generated images."""
    groups = comparison.groups
    assert groups is not None  # `Metric.measure` asks for an interval with groups alone
    return jackknife_interval(whole, [value(comparison.of(groups != group)) for group in np.unique(groups)])


def jackknife_of(
    left_out: Callable[[Comparison, Groups], npt.ArrayLike], *, low: float = -inf, high: float = inf
) -> Spread:
    """A jackknife of a metric that has a faster way to its values without each group; cut off at *low* and *high*."""

    def interval(_: Value, comparison: Comparison, whole: float) -> Interval:
        assert comparison.groups is not None
        below, above = jackknife_interval(whole, left_out(comparison, comparison.groups))
        return max(low, below), min(high, above)

    return interval


def wilson(_: Value, comparison: Comparison, whole: float) -> Interval:
    """Of a share of the generated images."""
    return share_interval(whole, len(comparison.generated))

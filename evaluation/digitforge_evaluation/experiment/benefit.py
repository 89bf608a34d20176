"""Does the distance predict the benefit? The feature distances of an experiment's generators beside what they did.

A generator's distance is the Fréchet distance between its digits and the held-out images, in `digitnet-64`'s features
and at one sample size for all; its benefit is the difference that its digits made to a classifier. Across generators
the two are compared by rank (C. Spearman, "The proof and measurement of association between two things", 1904).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.analysis import REAL, Analysis
from digitforge_evaluation.experiment.arms import PLAIN, PRIMARY, Arm
from digitforge_evaluation.experiment.statistics import Interval
from digitforge_evaluation.experiment.store import CellKey, CellResult
from digitforge_evaluation.features import digitnet
from digitforge_evaluation.features.extract import FeatureNetwork
from digitforge_evaluation.images.sources import Source
from digitforge_evaluation.metrics.frechet import distance_name, frechet_distance, gaussian
from digitforge_training.data import Dataset

#: Fewer generators have no correlation worth telling: of three, one order in three is perfect one way or the other.
GENERATORS_FOR_A_CORRELATION: Final = 4
#: Orders of the generators in the permutation test: all orders of up to eight, so many random ones of more.
ORDERS: Final = math.factorial(8)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One generator (for ``strict``, the mean of those of all subsets), in one arm, at one size."""

    generator: str  # budget and name, as arms have it
    arm: str  # without generator
    baseline: Arm
    n_per_class: int
    distance: float
    difference: float  # of arm and baseline, in the measure of the analysis
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """How well the distance orders generators by their benefit."""

    arm: str  # without generator
    baseline: Arm
    n_per_class: int
    generators: int
    rho: float  # Spearman's; −1: the nearer to real digits, the larger the benefit, without exception
    p_value: float  # two-sided, of the permutation test


@dataclass(frozen=True, kw_only=True)
class Benefit:
    """Distance against benefit."""

    distance_name: str
    points: tuple[Point, ...]
    correlations: tuple[Correlation, ...]


def check_distances(held_out: Dataset, n: int) -> None:
    """Fail before an experiment rather than after it.

    Raises:
        InvalidInputError: the images do not suit the feature network, or are too few.
    """
    if held_out.images.shape[1:] != digitnet.IMAGE_SHAPE:
        raise InvalidInputError(
            f"{held_out.name} has images {held_out.images.shape[1:]}, and {digitnet.NAME} measures those of "
            f"{digitnet.IMAGE_SHAPE} alone; leave --distances out"
        )
    if min(n, len(held_out)) <= digitnet.FEATURES:
        raise InvalidInputError(
            f"a distance in {digitnet.FEATURES} features needs more images than those: {n} generated and "
            f"{len(held_out)} held-out ones are too few"
        )


def distances(
    generators: Iterable[Source], *, held_out: Dataset, network: FeatureNetwork, n: int, seed: int = 0
) -> tuple[str, dict[str, float]]:
    """The distance of each generator's digits from the held-out images.

    Args:
        generators: with cards.
        held_out: real images; generated digits have their class proportions.
        network: gives the features.
        n: generated digits of each.
        seed: of the drawing.

    Returns:
        What to call the distance, with features and sample size, and its value by generator id.

    Raises:
        InvalidInputError: the images do not suit the network, or are too few for it.
    """
    real = gaussian(network.measure(held_out.images).features, name="held-out")
    proportions = tuple(np.bincount(held_out.labels, minlength=len(held_out.class_names)).tolist())
    values = {}
    for generator in generators:
        assert generator.card is not None  # budget_of refuses generators without one
        images = generator.draw(n, proportions=proportions, seed=seed).images
        generated = gaussian(network.measure(images).features, name="generated")
        values[str(generator.card["generator_id"])] = frechet_distance(real=real, generated=generated)
    return distance_name(network.name, n), values


def benefit(
    analysis: Analysis, cells: Mapping[CellKey, CellResult], *, distance_name: str, values: Mapping[str, float]
) -> Benefit:
    """Put distances beside the differences that an experiment found.

    Generated digits are judged in two places: with real images against those alone, and in the primary comparison.
    A generator without a distance is left out.

    Args:
        analysis: of the cells.
        cells: which say what generators an arm had.
        distance_name: what the distance is called, in full.
        values: distances by generator id.
    """
    points = []
    for comparison in analysis.comparisons:
        arm = comparison.arm
        pair = (arm.name, comparison.baseline)
        if arm.variant != PLAIN or not arm.source or pair not in {("gan", REAL), (PRIMARY, analysis.baseline)}:
            continue
        ids = [
            note["generator_id"]
            for key, cell in cells.items()
            if key.arm == arm and key.n_per_class == comparison.n_per_class
            for note in cell.generated
        ]
        if not ids or not all(each in values for each in ids):
            continue
        points.append(
            Point(
                generator=arm.source,
                arm=arm.name,
                baseline=comparison.baseline,
                n_per_class=comparison.n_per_class,
                distance=float(np.mean([values[each] for each in ids])),
                difference=comparison.difference,
                interval=comparison.interval,
            )
        )
    groups = dict.fromkeys((point.arm, point.baseline, point.n_per_class) for point in points)
    found = (_correlation([p for p in points if (p.arm, p.baseline, p.n_per_class) == group]) for group in groups)
    return Benefit(
        distance_name=distance_name,
        points=tuple(points),
        correlations=tuple(correlation for correlation in found if correlation is not None),
    )


def _correlation(points: list[Point]) -> Correlation | None:
    x, y = [point.distance for point in points], [point.difference for point in points]
    if len(points) < GENERATORS_FOR_A_CORRELATION or len(set(x)) == 1 or len(set(y)) == 1:
        return None

    ranks_x, ranks_y = (stats.rankdata(values) - (len(points) + 1) / 2 for values in (x, y))
    test = stats.permutation_test(
        (ranks_x,),
        lambda ranks, axis: np.abs((ranks * ranks_y).sum(axis=axis)),  # of multiples of a half: ties are exact
        permutation_type="pairings",
        alternative="greater",
        vectorized=True,
        n_resamples=ORDERS,
        rng=np.random.default_rng(0),
    )
    return Correlation(
        arm=points[0].arm,
        baseline=points[0].baseline,
        n_per_class=points[0].n_per_class,
        generators=len(points),
        rho=float(ranks_x @ ranks_y) / float(np.linalg.norm(ranks_x) * np.linalg.norm(ranks_y)),
        p_value=float(test.pvalue),
    )

"""Does a generator's feature distance predict its benefit?

The distance is the Fréchet distance between the generator's digits and the held-out images, in the features of
``digitnet-64``, with the same sample size for all generators. The benefit is how much the digits change a classifier's
accuracy. Spearman's rank correlation compares the two across generators (C. Spearman, "The proof and measurement of
association between two things", 1904).
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

#: A correlation needs this many generators. With three, a third of all orders give a perfect correlation.
GENERATORS_FOR_A_CORRELATION: Final = 4
#: Number of orders in the permutation test: all orders of up to eight generators, random orders of more.
ORDERS: Final = math.factorial(8)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One generator in one arm at one size. All strict generators together are one point: the mean over all subsets."""

    generator: str  #: budget and name, as in ``Arm.source``
    arm: str  #: name of the arm, without the generator
    baseline: Arm
    n_per_class: int
    distance: float
    difference: float  #: arm minus baseline, in the measure of the analysis
    interval: Interval | None  #: of the difference; None below three subsets


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """The rank correlation of distance and benefit."""

    arm: str  #: name of the arm, without the generator
    baseline: Arm
    n_per_class: int
    generators: int  #: number of generators
    rho: float  #: Spearman's; −1 if each smaller distance comes with a larger benefit
    p_value: float  #: two-sided, of the permutation test


@dataclass(frozen=True, kw_only=True)
class Benefit:
    """The generators' distances and benefits."""

    distance_name: str  #: with features and sample size, such as ``fd[digitnet-64]@10k``
    points: tuple[Point, ...]
    correlations: tuple[Correlation, ...]


def check_distances(held_out: Dataset, n: int) -> None:
    """Check before an experiment that its distances can be measured.

    Args:
        held_out: the held-out images.
        n: generated images per generator.

    Raises:
        InvalidInputError: the feature network does not fit the images, or there are too few images.
    """
    if held_out.images.shape[1:] != digitnet.IMAGE_SHAPE:
        raise InvalidInputError(
            f"{held_out.name} has images of shape {held_out.images.shape[1:]}, but {digitnet.NAME} needs the shape "
            f"{digitnet.IMAGE_SHAPE}; leave out --distances"
        )
    if min(n, len(held_out)) <= digitnet.FEATURES:
        raise InvalidInputError(
            f"there are {n} generated and {len(held_out)} held-out images; a distance in {digitnet.FEATURES} features "
            f"needs more than {digitnet.FEATURES} of each. Ask for more with --distances, or leave it out"
        )


def distances(
    generators: Iterable[Source], *, held_out: Dataset, network: FeatureNetwork, n: int, seed: int = 0
) -> tuple[str, dict[str, float]]:
    """Measure the distance of each generator's digits from the held-out images.

    Args:
        generators: generators with cards.
        held_out: real images. The generated images get their class proportions.
        network: computes the features.
        n: generated images per generator.
        seed: seed of the generated images.

    Returns:
        The name of the distance, with features and sample size, and its value by generator id.

    Raises:
        InvalidInputError: the network does not fit the images, or there are too few images.
    """
    real = gaussian(network.measure(held_out.images).features, name="held-out")
    proportions = tuple(np.bincount(held_out.labels, minlength=len(held_out.class_names)).tolist())
    values = {}
    for generator in generators:
        assert generator.card is not None  # budget_of refuses generators without a card
        images = generator.draw(n, proportions=proportions, seed=seed).images
        generated = gaussian(network.measure(images).features, name="generated")
        values[str(generator.card["generator_id"])] = frechet_distance(real=real, generated=generated)
    return distance_name(network.name, n), values


def benefit(
    analysis: Analysis, cells: Mapping[CellKey, CellResult], *, distance_name: str, values: Mapping[str, float]
) -> Benefit:
    """Combine distances with the differences that an experiment found.

    The differences are those of ``gan`` against ``real``, and those of the primary family. Generators without a
    distance are left out.

    Args:
        analysis: the analysis of *cells*.
        cells: finished cells. They name the generators of each arm.
        distance_name: name of the distance, with features and sample size.
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
        lambda ranks, axis: np.abs((ranks * ranks_y).sum(axis=axis)),  # no rounding, so equal values stay equal
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

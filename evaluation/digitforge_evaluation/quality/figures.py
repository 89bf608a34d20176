"""All figures of one set of images against real held-out ones, from one feature pass over each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.statistics import t_interval
from digitforge_evaluation.features.extract import Measured
from digitforge_evaluation.metrics.agreement import agreeing, classifier_score
from digitforge_evaluation.metrics.bins import Bins, fill, missing_share
from digitforge_evaluation.metrics.copying import Nearness, copying_score, copying_scores_left_out
from digitforge_evaluation.metrics.extrapolation import extrapolated_distance, fewest_images
from digitforge_evaluation.metrics.frechet import Gaussian, distance_name, frechet_distance, gaussian, size_name
from digitforge_evaluation.metrics.intervals import Groups, Interval, jackknife_interval, share_interval
from digitforge_evaluation.metrics.kernel import kernel_distance, left_out_discrepancies
from digitforge_evaluation.metrics.manifold import manifold, manifold_and_left_out
from digitforge_evaluation.metrics.memorization import too_near

#: Nearest neighbors that the manifold's balls reach to.
NEIGHBORS = 5
KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1000


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a figure is, for tables."""

    title: str
    better: str  # "lower", "higher", or "as real" where real digits' own value is the ideal


KINDS = {
    "distance": Kind(title="Fréchet distance", better="lower"),
    "extrapolated": Kind(title="Fréchet distance, extrapolated", better="lower"),
    "kernel": Kind(title="kernel distance", better="lower"),
    "precision": Kind(title="precision", better="higher"),
    "recall": Kind(title="recall", better="higher"),
    "density": Kind(title="density", better="as real"),
    "coverage": Kind(title="coverage", better="higher"),
    "missing": Kind(title="in missing modes", better="lower"),
    "agreement": Kind(title="label agreement", better="higher"),
    "score": Kind(title="classifier score", better="higher"),
    "train_on_generated": Kind(title="accuracy, generated to real", better="higher"),
    "train_on_real": Kind(title="accuracy, real to generated", better="higher"),
    "authenticity": Kind(title="authenticity", better="as real"),
    "copying": Kind(title="copying, C_T", better="as real"),
}
#: Keys of the distances of single classes begin so; the class's number follows.
CLASS_DISTANCE: Final = "distance of class "
_MANIFOLD: Final = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure of some generated images."""

    value: float
    interval: Interval | None = None  # 95 %, over the generated images alone; None where none was asked for


Estimates = dict[str, Estimate]


def figures_without_real_images(
    generated: Measured,
    labels: npt.NDArray[np.int64] | None,
    moments: Gaussian,
    *,
    of_classes: Mapping[int, Gaussian] | None = None,
    groups: Groups | None = None,
) -> Estimates:
    """The figures for which means and covariances of the real features are enough.

    Args:
        generated: of n images, n > d.
        labels: (n,) the classes asked for; None if there were none, and then there is no agreement.
        moments: of the real features.
        of_classes: of the real features of single classes; a class with too few generated images is left out.
        groups: (n,) groups of images for a jackknife; None for no intervals.

    Returns:
        ``distance``, ``extrapolated`` if there are images enough, ``score`` and ``agreement`` if the network gives
        probabilities, and the distances of classes.

    Raises:
        InvalidInputError: too few images, or features that cannot be measured.
    """
    features, n = generated.features, len(generated.features)

    def distance(rows: npt.NDArray[np.intp], real: Gaussian = moments) -> float:
        return frechet_distance(real=real, generated=gaussian(features[rows], name="generated"))

    every = np.arange(n)
    left = n if groups is None else n - int(np.bincount(groups).max())
    if groups is not None and left <= features.shape[1]:
        distance(every)  # says so itself if there are too few images without leaving out any
        groups = None
    found = {"distance": _jackknifed(distance, every, groups)}
    if left >= fewest_images(features.shape[1]):
        found["extrapolated"] = _jackknifed(
            lambda rows: extrapolated_distance(
                real=moments, generated=features[rows], labels=None if labels is None else labels[rows]
            ),
            every,
            groups,
        )
    if generated.probabilities is not None:
        probabilities = generated.probabilities
        if labels is not None:
            share = float(agreeing(probabilities, labels).mean())
            found["agreement"] = Estimate(value=share, interval=None if groups is None else share_interval(share, n))
        found["score"] = _jackknifed(lambda rows: classifier_score(probabilities[rows]), every, groups)
    for label, real in (of_classes or {}).items() if labels is not None else ():
        rows = np.flatnonzero(labels == label)
        left = len(rows) - (0 if groups is None else int(np.bincount(groups[rows]).max(initial=0)))
        if left > features.shape[1]:
            found[f"{CLASS_DISTANCE}{label}"] = _jackknifed(
                lambda rows, real=real: distance(rows, real),  # type: ignore[misc]
                rows,
                groups,
            )
    return found


def _jackknifed(
    figure: Callable[[npt.NDArray[np.intp]], float], rows: npt.NDArray[np.intp], groups: Groups | None
) -> Estimate:
    """A figure of some rows, with its interval if there are groups."""
    value = figure(rows)
    if groups is None:
        return Estimate(value=value)
    left_out = [figure(rows[groups[rows] != group]) for group in np.unique(groups[rows])]
    return Estimate(value=value, interval=jackknife_interval(value, left_out))


def figures_against_real_images(
    *, real: Measured, generated: Measured, k: int = NEIGHBORS, groups: Groups | None = None
) -> Estimates:
    """The figures that need the real features themselves.

    Args:
        real: of m held-out images, m > k.
        generated: of n images, n > k.
        k: nearest neighbors that the manifold's balls reach to.
        groups: (n,) groups of images for a jackknife; None for no intervals.

    Returns:
        ``precision``, ``recall``, ``density``, ``coverage``, and ``kernel`` if n and m reach `KERNEL_SUBSET_SIZE`.

    Raises:
        InvalidInputError: too few images, or features that cannot be measured.
    """
    if groups is None:
        shape = manifold(real=real.features, generated=generated.features, k=k)
        found = {key: Estimate(value=getattr(shape, key)) for key in _MANIFOLD}
    else:
        shape, without = manifold_and_left_out(real=real.features, generated=generated.features, groups=groups, k=k)
        found = {
            key: Estimate(
                value=getattr(shape, key),
                interval=_share(getattr(shape, key), [getattr(each, key) for each in without], key),
            )
            for key in _MANIFOLD
        }
    if min(len(real.features), len(generated.features)) >= KERNEL_SUBSET_SIZE:
        value = kernel_distance(
            real=real.features, generated=generated.features, subsets=KERNEL_SUBSETS, subset_size=KERNEL_SUBSET_SIZE
        ).mean
        interval = None
        if groups is not None:
            interval = jackknife_interval(
                value, left_out_discrepancies(real=real.features, generated=generated.features, groups=groups)
            )
        found["kernel"] = Estimate(value=value, interval=interval)
    return found


def _share(value: float, left_out: list[float], key: str) -> Interval:
    low, high = jackknife_interval(value, left_out)
    return max(0.0, low), high if key == "density" else min(1.0, high)


def figures_against_training_images(
    *,
    training: npt.NDArray[np.float32],
    generated: Measured,
    held_out: Nearness,
    nearness: Nearness,
    groups: Groups,
) -> Estimates:
    """The figures that tell copies of training images.

    Args:
        training: (m, d) features of the images that the generator has seen.
        generated: of n images.
        held_out: how near the held-out images are to the training images.
        nearness: how near the generated ones are.
        groups: (n,) groups of images for a jackknife.

    Returns:
        ``authenticity``, and ``copying`` if there are images enough.

    Raises:
        InvalidInputError: too few images, or features that cannot be measured.
    """
    share = 1 - float(too_near(training=training, samples=generated.features).mean())
    found = {"authenticity": Estimate(value=share, interval=share_interval(share, len(generated.features)))}
    try:
        value = copying_score(held_out=held_out, generated=nearness)
        left_out = copying_scores_left_out(held_out=held_out, generated=nearness, groups=groups)
    except InvalidInputError:  # too few images in every cell; the report says so
        return found
    return found | {"copying": Estimate(value=value, interval=jackknife_interval(value, left_out))}


def missing_modes(
    partitions: Sequence[Bins],
    *,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    groups: Groups | None = None,
) -> Estimate:
    """The share of real images that lie in missing bins: the mean over partitions of the real images.

    Args:
        partitions: two or more, of the same real images.
        pixels: (n, …) of the generated images.
        labels: (n,) their classes.
        groups: (n,) groups of images for a jackknife; None for no interval.

    Returns:
        The interval covers the generated images and the choice of partitions: their two squared margins, by jackknife
        and by Student's t, are added. None where all partitions agree, whatever group is left out.
    """
    parts = [np.ones(len(labels), bool)] if groups is None else [groups == one for one in np.unique(groups)]
    counts = [[fill(bins.centers, pixels=pixels[part], labels=labels[part]) for part in parts] for bins in partitions]

    def shares(without: int | None = None) -> list[float]:
        return [
            missing_share(bins.counts, np.sum([each for part, each in enumerate(found) if part != without], axis=0))
            for bins, found in zip(partitions, counts, strict=True)
        ]

    value = float(np.mean(shares()))
    if groups is None:
        return Estimate(value=value)
    of_images = jackknife_interval(value, [float(np.mean(shares(part))) for part in range(len(parts))])
    margin = hypot(value - of_images[0], value - t_interval(shares()).low)
    return Estimate(value=value, interval=(max(0.0, value - margin), min(1.0, value + margin)) if margin else None)


def figure_name(key: str, *, features: str, n: int, k: int) -> str:
    """A figure's full name: with its features, and with what its value depends on.

    Args:
        key: one of `KINDS`, or a class's distance.
        features: name of the feature network.
        n: images in the generated set, or of the class.
        k: nearest neighbors.

    Raises:
        InvalidInputError: no such figure.
    """
    names = {
        "distance": distance_name(features, n),
        "extrapolated": f"fd_infinity[{features}]@{size_name(n)}",
        "kernel": f"kd[{features}]@{KERNEL_SUBSETS}x{KERNEL_SUBSET_SIZE}",
        "missing": f"missing_modes[pixels]@{size_name(n)}",
        "agreement": "label_agreement",
        "score": f"classifier_score[{features}]",
        "train_on_generated": f"train_on_generated[cnn]@{size_name(n)}",
        "train_on_real": f"train_on_real[cnn]@{size_name(n)}",
        "authenticity": f"authenticity[{features}]",
        "copying": f"c_t[{features}]@{size_name(n)}",
        **{key: f"{key}[{features},k={k}]" for key in _MANIFOLD},
    }
    if key.startswith(CLASS_DISTANCE):
        return distance_name(features, n)
    if key not in names:
        raise InvalidInputError(f"there is no figure {key!r}; expected one of {', '.join(names)}")
    return names[key]

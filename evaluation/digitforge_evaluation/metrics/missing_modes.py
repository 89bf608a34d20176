"""Missing modes: each class is divided into bins by k-means of real images, and a bin is missing if generated images of
the class come there much less often than real ones do.

The bins are those of Richardson and Weiss, *On GANs and GMMs*, NeurIPS 2018 (arXiv:1805.12462), within classes. They
count all bins that differ; but real images by other writers differ in many, and lack none.

In pixels, because a classifier's features hold little of what does not matter for the class: a 1 with a foot and one
without are far apart as images, and close in such features, so that recall may overlook that no 1 has a foot.

One partition into bins is not enough. In some a rare mode has a bin of its own, in others it shares one with digits
that are not missing. And a generator that was trained on a partition (`digitforge_training.gan.clusters`) must be
measured on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.metrics.arrays import Floats, checked_groups

_CHANCE: Final = 1e-3
_LITTLE: Final = 0.25  # of a share
_FAR: Final = 1e6  # from any image, whose pixels are 0 … 255
Counts = npt.NDArray[np.int64]

#: Partitions of the real images, over which the share of what is missing is averaged.
PARTITIONS: Final = 5
_SEED: Final = 20_181_205  # of the partitions; an arbitrary number


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """Bins of K classes, m of each."""

    centers: Floats  # (K, m, d)
    counts: Counts  # (K, m), real images in each


def partition_seeds() -> list[np.random.RandomState]:
    """Seeds of k-means for `PARTITIONS` partitions, the same in every call, none of which a training can have.

    A training's seed is a whole number, which scikit-learn makes a Mersenne Twister of. These are PCG64 generators.
    """
    return [np.random.RandomState(np.random.PCG64([_SEED, partition])) for partition in range(PARTITIONS)]


def make_bins(*, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], clusters: npt.NDArray[np.int64]) -> Bins:
    """Bins around the means of clusters.

    Args:
        pixels: (n, …) of real images.
        labels: (n,) in 0 … K − 1.
        clusters: (n,) in 0 … m − 1, the cluster of each image within its class. A class of few different images has
            fewer, and its other bins stay empty.
    """
    classes, each = int(labels.max()) + 1, int(clusters.max()) + 1
    flat = pixels.reshape(len(pixels), -1)
    centers = np.full((classes, each, flat.shape[1]), _FAR, float)
    for label, cluster in set(zip(labels.tolist(), clusters.tolist(), strict=True)):
        centers[label, cluster] = flat[(labels == label) & (clusters == cluster)].mean(axis=0)
    return Bins(centers=centers, counts=fill(centers, pixels=pixels, labels=labels))


def fill(centers: Floats, *, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Counts:
    """How many images have each bin's center for the nearest of their class, (K, m).

    Args:
        centers: (K, m, d).
        pixels: (n, …) of images, d numbers each.
        labels: (n,) their classes.
    """
    counts = np.zeros(centers.shape[:2], np.int64)
    for label, of_class in enumerate(centers):
        points = pixels[labels == label].reshape(-1, of_class.shape[1]).astype(np.float32)
        # The square of a point's own length is the same for all centers.
        squares = (of_class**2).sum(axis=1) - 2 * points @ of_class.T
        counts[label] = np.bincount(squares.argmin(axis=1), minlength=len(of_class))
    return counts


def missing(expected: Counts, found: Counts) -> npt.NDArray[np.bool_]:
    """Which bins have less than a quarter of their share of the class, and not by chance.

    Chance is excluded by Fisher's exact test, one-sided at 0.1 %, because many bins are tested.

    Args:
        expected: (K, m) real images in each bin.
        found: (K, m) generated images; a class without any tells nothing, and none of its bins is missing.

    Returns:
        (K, m) bool.
    """
    from scipy.stats import hypergeom

    ones, others = expected.sum(axis=1, keepdims=True), found.sum(axis=1, keepdims=True)
    chance = hypergeom.cdf(found, ones + others, expected + found, others)
    return (found * ones < _LITTLE * expected * others) & (chance < _CHANCE)


def missing_share(expected: Counts, found: Counts) -> float:
    """The share of real images that lie in `missing` bins, 0 … 1.

    Args:
        expected: (K, m) real images in each bin.
        found: (K, m) generated images in each.
    """
    return float(expected[missing(expected, found)].sum() / expected.sum())


def missing_modes(
    partitions: Sequence[Bins],
    *,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    groups: npt.ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """The share of real images in missing bins on each of P partitions; its mean over them is the metric.

    Args:
        partitions: of the same real images.
        pixels: (n, …) of the generated images.
        labels: (n,) their classes.
        groups: (n,) groups of images, 0 … G − 1, G ≥ 2, to be left out in turn; None for none.

    Returns:
        The shares (P,), and those without each group (G, P): what a jackknife needs. (0, P) without groups.

    Raises:
        InvalidInputError: wrong groups.
    """
    which = np.zeros(len(labels), np.int64) if groups is None else checked_groups(groups, len(labels))
    parts = range(which.max() + 1)
    shares, left_out = np.empty(len(partitions)), np.empty((0 if groups is None else len(parts), len(partitions)))
    for at, bins in enumerate(partitions):
        found = [fill(bins.centers, pixels=pixels[which == one], labels=labels[which == one]) for one in parts]
        every = np.sum(found, axis=0)
        shares[at] = missing_share(bins.counts, every)
        for without in range(len(left_out)):
            left_out[without, at] = missing_share(bins.counts, every - found[without])
    return shares, left_out

"""Missing modes: the share of real images in modes that the generator rarely or never produces.

K-means of real images divides each class into bins. A bin is missing if it holds a much smaller share of the generated
images than of the real ones. The bins follow Richardson and Weiss, *On GANs and GMMs*, NeurIPS 2018
(arXiv:1805.12462), but within each class. The paper counts every bin whose shares differ. Even real images by other
writers differ in many bins, so here only bins with far too few generated images count.

Bins are computed in pixels, because a classifier's features ignore details that do not matter for the class. A 1 with
a foot and a 1 without are far apart in pixels but close in features, so recall can overlook that no generated 1 has a
foot.

The share is averaged over several partitions into bins, because a rare mode has its own bin only in some of them. In
the others it shares a bin with other digits. The partitions have different seeds than those of training
(`digitforge_training.gan.clusters`), because a generator must not be measured on the partition that it was trained on.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.metrics.arrays import Floats

_P_VALUE: Final = 1e-3  # significance level of a missing bin
_SMALL_RATIO: Final = 0.25  # a missing bin has less than this fraction of its real share
_FAR: Final = 1e6  # coordinate of an empty bin's center; pixels are 0 … 255
Counts = npt.NDArray[np.int64]

#: Number of partitions of the real images over which the share is averaged.
PARTITIONS: Final = 5
#: Bootstrap samples for the interval.
RESAMPLES: Final = 200
#: The metric has power if an entirely missing bin would be found for this share of the real images.
POWER: Final = 0.9
_SEED: Final = 20_181_205  # of the partitions; arbitrary


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """The bins of K classes, m per class."""

    centers: Floats  #: (K, m, d)
    counts: Counts  #: (K, m) real images in each bin


def partition_seeds() -> list[np.random.RandomState]:
    """K-means seeds for the `PARTITIONS` partitions, the same in every call.

    No training can use them: a training's seed is an integer, from which scikit-learn makes a Mersenne Twister. These
    are PCG64 generators.
    """
    return [np.random.RandomState(np.random.PCG64([_SEED, partition])) for partition in range(PARTITIONS)]


def make_bins(*, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], clusters: npt.NDArray[np.int64]) -> Bins:
    """Make bins around the means of clusters.

    Args:
        pixels: (n, …) pixels of real images.
        labels: (n,) in 0 … K − 1.
        clusters: (n,) in 0 … m − 1, the cluster of each image within its class. A class with few different images may
            have fewer than m clusters; its other bins stay empty.
    """
    classes, each = int(labels.max()) + 1, int(clusters.max()) + 1
    flat = pixels.reshape(len(pixels), -1)
    centers = np.full((classes, each, flat.shape[1]), _FAR, float)
    for label, cluster in set(zip(labels.tolist(), clusters.tolist(), strict=True)):
        centers[label, cluster] = flat[(labels == label) & (clusters == cluster)].mean(axis=0)
    return Bins(centers=centers, counts=count_images(centers, pixels=pixels, labels=labels))


def bin_of_each(centers: Floats, *, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Counts:
    """Find the bin of each image, 0 … m − 1: the one with the nearest center in its class.

    Args:
        centers: (K, m, d) centers of the bins.
        pixels: (n, …) pixels of images, d numbers each.
        labels: (n,) their classes.

    Returns:
        (n,) int64.
    """
    found = np.zeros(len(labels), np.int64)
    for label, of_class in enumerate(centers):
        rows = labels == label
        points = pixels[rows].reshape(-1, of_class.shape[1]).astype(np.float32)
        # Squared distances without |x|², which is the same for all centers.
        found[rows] = ((of_class**2).sum(axis=1) - 2 * points @ of_class.T).argmin(axis=1)
    return found


def count_images(centers: Floats, *, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Counts:
    """Count the images in each bin: (K, m). The arguments are those of `bin_of_each`."""
    return _count(bin_of_each(centers, pixels=pixels, labels=labels), labels, shape=centers.shape[:2])


def _count(
    bins: Counts, labels: npt.NDArray[np.int64], *, shape: tuple[int, ...], times: Counts | None = None
) -> Counts:
    """Count the images in each bin, each of them once or *times* times."""
    each = bins + shape[1] * labels
    return np.bincount(each, weights=times, minlength=shape[0] * shape[1]).astype(np.int64).reshape(shape)


def missing(expected: Counts, found: Counts, *, generated: Counts | None = None) -> npt.NDArray[np.bool_]:
    """Compute which bins are missing: their share is less than a quarter of the real share, and significantly smaller.

    The test is Fisher's exact test, one-sided, at 0.1 %: the level is low because many bins are tested.

    Args:
        expected: (K, m) real images in each bin.
        found: (K, m) generated images in each bin. A class without generated images has no missing bins.
        generated: (K,) generated images of each class; None: the sums of *found*.

    Returns:
        (K, m) bool.
    """
    from scipy.stats import hypergeom

    real = expected.sum(axis=1, keepdims=True)
    generated = (found.sum(axis=1) if generated is None else generated)[:, np.newaxis]
    p_values = hypergeom.cdf(found, real + generated, expected + found, generated)
    return (found * real < _SMALL_RATIO * expected * generated) & (p_values < _P_VALUE)


def missing_share(expected: Counts, found: Counts) -> float:
    """The share of real images in `missing` bins, 0 … 1.

    Args:
        expected: (K, m) real images in each bin.
        found: (K, m) generated images in each bin.
    """
    return float(expected[missing(expected, found)].sum() / expected.sum())


def detectable_share(partitions: Sequence[Bins], generated: Counts) -> float:
    """The share of real images in bins that count as missing if the generator makes no image of them, 0 … 1.

    In a small sample, a bin may be empty by chance, so its absence proves nothing.

    Args:
        partitions: partitions of the same real images. The share is the mean over them.
        generated: (K,) generated images of each class. A class without images is not considered.
    """
    of_class = generated > 0
    shares = []
    for bins in partitions:
        expected = bins.counts[of_class]
        found = missing(expected, np.zeros_like(expected), generated=generated[of_class])
        shares.append(expected[found].sum() / max(1, expected.sum()))
    return float(np.mean(shares))


def images_needed(partitions: Sequence[Bins], proportions: Counts) -> int:
    """The smallest number of generated images with a `detectable_share` of at least `POWER`.

    Args:
        partitions: partitions of the same real images.
        proportions: (K,) class proportions of the generated images, not all zero.
    """
    total = int(proportions.sum())

    def enough(n: int) -> bool:
        return detectable_share(partitions, proportions * n // total) >= POWER

    high = 1
    while not enough(high):
        high *= 2
    return bisect.bisect_left(range(high), True, lo=high // 2, key=enough)


def missing_modes(
    partitions: Sequence[Bins],
    *,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    resamples: int = 0,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Compute the share of real images in missing bins on each of P partitions. The metric is the mean of the shares.

    A bootstrap shows how much the shares vary between samples of the generator. It draws as many images of each class
    as there are, with replacement. A jackknife is not used: the shares jump when a bin becomes missing, and most groups
    of images cause no jump.

    Args:
        partitions: P partitions of the same real images.
        pixels: (n, …) pixels of the generated images.
        labels: (n,) their classes.
        resamples: number of bootstrap samples, B.
        seed: of the bootstrap.

    Returns:
        The shares (P,), and the shares of each bootstrap sample (B, P).
    """
    bins = [bin_of_each(each.centers, pixels=pixels, labels=labels) for each in partitions]
    rng = np.random.default_rng(seed)

    def shares(times: Counts | None) -> list[float]:
        return [
            missing_share(part.counts, _count(found, labels, shape=part.counts.shape, times=times))
            for part, found in zip(partitions, bins, strict=True)
        ]

    rows_of_classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def resample() -> Counts:
        """How often each image is drawn: (n,)."""
        times = np.empty(len(labels), np.int64)
        for rows in rows_of_classes:
            times[rows] = np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows))
        return times

    again = [shares(resample()) for _ in range(resamples)]
    return np.array(shares(None)), np.array(again).reshape(resamples, len(partitions))

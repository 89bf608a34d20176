"""Clusters of each class, against a generator's leaving out rare ways of writing a digit.

An adversarial loss lets a generator leave out what is rare and far from everything else: between a 1 without a foot
and a 1 on one, all images are bad, and no gradient leads across. Told to which cluster of its class an image belongs,
both networks can know of every cluster (Liu et al. 2020, arXiv:2006.10728, cluster the discriminator's features;
here it is the pixels, once and before the training). A quarter of each batch shows all clusters of a class equally
often, so that rare ones are met often enough to be learned. The auxiliary classifier knows classes alone: its small
term keeps digits like their label, and telling clusters apart would take its place.

Nobody outside sees the clusters. The first latent decides among those of a class, by its quantile, and each gets as
much of the latent's distribution as it has training images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_training.data import Dataset

Seed = int | np.random.RandomState

_COMPONENTS = 40  # principal components of a class; they hold the strokes, and k-means is fast on them
_STARTS = 3  # of k-means; the best is taken
_BINS = 32  # of a class, before they are joined to clusters; with 16, feet of 1s were no bin of their own


def find_clusters(dataset: Dataset, clusters: int, *, seed: int) -> npt.NDArray[np.int64]:
    """The cluster of each image within its class: bins of alike images, joined where they are near each other.

    The two clusters with the nearest means of bins are joined until so many are left (single linkage): one holds what
    is all of a piece, and what is far from everything else remains by itself, however rare it is.

    Args:
        dataset: the training images.
        clusters: of each class; a class with fewer images has one for each.
        seed: of k-means, see `find_bins`.

    Returns:
        (n,) int64, in 0 … *clusters* − 1; those of a class are numbered from 0 on, without gaps.
    """
    from sklearn.cluster import AgglomerativeClustering

    if clusters == 1:
        return np.zeros(len(dataset), np.int64)
    (found,) = find_bins(dataset, max(clusters, _BINS), seeds=[seed])
    for rows, pixels in _classes(dataset):
        bins = found[rows]
        if bins.max() >= clusters:
            means = [pixels[bins == one].mean(axis=0) for one in range(bins.max() + 1)]
            found[rows] = AgglomerativeClustering(clusters, linkage="single").fit(means).labels_[bins]
    return found


def find_bins(dataset: Dataset, bins: int, *, seeds: Sequence[Seed]) -> npt.NDArray[np.int64]:
    """The bin of each image within its class, by k-means on principal components of the class's pixels.

    Args:
        dataset: images.
        bins: of each class; a class with fewer images has one for each.
        seeds: of k-means, one for each partition.

    Returns:
        (partitions, n) int64, in 0 … *bins* − 1.
    """
    found = np.zeros((len(seeds), len(dataset)), np.int64)
    for rows, pixels in _classes(dataset):
        found[:, rows] = _divide(pixels, min(bins, len(rows)), seeds)
    return found


def _classes(dataset: Dataset) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
    """Rows and pixels, in [0, 1], of each class that has images."""
    for label in np.unique(dataset.labels):
        (rows,) = np.nonzero(dataset.labels == label)
        yield rows, dataset.images[rows].reshape(len(rows), -1).astype(np.float32) / np.float32(255)


def _divide(pixels: npt.NDArray[np.float32], bins: int, seeds: Sequence[Seed]) -> list[npt.NDArray[np.int64]]:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # One thread: several add up in another order each time, and a resumed training needs the same clusters.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # images that are there twice make fewer bins
        components = min(_COMPONENTS, *pixels.shape)
        places = PCA(components, svd_solver="full").fit_transform(pixels)
        fitted: list[Any] = [KMeans(bins, n_init=_STARTS, random_state=seed).fit(places) for seed in seeds]
    return [np.unique(means.labels_, return_inverse=True)[1].astype(np.int64) for means in fitted]


def count_clusters(
    clusters: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, classes: int, each: int
) -> npt.NDArray[np.int32]:
    """Images in each cluster, (classes, each) int32."""
    counts = np.bincount(labels * each + clusters, minlength=classes * each)
    return counts.reshape(classes, each).astype(np.int32)

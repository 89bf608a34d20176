"""Clusters within each class, so that the generator does not drop rare modes.

With an adversarial loss a generator easily drops a rare mode that is far from the others. For example, all images
between a 1 with a foot and a 1 without one look bad, so no gradient leads from one mode to the other. Clusters prevent
this, because both networks see the cluster of each image. Liu et al. 2020 (arXiv:2006.10728) cluster the
discriminator's features during the training. We cluster the pixels once, before the training. A quarter of each batch
shows all clusters of a class equally often, so that rare clusters are learned. The auxiliary classifier does not see
clusters. Its only task is to keep images in their class. It would do this less well if it had to separate clusters too.

Users never see clusters. The first number of a latent chooses the cluster. Its range is divided among the clusters so
that each cluster is as frequent as in the class's training images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_training.data import Dataset

Seed = int | np.random.RandomState

_COMPONENTS = 40  # principal components of a class; they keep the strokes, and k-means is fast
_STARTS = 3  # k-means runs; the best one counts
_BINS = 32  # bins of a class before they are merged into clusters; 16 bins did not separate 1s with a foot


def find_clusters(dataset: Dataset, clusters: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Find the cluster of each image within its class.

    Divides each class into bins by k-means and merges the nearest bins until *clusters* are left (single linkage).
    Images connected through similar images end up in one cluster. A group far from all others stays a cluster of its
    own, however rare.

    Args:
        dataset: the training images.
        clusters: number of clusters per class. A class with fewer images has one cluster per image.
        seed: seed of k-means, see `find_bins`.

    Returns:
        (n,) int64 from 0 to *clusters* − 1. The clusters of each class are numbered from 0 without gaps.
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
    """Find the bin of each image within its class, by k-means on the principal components of the class's pixels.

    Args:
        dataset: the images.
        bins: number of bins per class. A class with fewer images has one bin per image.
        seeds: seeds of k-means, one per partition.

    Returns:
        (partitions, n) int64 from 0 to *bins* − 1.
    """
    found = np.zeros((len(seeds), len(dataset)), np.int64)
    for rows, pixels in _classes(dataset):
        found[:, rows] = _divide(pixels, min(bins, len(rows)), seeds)
    return found


def _classes(dataset: Dataset) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
    """Row indices, and pixels in [0, 1], of each class that has images."""
    for label in np.unique(dataset.labels):
        (rows,) = np.nonzero(dataset.labels == label)
        yield rows, dataset.images[rows].reshape(len(rows), -1).astype(np.float32) / np.float32(255)


def _divide(pixels: npt.NDArray[np.float32], bins: int, seeds: Sequence[Seed]) -> list[npt.NDArray[np.int64]]:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # One thread, because several threads sum in varying order, and a resumed training needs the same clusters.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # duplicate images lead to fewer bins
        components = min(_COMPONENTS, *pixels.shape)
        places = PCA(components, svd_solver="full").fit_transform(pixels)
        fitted: list[Any] = [KMeans(bins, n_init=_STARTS, random_state=seed).fit(places) for seed in seeds]
    return [np.unique(means.labels_, return_inverse=True)[1].astype(np.int64) for means in fitted]


def count_clusters(
    clusters: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, classes: int, per_class: int
) -> npt.NDArray[np.int32]:
    """Count the images in each cluster: (classes, per_class) int32. There are *per_class* clusters in each class."""
    counts = np.bincount(labels * per_class + clusters, minlength=classes * per_class)
    return counts.reshape(classes, per_class).astype(np.int32)

"""Clusters of each class, against a generator's leaving out rare kinds of a digit.

An adversarial loss lets a generator leave out what is rare and far from everything else: between a 1 without a foot
and a 1 on one, all images are bad, and no gradient leads across. Told to which cluster of its class an image belongs,
both networks can know of every cluster (Liu et al. 2020, arXiv:2006.10728, cluster the discriminator's features;
here it is the pixels, once and before the training). The discriminator's projection and its auxiliary classifier are
those of clusters, and half of each batch shows all clusters of a class equally often, so that rare ones are met often
enough to be learnt.

Nobody outside sees the clusters. The first latent decides among those of a class, by its quantile, and each gets as
much of the latent's law as it has training images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset

_COMPONENTS = 40  # principal components of a class; they hold the strokes, and k-means is fast on them
_STARTS = 3  # of k-means; the best is taken
_BINS = 32  # of a class, before they are joined to clusters; with 16, feet of 1s were no bin of their own


def find_clusters(dataset: Dataset, clusters: int, *, seed: int) -> npt.NDArray[np.int64]:
    """The cluster of each image within its class: bins of alike images, joined where they are near each other.

    The two clusters with the nearest means of bins are joined until so many are left (single linkage): one holds what
    is all of a piece, and what is far from everything else remains by itself, however rare it is. So the borders run
    where there are few images, and an auxiliary classifier does not drive digits away from where there are many.

    Args:
        dataset: the training images.
        clusters: of each class.
        seed: see `find_bins`.

    Returns:
        (n,) int64, in 0 … *clusters* − 1.

    Raises:
        InvalidInputError: a class has fewer images than clusters.
    """
    from sklearn.cluster import AgglomerativeClustering

    if clusters == 1:
        return np.zeros(len(dataset), np.int64)
    smallest = int(np.bincount(dataset.labels).min())
    bins = find_bins(dataset, max(clusters, min(_BINS, smallest)), seed=seed)
    found = np.zeros_like(bins)
    for label in range(len(dataset.class_names)):
        (rows,) = np.nonzero(dataset.labels == label)
        pixels = dataset.images[rows].reshape(len(rows), -1)
        means = np.array([pixels[bins[rows] == one].mean(axis=0) for one in range(bins[rows].max() + 1)])
        joined = AgglomerativeClustering(clusters, linkage="single").fit(means).labels_
        found[rows] = joined[bins[rows]]
    return found


def find_bins(dataset: Dataset, bins: int, *, seed: int) -> npt.NDArray[np.int64]:
    """The bin of each image within its class, by k-means on principal components of the class's pixels.

    Args:
        dataset: images.
        bins: of each class.
        seed: of k-means.

    Returns:
        (n,) int64, in 0 … *bins* − 1.

    Raises:
        InvalidInputError: a class has fewer images than bins.
    """
    found = np.zeros(len(dataset), np.int64)
    for label, name in enumerate(dataset.class_names):
        (rows,) = np.nonzero(dataset.labels == label)
        if len(rows) < bins:
            raise InvalidInputError(
                f"class {name} has {len(rows)} images and clusters is {bins}; "
                f"use --set clusters={max(1, len(rows))} or fewer, or add images"
            )
        pixels = dataset.images[rows].reshape(len(rows), -1).astype(np.float32) / np.float32(255)
        found[rows] = _divide(pixels, bins, seed)
    return found


def _divide(pixels: npt.NDArray[np.float32], bins: int, seed: int) -> npt.NDArray[np.int64]:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    # One thread: several add up in another order each time, and a resumed training needs the same clusters.
    with threadpool_limits(limits=1):
        components = min(_COMPONENTS, *pixels.shape)
        places = PCA(components, svd_solver="full", random_state=seed).fit_transform(pixels)
        means: Any = KMeans(bins, n_init=_STARTS, random_state=seed).fit(places)
    return np.asarray(means.labels_, dtype=np.int64)


def count_clusters(
    clusters: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, classes: int, each: int
) -> npt.NDArray[np.int32]:
    """Images in each cluster, (classes, each) int32."""
    counts = np.bincount(labels * each + clusters, minlength=classes * each)
    return counts.reshape(classes, each).astype(np.int32)

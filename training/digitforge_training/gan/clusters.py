"""Clusters within each class, so that the generator does not drop rare modes.

With an adversarial loss a generator easily drops a rare mode that is far from the others. For example, all images
between a 1 with a foot and a 1 without one look bad, so no gradient leads from one mode to the other. Clusters prevent
this, because both networks see the cluster of each image. Liu et al. 2020 (arXiv:2006.10728) cluster the
discriminator's features during the training. We cluster the pixels once, before the training. A quarter of each batch
shows all clusters of a class equally often, so that rare clusters are learned. The auxiliary classifier does not see
clusters. Its only task is to keep images in their class. It would do this less well if it had to separate clusters too.

A recipe that ignores labels has one class with all images. Its clusters take the place of classes: both networks and
the auxiliary classifier see them. `find_clusters_without_labels` finds them.

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
_NEIGHBORS = 10  # nearest neighbors of an image in the graph
_GRAPH_IMAGES = 60_000  # largest number of images in the graph; its time grows with the square
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


def find_clusters_without_labels(images: npt.NDArray[np.uint8], clusters: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Find clusters of similar images. They follow classes without knowing them.

    Spectral clustering of the graph of nearest neighbors (Ng, Jordan and Weiss 2001, "On spectral clustering: analysis
    and an algorithm"). An image is seldom far from the images of its class that are most like it, so paths in the graph
    stay within a class, and clusters with them. K-means on the pixels mixes classes more: a slanted 1 and a narrow 7
    are near each other.

    Args:
        images: (n, H, W, C) uint8.
        clusters: number of clusters. With fewer images than that, each image is a cluster.
        seed: seed of all random numbers.

    Returns:
        (n,) int64 from 0 to *clusters* − 1, without gaps.
    """
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import eigsh
    from sklearn.cluster import KMeans
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    n = len(images)
    if n <= clusters + 1:
        return np.arange(n, dtype=np.int64) % clusters
    rng = np.random.default_rng(seed)
    graph_rows = np.sort(rng.permutation(n)[:_GRAPH_IMAGES])
    places = _principal(images.reshape(n, -1).astype(np.float32) / np.float32(255))
    # One thread, see `_divide`.
    with threadpool_limits(limits=1):
        neighbors = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(graph_rows) - 1), algorithm="brute")
        links = neighbors.fit(places[graph_rows]).kneighbors_graph().astype(np.float64)
        links = links + links.T
        scale = diags_array(1 / np.sqrt(np.asarray(links.sum(axis=1)).ravel()))
        start = rng.standard_normal(len(graph_rows))  # ARPACK's own start differs from call to call
        _, vectors = eigsh(scale @ links @ scale, k=clusters, which="LA", v0=start, tol=1e-4)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        means = KMeans(clusters, n_init=_STARTS, random_state=seed).fit(vectors)
        found = np.unique(means.labels_, return_inverse=True)[1].astype(np.int64)
        if len(graph_rows) < n:  # every other image joins the cluster of its nearest neighbor in the graph
            nearest = neighbors.kneighbors(places, n_neighbors=1, return_distance=False)[:, 0]
            found = found[nearest]
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
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # One thread, because several threads sum in varying order, and a resumed training needs the same clusters.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # duplicate images lead to fewer bins
        places = _principal(pixels)
        fitted: list[Any] = [KMeans(bins, n_init=_STARTS, random_state=seed).fit(places) for seed in seeds]
    return [np.unique(means.labels_, return_inverse=True)[1].astype(np.int64) for means in fitted]


def _principal(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Principal components (n, at most 40) of pixels (n, d)."""
    from sklearn.decomposition import PCA

    places: npt.NDArray[np.float32] = PCA(min(_COMPONENTS, *pixels.shape), svd_solver="full").fit_transform(pixels)
    return places


def count_clusters(
    clusters: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, classes: int, per_class: int
) -> npt.NDArray[np.int32]:
    """Count the images in each cluster: (classes, per_class) int32. There are *per_class* clusters in each class."""
    counts = np.bincount(labels * per_class + clusters, minlength=classes * per_class)
    return counts.reshape(classes, per_class).astype(np.int32)

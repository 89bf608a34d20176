"""How well clusters without labels follow MNIST's classes, beside k-means on the pixels."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import numpy.typing as npt
import pytest

from digitforge_training.data import Dataset, load
from digitforge_training.gan.clusters import find_bins, find_clusters_without_labels

CLUSTERS = 64


def _purity(clusters: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """The share of images that belong to the most frequent class of their cluster."""
    return sum(np.bincount(labels[clusters == one]).max() for one in range(clusters.max() + 1)) / len(labels)


@pytest.mark.slow
@pytest.mark.skipif("DIGITFORGE_DATA_DIR" not in os.environ, reason="needs MNIST: set DIGITFORGE_DATA_DIR")
def test_clusters_of_the_graph_are_purer_than_clusters_of_the_pixels() -> None:
    mnist: Dataset = load("mnist")
    spectral = _purity(find_clusters_without_labels(mnist.images, CLUSTERS, seed=0), mnist.labels)
    one_class = dataclasses.replace(mnist, labels=np.zeros_like(mnist.labels))
    (bins,) = find_bins(one_class, CLUSTERS, seeds=[0])
    pixels = _purity(bins, mnist.labels)
    print(f"purity of {CLUSTERS} clusters: {spectral:.1%} spectral, {pixels:.1%} k-means")
    assert spectral > 0.95 > pixels

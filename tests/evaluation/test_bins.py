"""Bins: those that a generator leaves out are missing, and none between samples of the same."""

from __future__ import annotations

import numpy as np
import pytest

from digitforge_evaluation.metrics.bins import Bins, fill, make_bins, missing
from digitforge_training.clusters import find_bins
from digitforge_training.data import Dataset, load


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def bins(digits: Dataset) -> Bins:
    clusters = find_bins(digits, 5, seed=0)
    return make_bins(pixels=digits.images, labels=digits.labels, clusters=clusters)


def test_real_images_are_in_the_bins_of_their_clusters(digits: Dataset, bins: Bins) -> None:
    clusters = find_bins(digits, 5, seed=0)
    np.testing.assert_array_equal(bins.counts.sum(axis=1), np.bincount(digits.labels))
    sizes = np.bincount(5 * digits.labels + clusters, minlength=50).reshape(10, 5)
    assert np.abs(bins.counts - sizes).sum() < 0.05 * len(digits)  # clusters are of principal components
    assert not missing(bins.counts, bins.counts).any()


def test_a_class_of_few_different_images_has_fewer_bins(digits: Dataset) -> None:
    (rows,) = np.nonzero(digits.labels == 9)
    few = digits.subset(np.concatenate([np.flatnonzero(digits.labels < 9), np.repeat(rows[:3], 40)]))
    clusters = find_bins(few, 5, seed=0)
    bins = make_bins(pixels=few.images, labels=few.labels, clusters=clusters)
    assert bins.counts[9].tolist() == [40, 40, 40, 0, 0]
    assert (bins.counts[:9] > 0).all()


def test_a_kind_that_was_forgotten_is_missing_and_no_other(digits: Dataset, bins: Bins) -> None:
    left = np.ones(len(digits), bool)
    for row in np.flatnonzero(digits.labels == 3):
        left[row] = not fill(bins.centres, pixels=digits.images[[row]], labels=digits.labels[[row]])[3, 2]
    found = fill(bins.centres, pixels=digits.images[left], labels=digits.labels[left])
    assert found[3, 2] == 0
    assert np.argwhere(missing(bins.counts, found)).tolist() == [[3, 2]]


def test_chance_alone_makes_no_kind_missing() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(32, 5.0), size=10)
    expected = np.array([rng.multinomial(6_000, each) for each in shares])
    for n in (30, 100, 1_000):  # of each class
        found = [np.array([rng.multinomial(n, each) for each in shares]) for _ in range(50)]
        assert np.mean([missing(expected, each) for each in found]) < 1e-3


def test_what_is_rarer_but_there_is_not_missing() -> None:
    expected = np.array([[2_000, 8_000]])
    assert missing(expected, np.array([[49, 951]])).tolist() == [[True, False]]
    assert not missing(expected, np.array([[51, 949]])).any()


def test_a_class_without_images_says_nothing() -> None:
    expected = np.array([[10, 90], [50, 50]])
    assert missing(expected, np.array([[0, 100], [0, 0]])).tolist() == [[True, False], [False, False]]

"""Missing modes: bins that a generator leaves out are missing; samples of one distribution have no missing bins."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from digitforge_evaluation.metrics.arrays import Floats
from digitforge_evaluation.metrics.missing_modes import (
    PARTITIONS,
    POWER,
    RESAMPLES,
    Bins,
    count_images,
    detectable_share,
    images_needed,
    make_bins,
    missing,
    missing_modes,
    partition_seeds,
)
from digitforge_evaluation.quality.registry import missing_modes_interval
from digitforge_training.data import Dataset, load
from digitforge_training.gan.clusters import find_bins


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def bins(digits: Dataset) -> Bins:
    (clusters,) = find_bins(digits, 5, seeds=[0])
    return make_bins(pixels=digits.images, labels=digits.labels, clusters=clusters)


def test_real_images_are_in_the_bins_of_their_clusters(digits: Dataset, bins: Bins) -> None:
    (clusters,) = find_bins(digits, 5, seeds=[0])
    np.testing.assert_array_equal(bins.counts.sum(axis=1), np.bincount(digits.labels))
    sizes = np.bincount(5 * digits.labels + clusters, minlength=50).reshape(10, 5)
    assert np.abs(bins.counts - sizes).sum() < 0.05 * len(
        digits
    )  # not equal: clusters are computed from principal components
    assert not missing(bins.counts, bins.counts).any()


def test_a_class_of_few_different_images_has_fewer_bins(digits: Dataset) -> None:
    (rows,) = np.nonzero(digits.labels == 9)
    few = digits.subset(np.concatenate([np.flatnonzero(digits.labels < 9), np.repeat(rows[:3], 40)]))
    (clusters,) = find_bins(few, 5, seeds=[0])
    bins = make_bins(pixels=few.images, labels=few.labels, clusters=clusters)
    assert bins.counts[9].tolist() == [40, 40, 40, 0, 0]
    assert (bins.counts[:9] > 0).all()


def test_only_the_mode_that_was_left_out_is_missing(digits: Dataset, bins: Bins) -> None:
    left = np.ones(len(digits), bool)
    for row in np.flatnonzero(digits.labels == 3):
        left[row] = not count_images(bins.centers, pixels=digits.images[[row]], labels=digits.labels[[row]])[3, 2]
    found = count_images(bins.centers, pixels=digits.images[left], labels=digits.labels[left])
    assert found[3, 2] == 0
    assert np.argwhere(missing(bins.counts, found)).tolist() == [[3, 2]]


def test_random_samples_have_no_missing_modes() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(32, 5.0), size=10)
    expected = np.array([rng.multinomial(6_000, each) for each in shares])
    for n in (30, 100, 1_000):  # of each class
        found = [np.array([rng.multinomial(n, each) for each in shares]) for _ in range(50)]
        assert np.mean([missing(expected, each) for each in found]) < 1e-3


def test_a_bin_with_more_than_a_quarter_of_its_share_is_not_missing() -> None:
    expected = np.array([[2_000, 8_000]])
    assert missing(expected, np.array([[49, 951]])).tolist() == [[True, False]]
    assert not missing(expected, np.array([[51, 949]])).any()


def test_a_class_without_images_has_no_missing_bins() -> None:
    expected = np.array([[10, 90], [50, 50]])
    assert missing(expected, np.array([[0, 100], [0, 0]])).tolist() == [[True, False], [False, False]]


def test_the_partitions_differ_from_those_of_any_training(digits: Dataset) -> None:
    few = digits.subset(np.arange(600))
    found = find_bins(few, 32, seeds=[*partition_seeds(), *range(4)])  # the number of clusters in training
    for label in range(10):
        ours, trained_on = np.split(found[:, few.labels == label], [PARTITIONS])
        for partition in ours:
            assert max(adjusted_rand_score(partition, clusters) for clusters in trained_on) < 1


def test_the_partitions_are_the_same_in_every_call(digits: Dataset) -> None:
    first, again = (find_bins(digits, 2, seeds=partition_seeds()) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_each_partition_has_its_own_share_and_bootstrap_samples_vary_around_the_counts() -> None:
    """A tenth of a class is at 200. Only one of three partitions has a separate bin for it."""
    partitions = [
        Bins(centers=np.array([centers], float)[..., None], counts=np.array([counts]))
        for centers, counts in (((0, 200), (900, 100)), ((0, 60), (500, 500)), ((10, 90), (700, 300)))
    ]
    pixels = np.repeat(np.array([[0], [60], [200]], np.uint8), [500, 475, 25], axis=0)  # a quarter of the real share
    labels = np.zeros(1000, np.int64)

    shares, resampled = missing_modes(partitions, pixels=pixels, labels=labels, resamples=400)

    assert shares.tolist() == [0, 0, 0]
    assert sorted(np.unique(resampled)) == [0, 0.1]
    assert resampled[:, 1:].max() == 0
    fewer = binom.cdf(24, 1000, 0.025)  # a sample with at most 24 of these images lacks the bin
    assert resampled[:, 0].mean() == pytest.approx(0.1 * fewer, abs=0.01)
    assert missing_modes(partitions, pixels=pixels, labels=labels)[1].shape == (0, 3)


def samples(rng: np.random.Generator, n: int, shares: Floats) -> npt.NDArray[np.uint8]:
    """Draw (n, 4) pixels from a mixture of normal distributions with these (40,) shares."""
    centers = np.random.default_rng(5).uniform(60, 200, (40, 4))
    return np.clip(rng.normal(centers[rng.choice(40, n, p=shares)], 12), 0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "each"), [(3_000, 20), (3_000, 40), (10_000, 40)])
def test_intervals_contain_the_expected_value_about_95_percent_of_the_time(n: int, each: int) -> None:
    """The generator makes six of 40 components too seldom. Each repeat draws new images and new partitions."""
    shares = np.random.default_rng(6).dirichlet(np.full(40, 5.0))
    lacking = shares * np.concatenate([[0, 0.1, 0.2, 0.25, 0.3, 0.1], np.ones(34)])
    lacking /= lacking.sum()
    real, of_real = samples(np.random.default_rng(1), 6_000, shares), np.zeros(6_000, np.int64)
    partitions = [
        make_bins(
            pixels=real,
            labels=of_real,
            clusters=KMeans(each, n_init=1, random_state=seed).fit_predict(real.astype(np.float32)).astype(np.int64),
        )
        for seed in range(150)
    ]
    rng, labels = np.random.default_rng(0), np.zeros(n, np.int64)
    found = []
    for repeat in range(300):
        chosen = [partitions[at] for at in rng.choice(150, PARTITIONS, replace=False)]
        values = missing_modes(chosen, pixels=samples(rng, n, lacking), labels=labels, resamples=RESAMPLES, seed=repeat)
        found.append((float(values[0].mean()), missing_modes_interval(*values)))

    expected = np.mean([value for value, _ in found])
    share = np.mean([each is not None and each[0] <= expected <= each[1] for _, each in found])

    assert 0.93 <= share <= 0.985


@pytest.mark.parametrize("n", [1, 20, 60, 200])
def test_a_bin_is_detectable_if_its_absence_would_count_as_missing(n: int) -> None:
    counts = np.array([[5, 40, 155], [100, 60, 40]])
    bins = Bins(centers=np.zeros((2, 3, 1)), counts=counts)
    generated = np.array([n, n])

    share = 0.0
    for label, cell in np.ndindex(2, 3):
        others = np.where(np.arange(3) == cell, 0, counts[label])
        found = np.zeros((2, 3), np.int64)
        found[label] = np.floor(others / others.sum() * n)
        found[label, others.argmax()] += n - found[label].sum()
        share += float(counts[label, cell] * missing(counts, found)[label, cell])

    assert detectable_share([bins], generated) == pytest.approx(share / counts.sum())


def test_the_smallest_number_of_images_with_power_has_power_and_one_image_less_has_none() -> None:
    rng = np.random.default_rng(0)
    partitions = [
        Bins(centers=np.zeros((10, 32, 1)), counts=rng.multinomial(6_000, rng.dirichlet(np.full(32, 5.0)), size=10))
        for _ in range(3)
    ]
    proportions = np.full(10, 1000)

    n = images_needed(partitions, proportions)

    assert detectable_share(partitions, proportions * n // 10_000) >= POWER
    assert detectable_share(partitions, proportions * (n - 1) // 10_000) < POWER


def test_a_class_without_images_does_not_count_for_the_power() -> None:
    bins = Bins(centers=np.zeros((2, 2, 1)), counts=np.array([[100, 100], [100, 100]]))

    assert detectable_share([bins], np.array([100, 0])) == 1
    assert detectable_share([bins], np.array([100, 1])) == 0.5


@pytest.fixture(scope="module")
def mnist_bins() -> list[Bins]:
    train = load("mnist", split="train")
    return [
        make_bins(pixels=train.images, labels=train.labels, clusters=clusters)
        for clusters in find_bins(train, 32, seeds=partition_seeds())
    ]


@pytest.mark.slow
@pytest.mark.skipif("DIGITFORGE_DATA_DIR" not in os.environ, reason="needs MNIST: set DIGITFORGE_DATA_DIR")
@pytest.mark.parametrize(("n", "share"), [(300, 0), (1_000, 0), (2_000, 0.39), (5_000, 0.97)])
def test_few_images_cannot_show_that_a_generator_of_one_image_per_class_misses_nearly_everything(
    mnist_bins: list[Bins], n: int, share: float
) -> None:
    train = load("mnist", split="train")
    labels = np.arange(n) % 10
    pixels = train.images[[np.flatnonzero(train.labels == label)[0] for label in range(10)]][labels]

    shares, _ = missing_modes(mnist_bins, pixels=pixels, labels=labels)

    assert shares.mean() == pytest.approx(share, abs=0.06)
    has_power = detectable_share(mnist_bins, np.bincount(labels)) >= POWER
    assert has_power == (share > 0.9)
    assert (n >= images_needed(mnist_bins, np.bincount(labels))) == has_power

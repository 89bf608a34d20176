"""Bins: those that a generator leaves out are missing, and none between samples of the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from digitforge_evaluation.experiment.statistics import t_interval
from digitforge_evaluation.features.extract import digitnet
from digitforge_evaluation.images.sources import ImageSet
from digitforge_evaluation.metrics.bins import (
    PARTITIONS,
    Bins,
    fill,
    make_bins,
    missing,
    missing_share,
    partition_seeds,
)
from digitforge_evaluation.metrics.intervals import groups_of
from digitforge_evaluation.quality.assess import RealData, assess
from digitforge_evaluation.quality.figures import missing_modes
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
    assert np.abs(bins.counts - sizes).sum() < 0.05 * len(digits)  # clusters are of principal components
    assert not missing(bins.counts, bins.counts).any()


def test_a_class_of_few_different_images_has_fewer_bins(digits: Dataset) -> None:
    (rows,) = np.nonzero(digits.labels == 9)
    few = digits.subset(np.concatenate([np.flatnonzero(digits.labels < 9), np.repeat(rows[:3], 40)]))
    (clusters,) = find_bins(few, 5, seeds=[0])
    bins = make_bins(pixels=few.images, labels=few.labels, clusters=clusters)
    assert bins.counts[9].tolist() == [40, 40, 40, 0, 0]
    assert (bins.counts[:9] > 0).all()


def test_a_mode_that_was_forgotten_is_missing_and_no_other(digits: Dataset, bins: Bins) -> None:
    left = np.ones(len(digits), bool)
    for row in np.flatnonzero(digits.labels == 3):
        left[row] = not fill(bins.centers, pixels=digits.images[[row]], labels=digits.labels[[row]])[3, 2]
    found = fill(bins.centers, pixels=digits.images[left], labels=digits.labels[left])
    assert found[3, 2] == 0
    assert np.argwhere(missing(bins.counts, found)).tolist() == [[3, 2]]


def test_chance_alone_makes_no_mode_missing() -> None:
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


def test_no_training_has_the_partitions_that_missing_modes_are_counted_on(digits: Dataset) -> None:
    found = find_bins(digits, 32, seeds=[*partition_seeds(), *range(4)])  # a training has as many bins
    for label in range(10):
        ours, trained_on = np.split(found[:, digits.labels == label], [PARTITIONS])
        for partition in ours:
            assert max(adjusted_rand_score(partition, clusters) for clusters in trained_on) < 1


def test_all_generators_are_measured_on_the_same_partitions(digits: Dataset) -> None:
    first, again = (find_bins(digits, 2, seeds=partition_seeds()) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_generator_of_the_bins_it_was_trained_on_is_caught_on_others(digits: Dataset) -> None:
    """It makes one image of each bin of seed 0, as often as the bin has images, and nothing else."""
    each = 6  # as many bins as `assess` takes of so few images
    (clusters,) = find_bins(digits, each, seeds=[0])
    trained_on = make_bins(pixels=digits.images, labels=digits.labels, clusters=clusters)
    rows = []
    for label, cluster in np.ndindex(10, each):
        (members,) = np.nonzero((digits.labels == label) & (clusters == cluster))
        away = digits.images[members].reshape(len(members), -1) - trained_on.centers[label, cluster]
        rows += [members[(away**2).sum(axis=1).argmin()]] * len(members)
    collapsed = digits.subset(np.array(rows))
    assert len(np.unique(rows)) == 10 * each
    found = fill(trained_on.centers, pixels=collapsed.images, labels=collapsed.labels)
    assert missing_share(trained_on.counts, found) == 0

    report = assess(
        ImageSet(collapsed.images, collapsed.labels, "collapsed"),
        network=digitnet(),
        n=1000,
        real=RealData(train=digits, test=load("digits", split="test")),
    )

    (figure,) = (figure for figure in report.figures if figure.key == "missing")
    assert figure.name == "missing_modes[pixels]@1k"
    assert figure.value > 0.05
    assert figure.interval is not None
    assert figure.interval[0] <= figure.value <= figure.interval[1]
    assert figure.real is not None
    assert figure.real.mean < figure.interval[0] / 4


def test_real_digits_lack_no_mode_at_the_same_number_of_images(digits: Dataset) -> None:
    real = RealData(train=digits, test=load("digits", split="test"))
    report = assess(ImageSet(digits.images, digits.labels, "real"), network=digitnet(), n=250, real=real)

    (figure,) = (figure for figure in report.figures if figure.key == "missing")
    assert figure.real is not None
    assert (figure.value, figure.real.mean, figure.real.n, figure.real.repeats) == (0, 0, 250, 10)
    assert figure.interval is None  # nothing varies


def test_the_figure_is_the_mean_over_partitions_and_its_interval_covers_their_choice() -> None:
    """A tenth of a class lies at 200. Of three partitions, only one gives it a bin of its own."""
    centers = np.array([[[0.0], [200.0]]]), np.array([[[0.0], [60.0]]]), np.array([[[10.0], [90.0]]])
    counts = np.array([[900, 100]]), np.array([[500, 500]]), np.array([[700, 300]])
    partitions = [Bins(centers=a, counts=b) for a, b in zip(centers, counts, strict=True)]
    pixels = np.repeat(np.array([[0], [60]], np.uint8), 500, axis=0)
    labels = np.zeros(1000, np.int64)

    found = missing_modes(partitions, pixels=pixels, labels=labels, groups=groups_of(labels, 1000))

    assert found.value == pytest.approx(0.1 / 3)
    assert found.interval == (0, pytest.approx(0.1 / 3 + t_interval([0.1, 0, 0]).high - 0.1 / 3))

"""Reference statistics: class proportions, random subsets, floors, and the shipped file."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitforge_client.contract import image_hashes
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.features.extract import digitnet
from digitforge_evaluation.images.proportions import class_counts, random_subsets
from digitforge_evaluation.metrics.frechet import distance_name, frechet_distance, gaussian
from digitforge_evaluation.quality.figures import CLASS_DISTANCE, KINDS, figure_name
from digitforge_evaluation.quality.reference import (
    FLOOR_SIZES,
    SHIPPED,
    copying_floors,
    known_images,
    load_reference,
    make_reference,
    real_floors,
    save_reference,
    shipped_reference,
)
from digitforge_training.data import load


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=12).filter(any), st.integers(0, 20_000))
def test_class_counts_sum_to_n_and_are_within_one_of_their_share(proportions, n):
    counts = class_counts(proportions, n)

    assert counts.sum() == n
    assert (np.abs(counts - np.array(proportions) / sum(proportions) * n) < 1).all()


def test_class_counts_of_the_whole_are_the_whole():
    assert class_counts([980, 1135, 0, 7], 2122).tolist() == [980, 1135, 0, 7]


def test_random_subsets_have_the_counts_and_no_row_twice():
    labels = np.random.default_rng(0).integers(0, 3, 300)

    subsets = random_subsets(labels, np.array([20, 5, 40]), repeats=4)

    assert len(subsets) == 4
    for rows in subsets:
        assert len(np.unique(rows)) == 65
        assert np.bincount(labels[rows]).tolist() == [20, 5, 40]
    assert set(subsets[0]) != set(subsets[1])


def test_a_class_that_is_too_rare_leaves_no_subsets():
    assert random_subsets(np.array([0, 0, 1]), np.array([1, 2])) == []


def test_names_carry_features_and_sample_size():
    assert distance_name("digitnet-64", 10_000) == "fd[digitnet-64]@10k"
    assert distance_name("digitnet-64", 1_234) == "fd[digitnet-64]@1234"
    assert figure_name("recall", features="digitnet-64", n=10_000, k=3) == "recall[digitnet-64,k=3]"
    with pytest.raises(InvalidInputError):
        distance_name("digitnet-64", 0)
    with pytest.raises(InvalidInputError, match="there is no figure"):
        figure_name("beauty", features="digitnet-64", n=1, k=5)


@pytest.fixture(scope="module")
def halves():
    train, test = load("digits"), load("digits", split="test")
    return train, test, digitnet().measure(train.images), digitnet().measure(test.images)


def test_a_reference_survives_writing_and_reading(halves, tmp_path):
    train, test, of_train, of_test = halves
    made = make_reference(test=test, measured=of_test, features="digitnet-64")
    made.floors[200] = real_floors(made, test=of_test, train=of_train, train_labels=train.labels, n=200, repeats=2)

    save_reference(made, tmp_path / "r.npz", {"command": "this test"})
    again = load_reference(tmp_path / "r.npz")

    assert again.floors == made.floors
    assert (again.name, again.class_counts, again.sha256) == (made.name, made.class_counts, test.sha256)
    np.testing.assert_array_equal(again.moments.covariance, made.moments.covariance)
    assert set(again.of_classes) == set(made.of_classes)
    for label, moments in made.of_classes.items():
        assert again.of_classes[label].n == moments.n
        np.testing.assert_allclose(again.of_classes[label].covariance, moments.covariance, rtol=1e-12)
    np.testing.assert_array_equal(again.hashes, np.sort(image_hashes(test.images)))


def test_floors_hold_every_figure_with_its_repeats(halves):
    train, test, of_train, of_test = halves
    made = make_reference(test=test, measured=of_test, features="digitnet-64")

    floors = real_floors(made, test=of_test, train=of_train, train_labels=train.labels, n=200, repeats=3)

    # too few images for the kernel distance, for an extrapolation, and for the distances of classes
    assert set(floors) == set(KINDS) - {
        "kernel",
        "extrapolated",
        "missing",
        "authenticity",
        "copying",
        "train_on_generated",
        "train_on_real",
    }
    assert all((floor.n, floor.repeats) == (200, 3) for floor in floors.values())
    assert floors["distance"].mean > 0
    assert floors["agreement"].mean > 0.9
    copying = copying_floors(test=of_test, known=known_images(training=of_train.features, test=of_test))
    assert copying["authenticity"].n == len(test)
    assert abs(copying["copying"].mean) < 1  # real digits are no copies of real digits


def test_a_file_that_is_something_else_is_an_error_that_names_it(tmp_path):
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            load_reference(tmp_path / name)


def test_the_shipped_reference_is_of_ten_thousand_images_with_floors():
    shipped = shipped_reference()

    assert shipped.features == "digitnet-64"
    assert shipped.moments.n == len(shipped.hashes) == sum(shipped.class_counts) == 10_000
    assert set(shipped.floors) == set(FLOOR_SIZES)
    measured_anew = {"missing", "train_on_generated", "train_on_real"}  # of the images themselves
    every = set(KINDS) - measured_anew | {f"{CLASS_DISTANCE}{label}" for label in range(10)}
    assert all(set(floors) == every for floors in shipped.floors.values())
    assert shipped.floors[10_000][f"{CLASS_DISTANCE}1"].n == shipped.class_counts[1] == 1135
    assert shipped.floors[10_000]["distance"].repeats == 10
    distances = [shipped.floors[n]["distance"].mean for n in sorted(shipped.floors)]
    assert distances == sorted(distances, reverse=True)  # fewer images, larger distance
    assert SHIPPED.stat().st_size + SHIPPED.with_suffix(".json").stat().st_size < 500_000


@pytest.mark.skipif("DIGITFORGE_DATA_DIR" not in os.environ, reason="needs MNIST: set DIGITFORGE_DATA_DIR")
def test_the_shipped_reference_is_what_the_test_images_measure():
    test, shipped = load("mnist", split="test"), shipped_reference()

    moments = gaussian(digitnet().features(test.images))

    assert shipped.sha256 == test.sha256
    assert frechet_distance(real=shipped.moments, generated=moments) < 1e-4

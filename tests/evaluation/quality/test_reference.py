"""Reference statistics: class proportions, random subsets, floors, and the shipped file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitforge_client.contract import image_hashes
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.features.extract import digitnet
from digitforge_evaluation.images.proportions import class_counts, random_subsets
from digitforge_evaluation.metrics.frechet import distance_name, frechet_distance, gaussian
from digitforge_evaluation.quality.comparison import Comparison, Real, RealData, Sample, Training, unseen_splits
from digitforge_evaluation.quality.floors import measure_floors
from digitforge_evaluation.quality.reference import (
    CLASS_DISTANCE,
    FLOOR_SIZES,
    SHIPPED,
    Floors,
    load_reference,
    make_reference,
    moments_of,
    save_reference,
    shipped_reference,
)
from digitforge_evaluation.quality.registry import METRICS
from digitforge_training.data import load


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=12).filter(any), st.integers(0, 20_000))
def test_class_counts_sum_to_n_and_differ_from_the_exact_shares_by_less_than_one(
    proportions: list[int], n: int
) -> None:
    counts = class_counts(proportions, n)

    assert counts.sum() == n
    assert (np.abs(counts - np.array(proportions) / sum(proportions) * n) < 1).all()


def test_class_counts_for_the_total_are_the_proportions() -> None:
    assert class_counts([980, 1135, 0, 7], 2122).tolist() == [980, 1135, 0, 7]


def test_random_subsets_have_the_given_counts_and_no_row_twice() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 300)

    subsets = random_subsets(labels, np.array([20, 5, 40]), repeats=4)

    assert len(subsets) == 4
    for rows in subsets:
        assert len(np.unique(rows)) == 65
        assert np.bincount(labels[rows]).tolist() == [20, 5, 40]
    assert set(subsets[0]) != set(subsets[1])


def test_there_are_no_subsets_if_a_class_has_too_few_rows() -> None:
    assert random_subsets(np.array([0, 0, 1]), np.array([1, 2])) == []


def test_names_carry_features_and_sample_size() -> None:
    assert distance_name("digitnet-64", 10_000) == "fd[digitnet-64]@10k"
    assert distance_name("digitnet-64", 1_234) == "fd[digitnet-64]@1234"
    assert METRICS["distance"].full_name(features="digitnet-64", n=10_000, k=5) == "fd[digitnet-64]@10k"
    assert METRICS["recall"].full_name(features="digitnet-64", n=10_000, k=3) == "recall[digitnet-64,k=3]"
    assert METRICS["kernel"].full_name(features="{odd}", n=10_000, k=3) == "kd[{odd}]@10k"
    assert METRICS["kernel_subsets"].full_name(features="x", n=10_000, k=3) == "kd[x]@100x1000"
    with pytest.raises(InvalidInputError):
        distance_name("digitnet-64", 0)


@pytest.fixture(scope="module")
def compared(real: RealData) -> Comparison:
    """Two hundred images and real digits. Only the number of the images matters."""
    test, train = (Sample.of(half, digitnet().measure(half.images)) for half in (real.test, real.train))
    training = Training(data=real.train, sample=train, seen=np.ones(len(train), bool), held_out=len(test))
    return Comparison(
        generated=train[np.arange(200)],
        reference=make_reference(test=real.test, measured=test.measured, features="digitnet-64"),
        real=Real(test=test, training=training),
    )


@pytest.fixture(scope="module")
def floors(compared: Comparison) -> Floors:
    return measure_floors(compared, {key: metric for key, metric in METRICS.items() if key != "missing"})


def test_a_reference_survives_writing_and_reading(
    compared: Comparison, floors: Floors, real: RealData, tmp_path: Path
) -> None:
    made = replace(compared.reference, floors={200: floors})

    save_reference(made, tmp_path / "r.npz", {"command": "this test"})
    again = load_reference(tmp_path / "r.npz")

    assert again.floors == made.floors
    assert (again.name, again.class_counts, again.sha256) == (made.name, made.class_counts, real.test.sha256)
    assert again.moments is not None
    assert made.moments is not None
    np.testing.assert_array_equal(again.moments.covariance, made.moments.covariance)
    assert set(again.of_classes) == set(made.of_classes)
    for label, moments in made.of_classes.items():
        assert again.of_classes[label].n == moments.n
        np.testing.assert_allclose(again.of_classes[label].covariance, moments.covariance, rtol=1e-12)
    np.testing.assert_array_equal(again.hashes, np.sort(image_hashes(real.test.images)))


def test_floors_have_every_metric_possible_with_few_images(floors: Floors, real: RealData) -> None:
    n = len(real.test)
    training, unseen = floors.training, floors.unseen
    assert set(training) == {"distance", "kernel", "precision", "recall", "density", "coverage", "agreement", "score"}
    assert all((floor.n, floor.held_out, floor.repeats) == (200, n, 10) for floor in training.values())
    assert training["distance"].mean > 0
    assert training["agreement"].mean > 0.9
    assert set(unseen) == {"distance", "kernel", "agreement", "score", "authenticity", "copying"}
    assert all(
        (unseen[key].n, unseen[key].held_out, unseen[key].repeats) == (n // 2, n // 2, 10)
        for key in ("distance", "kernel", "copying")
    )
    assert (unseen["authenticity"].n, unseen["authenticity"].repeats) == (n, 1)
    assert abs(unseen["copying"].mean) < 1  # real digits do not copy real digits


def test_an_unseen_part_and_the_rest_of_the_held_out_images_have_no_image_in_common(compared: Comparison) -> None:
    few = replace(compared, generated=compared.generated[np.arange(70)])
    test = compared.test
    splits = list(unseen_splits(few))

    assert len(splits) == 10
    for split in splits:
        part, rest = split.generated, split.test
        assert len(part) == 70
        assert split.groups is None
        assert part.labels is not None
        assert np.bincount(part.labels).tolist() == [7] * 10
        together = np.concatenate([part.images, rest.images])
        np.testing.assert_array_equal(np.sort(image_hashes(together)), np.sort(image_hashes(test.images)))
        np.testing.assert_allclose(split.moments.mean, rest.features.mean(axis=0), rtol=1e-4, atol=1e-5)
        assert split.moments.n == len(rest) == split.held_out == 130


def test_a_class_whose_features_are_all_the_same_does_not_lose_the_others() -> None:
    features = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    features[:20] = 1

    whole, of_classes = moments_of(features, np.repeat([0, 1, 2], 20), classes=3)

    assert whole is not None
    assert set(of_classes) == {1, 2}


def test_the_error_about_a_wrong_file_names_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            load_reference(tmp_path / name)


def test_the_shipped_reference_is_of_ten_thousand_images_with_floors() -> None:
    shipped = shipped_reference()

    assert shipped.features == "digitnet-64"
    assert shipped.moments is not None
    assert shipped.moments.n == len(shipped.hashes) == sum(shipped.class_counts) == 10_000
    assert set(shipped.floors) == set(FLOOR_SIZES)
    not_shipped = {"missing", "train_on_generated", "train_on_real"}
    distances = {"distance", "extrapolated", "kernel", "kernel_subsets"} | {
        f"{CLASS_DISTANCE}{label}" for label in range(10)
    }
    unseen = distances | {"agreement", "score", "authenticity", "copying"}
    for floors in shipped.floors.values():
        assert set(floors.training) == distances | set(METRICS) - not_shipped - {"authenticity", "copying"}
        assert set(floors.unseen) == unseen
    largest = shipped.floors[10_000]
    assert largest.training[f"{CLASS_DISTANCE}1"].n == shipped.class_counts[1] == 1135
    found = largest.training["distance"], largest.unseen["distance"]
    assert [(floor.n, floor.held_out, floor.repeats) for floor in found] == [(10_000, 10_000, 10), (5_000, 5_000, 10)]
    for kind in ("training", "unseen"):
        means = [getattr(shipped.floors[n], kind)["distance"].mean for n in (1_000, 2_000, 5_000)]
        assert means == sorted(means, reverse=True)  # fewer images, larger distance
    # Other people wrote the training digits, so new test digits are nearer to test digits than training digits are.
    assert shipped.floors[5_000].unseen["distance"].mean < shipped.floors[5_000].training["distance"].mean
    assert SHIPPED.stat().st_size + SHIPPED.with_suffix(".json").stat().st_size < 500_000


@pytest.mark.skipif("DIGITFORGE_DATA_DIR" not in os.environ, reason="needs MNIST: set DIGITFORGE_DATA_DIR")
def test_the_shipped_reference_has_the_moments_of_the_test_images() -> None:
    test, shipped = load("mnist", split="test"), shipped_reference()

    moments = gaussian(digitnet().features(test.images))

    assert shipped.sha256 == test.sha256
    assert shipped.moments is not None
    assert frechet_distance(real=shipped.moments, generated=moments) < 1e-4

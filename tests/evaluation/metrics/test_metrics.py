"""Properties of each metric, and the input that it refuses."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_strategy

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.authenticity import authentic
from digitforge_evaluation.metrics.c_t import c_t, divide, nearness
from digitforge_evaluation.metrics.classifier_score import classifier_score
from digitforge_evaluation.metrics.extrapolation import extrapolated_distance
from digitforge_evaluation.metrics.frechet import Gaussian, frechet_distance, gaussian
from digitforge_evaluation.metrics.kernel import kernel_distance, subset_kernel_distance
from digitforge_evaluation.metrics.label_agreement import agreeing
from digitforge_evaluation.metrics.prdc import prdc

Floats = npt.NDArray[np.float64]


def normal(n: int, seed: int = 0, d: int = 5, **distribution: float) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, d), **distribution)


def frechet(real: Floats, generated: Floats) -> float:
    return frechet_distance(real=gaussian(real), generated=gaussian(generated))


def test_a_collapsed_generator_has_high_precision_and_low_recall() -> None:
    """This test fails if real and generated are swapped."""
    real = normal(1000, seed=1)
    collapsed = real[7] + 0.01 * normal(1000, seed=2)

    found = prdc(real=real, generated=collapsed)

    assert found.precision > 0.95
    assert found.recall < 0.05
    assert found.coverage < 0.05


def test_a_generator_that_is_varied_but_wrong_has_low_precision_and_high_recall() -> None:
    real, scattered = normal(1000, seed=1), normal(1000, seed=2, scale=6.0)

    found = prdc(real=real, generated=scattered)

    assert found.precision < 0.2
    assert found.recall > 0.8
    assert found.density < 0.2


def test_two_samples_of_one_distribution_score_near_the_ideal_values() -> None:
    real, generated = normal(2000, seed=1), normal(2000, seed=2)

    found = prdc(real=real, generated=generated)
    kernel = kernel_distance(real=real, generated=generated)

    assert min(found.precision, found.recall, found.coverage) > 0.9
    assert found.density == pytest.approx(1, abs=0.1)
    assert kernel.standard_error is not None
    assert abs(kernel.value) < 3 * kernel.standard_error
    assert frechet(real, generated) < 0.05


def test_a_copy_of_real_images_with_duplicates_has_perfect_precision_recall_and_coverage() -> None:
    real = np.repeat(normal(100, loc=100.0), 8, axis=0)  # more duplicates than k: every ball has radius zero

    found = prdc(real=real, generated=real.copy())

    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_frechet_distance_of_known_gaussians_agrees_with_the_closed_form() -> None:
    first = Gaussian(mean=np.array([0.0, 0.0]), covariance=np.diag([1.0, 4.0]), n=100)
    second = Gaussian(mean=np.array([3.0, 0.0]), covariance=np.diag([9.0, 4.0]), n=100)

    assert frechet_distance(real=first, generated=second) == pytest.approx(9 + (3 - 1) ** 2)


def test_memory_stays_bounded_for_many_images() -> None:
    real, generated = normal(7000, seed=1), normal(7000, seed=2)  # all distances at once would be 374 MiB
    tracemalloc.start()
    try:
        prdc(real=real, generated=generated)
        authentic(training=real, samples=generated)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 150 * 2**20


finite = st.floats(-100, 100, width=32)
clouds = array_strategy(np.float64, (12, 3), elements=finite)


@settings(max_examples=60, deadline=None)
@given(clouds, clouds, finite)
def test_frechet_distance_is_symmetric_nonnegative_and_invariant_to_a_common_shift(
    first: npt.NDArray[Any], second: npt.NDArray[Any], shift: float
) -> None:
    for cloud in (first, second):
        cloud[0] += [1, 2, 3]  # avoid constant clouds
    first[0] += 300
    second[0] += 300
    there = frechet(first, second)
    # The square root enlarges the rounding error of an eigenvalue that should be zero.
    slack = 1e-6 * (np.trace(np.cov(first.T)) + np.trace(np.cov(second.T)))

    assert there >= 0
    assert frechet(first, first) == pytest.approx(0, abs=slack)
    assert there == pytest.approx(frechet(second, first), rel=1e-6, abs=slack)
    assert there == pytest.approx(frechet(first + shift, second + shift), rel=1e-6, abs=slack)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(8, 40), st.integers(8, 40))
def test_precision_recall_and_coverage_are_shares_and_grow_with_k(seed: int, k: int, n: int, m: int) -> None:
    real, generated = normal(n, seed), normal(m, seed + 1, scale=1.5)

    small, large = prdc(real=real, generated=generated, k=k), prdc(real=real, generated=generated, k=k + 1)

    for name in ("precision", "recall", "coverage"):
        assert 0 <= getattr(small, name) <= getattr(large, name) <= 1
    assert 0 <= small.density <= n / k


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 50))
def test_classifier_score_lies_between_one_and_the_number_of_classes(seed: int, classes: int, n: int) -> None:
    rows = np.random.default_rng(seed).dirichlet(np.full(classes, 0.2), size=n)

    assert 1 - 1e-9 <= classifier_score(rows) <= classes + 1e-9


def test_classifier_score_reaches_its_extremes() -> None:
    assert classifier_score(np.tile(np.eye(10), (20, 1))) == pytest.approx(10)
    assert classifier_score(np.tile(np.eye(10)[3], (20, 1))) == pytest.approx(1)
    assert classifier_score(np.full((20, 10), 0.1)) == pytest.approx(1)


def test_distant_samples_are_authentic_and_copies_of_training_images_are_not() -> None:
    training = normal(500, seed=1)
    samples = np.concatenate([training[:20], training[:20] + 50])

    assert authentic(training=training, samples=samples).tolist() == [False] * 20 + [True] * 20


def test_a_copy_of_a_duplicated_training_image_is_not_authentic() -> None:
    training = np.concatenate([normal(100), normal(100)])

    assert not authentic(training=training, samples=training[:10]).any()


def copying(training: Floats, held_out: Floats, generated: Floats) -> float:
    cells = divide(training=training, held_out=len(held_out))
    return c_t(held_out=nearness(cells, held_out), generated=nearness(cells, generated))


def test_c_t_tells_copies_from_new_samples_and_from_wrong_samples() -> None:
    training, held_out = normal(3000, seed=1), normal(1000, seed=2)

    assert copying(training, held_out, training[:1000] + 0.01 * normal(1000, seed=3)) < -10
    assert abs(copying(training, held_out, normal(1000, seed=4))) < 1.5
    assert copying(training, held_out, normal(1000, seed=4, scale=1.5)) > 3


def test_errors_in_one_part_of_the_space_do_not_hide_copies_in_another() -> None:
    """A single test over the whole space would see neither, so C_T uses cells."""
    training, held_out = normal(4000, seed=1), normal(2000, seed=2)
    left = training[training[:, 0] < 0]
    generated = np.concatenate([left[:1000], normal(1000, seed=3, scale=1.3) + [3, 0, 0, 0, 0]])

    assert copying(training, held_out, generated) < -3


def test_the_extrapolated_distance_of_a_perfect_generator_is_near_zero_and_the_plain_distance_is_not() -> None:
    real = Gaussian(mean=np.zeros(20), covariance=np.eye(20), n=10**9)
    samples = normal(1000, seed=1, d=20)

    plain = frechet_distance(real=real, generated=gaussian(samples))

    assert plain > 0.1
    assert abs(extrapolated_distance(real=real, generated=samples)) < plain / 5


def test_the_extrapolated_distance_does_not_depend_on_the_order_of_the_images() -> None:
    real, samples, labels = gaussian(normal(300, seed=2)), normal(1000, seed=1) * 1.2, np.arange(1000) % 3
    found = [
        extrapolated_distance(real=real, generated=samples[order], labels=labels[order])
        for order in (np.random.default_rng(seed).permutation(1000) for seed in range(8))
    ]

    assert np.ptp(found) < 1e-10


def test_a_feature_that_is_always_zero_does_not_change_the_extrapolated_distance() -> None:
    real, samples = normal(300, seed=2), normal(400, seed=1) * 1.2
    wider = [np.pad(points, ((0, 0), (0, 1))) for points in (real, samples)]

    expected = extrapolated_distance(real=gaussian(real), generated=samples)

    assert extrapolated_distance(real=gaussian(wider[0]), generated=wider[1]) == pytest.approx(expected, rel=1e-9)


def test_equal_class_counts_are_taken_into_account_in_the_extrapolation() -> None:
    """Two classes are far apart. With random class counts, the distance at n would be larger."""
    labels = np.repeat([0, 1], 500)
    real = gaussian(normal(100_000, seed=9) + 20 * np.repeat([0, 1], 50_000)[:, None])
    samples = [normal(1000, seed=seed) + 20 * labels[:, None] for seed in range(8)]

    with_counts = [extrapolated_distance(real=real, generated=each, labels=labels) for each in samples]
    without = [extrapolated_distance(real=real, generated=each) for each in samples]

    assert abs(np.mean(with_counts)) < 0.05
    assert np.mean(without) < -0.05


def test_the_extrapolated_distance_needs_enough_images() -> None:
    with pytest.raises(InvalidInputError, match="needs more than 19"):
        extrapolated_distance(real=gaussian(normal(30)), generated=normal(19))


def with_nan(array: Floats) -> Floats:
    array = array.copy()
    array[3, 1] = np.nan
    return array


BAD_FEATURES = [
    pytest.param(normal(30)[:, 0], "expected real numbers", id="one-dimensional"),
    pytest.param(with_nan(normal(30)), "1 rows of the .* features are not finite .the first is row 3", id="nan"),
    pytest.param(np.ones((30, 5)), "are the same", id="constant"),
    pytest.param(normal(1), "needs more than", id="one row"),
    pytest.param(np.empty((0, 5)), "needs more than", id="no rows"),
    pytest.param(np.array([["a"] * 5] * 30), "expected real numbers", id="text"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_FEATURES)
def test_every_metric_refuses_invalid_features(bad: npt.NDArray[Any], message: str) -> None:
    good = normal(30)
    calls: list[Callable[[], object]] = [
        lambda: gaussian(bad),
        lambda: prdc(real=bad, generated=good),
        lambda: prdc(real=good, generated=bad),
        lambda: kernel_distance(real=bad, generated=good),
        lambda: kernel_distance(real=good, generated=bad),
        lambda: subset_kernel_distance(real=bad, generated=good, subset_size=10),
        lambda: authentic(training=bad, samples=good),
        lambda: authentic(training=good, samples=bad),
        lambda: divide(training=bad, held_out=30),
        lambda: nearness(divide(training=good, held_out=30), bad),
        lambda: extrapolated_distance(real=gaussian(good), generated=bad),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match=message):
            call()


def test_features_of_different_widths_are_refused() -> None:
    wide, narrow = normal(30, d=5), normal(30, d=4)
    for call in (
        lambda: frechet(wide, narrow),
        lambda: prdc(real=wide, generated=narrow),
        lambda: kernel_distance(real=wide, generated=narrow),
        lambda: authentic(training=wide, samples=narrow),
    ):
        with pytest.raises(InvalidInputError, match="columns"):
            call()


def test_too_few_points_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="needs more than 5"):
        prdc(real=normal(5), generated=normal(30))
    with pytest.raises(InvalidInputError, match="k is 0"):
        prdc(real=normal(5), generated=normal(30), k=0)
    with pytest.raises(InvalidInputError, match="needs more than 5"):
        gaussian(normal(5, d=5))
    with pytest.raises(InvalidInputError, match="give a smaller size"):
        subset_kernel_distance(real=normal(999), generated=normal(1000))


@pytest.mark.parametrize(
    "rows",
    [np.empty((0, 10)), np.full((5, 10), 0.2), np.full((5, 10), np.nan), np.eye(10)[0], np.full((2, 2), [-1.0, 2.0])],
    ids=["none", "sum 2", "nan", "one-dimensional", "negative"],
)
def test_rows_without_probabilities_are_refused(rows: npt.NDArray[Any]) -> None:
    with pytest.raises(InvalidInputError, match="probabilities"):
        classifier_score(rows)


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 3], [0, -1, 1], [0.0, 1.0, 2.0]])
def test_labels_of_wrong_length_range_or_dtype_are_refused(labels: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="labels"):
        agreeing(np.eye(3), np.array(labels))

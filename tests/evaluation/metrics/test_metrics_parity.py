"""Each metric agrees with a slow, direct implementation of the formula in its paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from prdc import compute_prdc
from scipy.linalg import sqrtm
from scipy.stats import mannwhitneyu
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import NearestNeighbors

from digitforge_evaluation.metrics import arrays
from digitforge_evaluation.metrics.arrays import nearest_neighbors
from digitforge_evaluation.metrics.authenticity import authentic
from digitforge_evaluation.metrics.c_t import Nearness, c_t, c_t_left_out, divide, mann_whitney_z, nearness
from digitforge_evaluation.metrics.classifier_score import classifier_score
from digitforge_evaluation.metrics.extrapolation import extrapolated_distance
from digitforge_evaluation.metrics.frechet import frechet_distance, gaussian
from digitforge_evaluation.metrics.kernel import kernel_distance, squared_discrepancy, subset_kernel_distance
from digitforge_evaluation.metrics.label_agreement import agreeing
from digitforge_evaluation.metrics.prdc import prdc, prdc_left_out

Floats = npt.NDArray[np.float64]


def pair(seed: int, n: int = 90, m: int = 70, d: int = 6) -> tuple[Floats, Floats]:
    """Two overlapping clouds with correlated columns, far from the origin."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix + 20, rng.normal(0.4, 0.8, size=(m, d)) @ mix + 20


def distances(rows: Floats, columns: Floats) -> Floats:
    return np.sqrt(((rows[:, None] - columns[None]) ** 2).sum(-1))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide even these few points into several blocks."""
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", 500)


@pytest.mark.parametrize("seed", range(5))
def test_frechet_distance_agrees_with_the_matrix_square_root(seed: int) -> None:
    real, generated = pair(seed)
    a, b = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    expected = ((real.mean(0) - generated.mean(0)) ** 2).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))

    assert frechet_distance(real=gaussian(real), generated=gaussian(generated)) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_is_right_for_singular_covariances() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 4)) * [1, 1, 0, 0]
    generated = rng.normal(size=(200, 4)) * [0, 2, 1, 0]
    a, b = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    cross = sum(np.sqrt(max(0, v)) for v in np.linalg.eigvals(a @ b).real)
    expected = ((real.mean(0) - generated.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross

    assert frechet_distance(real=gaussian(real), generated=gaussian(generated)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("seed", range(5))
def test_prdc_agrees_with_brute_force(seed: int, k: int) -> None:
    real, generated = pair(seed)
    real_radii = np.sort(distances(real, real), axis=1)[:, k]
    generated_radii = np.sort(distances(generated, generated), axis=1)[:, k]
    between = distances(real, generated)
    inside_real = between <= real_radii[:, None]

    found = prdc(real=real, generated=generated, k=k)

    assert found.precision == inside_real.any(axis=0).mean()
    assert found.recall == (between <= generated_radii[None]).any(axis=1).mean()
    assert found.density == pytest.approx(inside_real.sum() / (k * len(generated)), rel=1e-12)
    assert found.coverage == inside_real.any(axis=1).mean()


def test_squared_discrepancy_agrees_with_the_unbiased_double_sum() -> None:
    first, second = pair(1, 12, 12, 3)
    first, second = first / 20, second / 20

    def kernel(x: Floats, y: Floats) -> Any:
        return (x @ y / 3 + 1) ** 3

    m = len(first)
    others = [(i, j) for i in range(m) for j in range(m) if i != j]
    expected = (
        sum(kernel(first[i], first[j]) + kernel(second[i], second[j]) for i, j in others) / (m * (m - 1))
        - 2 * sum(kernel(x, y) for x in first for y in second) / m**2
    )

    assert squared_discrepancy(first, second) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_on_one_subset_of_all_points_is_the_squared_discrepancy() -> None:
    real, generated = pair(2, 40, 40)

    found = subset_kernel_distance(real=real, generated=generated, subsets=1, subset_size=40)

    assert found.mean == pytest.approx(squared_discrepancy(real, generated), rel=1e-9)


def test_kernel_distance_of_equally_many_points_is_the_squared_discrepancy() -> None:
    real, generated = pair(2, 40, 40)

    found = kernel_distance(real=real, generated=generated)

    assert found.value == pytest.approx(squared_discrepancy(real, generated), rel=1e-9)


def test_kernel_distance_agrees_with_the_unbiased_double_sum_and_its_jackknife() -> None:
    real, generated = (points / 20 for points in pair(3, 50, 400))

    def direct(generated: Floats) -> Any:
        among_real, among, between = (
            (x @ y.T / 6 + 1) ** 3 for x, y in ((real, real), (generated, generated), (real, generated))
        )
        n, m = len(generated), len(real)
        return (
            (among_real.sum() - np.trace(among_real)) / (m * (m - 1))
            + (among.sum() - np.trace(among)) / (n * (n - 1))
            - 2 * between.mean()
        )

    left_out = np.array([direct(np.delete(generated, row, axis=0)) for row in range(400)])
    error = np.sqrt(399 / 400 * ((left_out - left_out.mean()) ** 2).sum())

    found = kernel_distance(real=real, generated=generated)

    assert found.value == pytest.approx(direct(generated), rel=1e-9)
    assert found.standard_error == pytest.approx(error, rel=0.02)


def test_the_mean_over_many_subsets_is_close_to_the_kernel_distance_of_all_points() -> None:
    real, generated = (points / 20 for points in pair(5, 300, 300))

    subsets = subset_kernel_distance(real=real, generated=generated, subsets=400, subset_size=60)

    error = subsets.standard_deviation / 20
    assert subsets.mean == pytest.approx(kernel_distance(real=real, generated=generated).value, abs=4 * error)


def test_classifier_score_is_the_exponential_of_the_mean_divergence() -> None:
    rng = np.random.default_rng(3)
    rows = rng.dirichlet(np.full(10, 0.3), size=200)
    rows[0] = np.eye(10)[4]  # a certain row: 0 · log 0 counts as 0
    marginal = rows.mean(axis=0)
    divergences = [sum(p * np.log(p / q) for p, q in zip(row, marginal, strict=True) if p > 0) for row in rows]

    assert classifier_score(rows) == pytest.approx(np.exp(np.mean(divergences)), rel=1e-10)


def test_agreeing_compares_the_most_probable_class_with_the_label() -> None:
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])

    assert agreeing(rows, np.array([0, 1, 1])).tolist() == [True, False, True]


@pytest.mark.parametrize("seed", range(5))
def test_authenticity_agrees_with_brute_force(seed: int) -> None:
    training, samples = pair(seed)
    to_training = distances(samples, training)
    among_training = distances(training, training)
    np.fill_diagonal(among_training, np.inf)
    nearest = to_training.argmin(axis=1)
    expected = to_training.min(axis=1) > among_training.min(axis=1)[nearest]

    assert authentic(training=training, samples=samples).tolist() == expected.tolist()
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize(("n", "m", "k"), [(400, 300, 5), (150, 600, 3)])
def test_prdc_agrees_with_the_package_of_its_authors(n: int, m: int, k: int) -> None:
    real, generated = pair(7, n, m, 16)
    expected = compute_prdc(real, generated, k)

    found = prdc(real=real, generated=generated, k=k)

    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("count", [1, 6])
def test_the_smallest_values_of_each_row_agree_with_sorting(count: int) -> None:
    rng = np.random.default_rng(0)
    for width in (count, 97, 1000, 1007):
        values = rng.integers(0, 50, (20, width)).astype(float)  # with ties
        expected = np.sort(values, axis=1)[:, :count]
        assert (np.sort(arrays.smallest(values, count), axis=1) == expected).all()


@pytest.mark.parametrize("seed", range(5))
def test_left_out_values_agree_with_measuring_without_the_group(seed: int) -> None:
    real, generated = pair(seed, 120, 90)
    groups = np.random.default_rng(seed).permutation(np.arange(90) % 4)

    without = prdc_left_out(real=real, generated=generated, groups=groups, k=3)

    for group in range(4):
        rest = generated[groups != group]
        assert without[group] == prdc(real=real, generated=rest, k=3)


@pytest.mark.parametrize("stratified", [True, False])
def test_the_extrapolated_distance_agrees_with_the_mean_of_the_papers_fit_over_many_subsets(stratified: bool) -> None:
    """Chong and Forsyth fit a line in 1 / N to distances of random subsets, and take its value at 1 / N = 0."""
    rng, sizes = np.random.default_rng(0), np.linspace(300, 3000, 15).astype(int) // 3 * 3
    centers, labels = rng.normal(size=(3, 20)), np.repeat([0, 1, 2], 1000)
    reference = gaussian(rng.normal(size=(3000, 20)) + centers[labels])
    generated = 1.1 * rng.exponential(size=(3000, 20)) - 1 + centers[labels]

    def fitted() -> float:
        distances = []
        for size in sizes:
            order = rng.permutation(3000)
            if stratified:
                order = np.concatenate([order[labels[order] == label][: size // 3] for label in range(3)])
            distances.append(frechet_distance(real=reference, generated=gaussian(generated[order[:size]])))
        return float(LinearRegression().fit(1 / sizes[:, None], distances).intercept_)

    fits = [fitted() for _ in range(30)]
    found = extrapolated_distance(real=reference, generated=generated, labels=labels if stratified else None)
    plain = frechet_distance(real=reference, generated=gaussian(generated))

    error = np.std(fits) / np.sqrt(len(fits))
    assert found == pytest.approx(np.mean(fits), abs=4 * error)
    assert abs(plain - np.mean(fits)) > 8 * error  # the test can tell the distance at N = n from the one at infinity


def test_c_t_agrees_with_the_implementation_of_its_paper() -> None:
    """The paper computes a Mann-Whitney Z score in each cell, and weights it by the number of held-out images."""
    training, generated = pair(5, 900, 500)
    held_out, _ = pair(6, 400, 10)
    cells = divide(training=training, held_out=len(held_out))
    of_held_out, of_generated = nearness(cells, held_out), nearness(cells, generated)
    scores, weights = [], []
    for cell in range(len(cells.centers)):
        known = NearestNeighbors(n_neighbors=1).fit(training[cells.cell == cell])
        real, made = held_out[of_held_out.cell == cell], generated[of_generated.cell == cell]
        n, m = len(real), len(made)
        if min(n, m) < 20:
            continue
        u = mannwhitneyu(known.kneighbors(made)[0][:, 0], known.kneighbors(real)[0][:, 0], alternative="less").statistic
        scores.append((u - (n * m / 2 - 0.5)) / np.sqrt(n * m * (n + m + 1) / 12))
        weights.append(n)
    assert len(scores) > 1
    found = c_t(held_out=of_held_out, generated=of_generated)
    groups = np.arange(500) % 5
    without = c_t_left_out(held_out=of_held_out, generated=of_generated, groups=groups)
    rest = Nearness(cell=of_generated.cell[groups != 2], distance=of_generated.distance[groups != 2])

    assert found == pytest.approx(np.dot(scores, weights) / sum(weights), rel=1e-6)
    assert without[2] == c_t(held_out=of_held_out, generated=rest)


def test_the_mann_whitney_test_counts_ties_half() -> None:
    first, second = np.array([1.0, 2, 2, 5]), np.array([2.0, 2, 3])
    u = mannwhitneyu(first, second).statistic

    assert mann_whitney_z(first, second) == pytest.approx((u - 5.5) / np.sqrt(4 * 3 * 8 / 12))


@pytest.mark.parametrize("count", [1, 3])
def test_nearest_neighbors_are_the_nearest_and_in_order(count: int) -> None:
    known, points = pair(2)
    squares = distances(points, known) ** 2
    places = np.argsort(squares, axis=1)[:, :count]

    found = nearest_neighbors(known, points, count=count)

    assert (found[1] == places).all()
    np.testing.assert_allclose(found[0], np.take_along_axis(squares, places, axis=1), rtol=1e-9)

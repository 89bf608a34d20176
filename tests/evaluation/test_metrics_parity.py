"""Each metric agrees with the slow, direct formula of its paper, written out here."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from digitforge_evaluation.metrics import arrays
from digitforge_evaluation.metrics.agreement import agreeing, classifier_score
from digitforge_evaluation.metrics.frechet import frechet_distance, gaussian
from digitforge_evaluation.metrics.kernel import kernel_distance, squared_discrepancy
from digitforge_evaluation.metrics.manifold import manifold
from digitforge_evaluation.metrics.memorisation import too_near


def pair(seed: int, n: int = 90, m: int = 70, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds that overlap, far from the origin, with correlated columns."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix + 20, rng.normal(0.4, 0.8, size=(m, d)) @ mix + 20


def distances(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.sqrt(((rows[:, None] - columns[None]) ** 2).sum(-1))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks even for these few points."""
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", 500)


@pytest.mark.parametrize("seed", range(5))
def test_frechet_distance_is_the_formula_with_a_matrix_square_root(seed):
    real, generated = pair(seed)
    a, b = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    expected = ((real.mean(0) - generated.mean(0)) ** 2).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))

    assert frechet_distance(real=gaussian(real), generated=gaussian(generated)) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_is_right_where_a_covariance_is_singular():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 4)) * [1, 1, 0, 0]
    generated = rng.normal(size=(200, 4)) * [0, 2, 1, 0]
    a, b = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    cross = sum(np.sqrt(max(0, v)) for v in np.linalg.eigvals(a @ b).real)
    expected = ((real.mean(0) - generated.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross

    assert frechet_distance(real=gaussian(real), generated=gaussian(generated)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("seed", range(5))
def test_manifold_is_the_four_definitions_by_brute_force(seed, k):
    real, generated = pair(seed)
    real_radii = np.sort(distances(real, real), axis=1)[:, k]
    generated_radii = np.sort(distances(generated, generated), axis=1)[:, k]
    between = distances(real, generated)
    inside_real = between <= real_radii[:, None]

    found = manifold(real=real, generated=generated, k=k)

    assert found.precision == inside_real.any(axis=0).mean()
    assert found.recall == (between <= generated_radii[None]).any(axis=1).mean()
    assert found.density == pytest.approx(inside_real.sum() / (k * len(generated)), rel=1e-12)
    assert found.coverage == inside_real.any(axis=1).mean()


def test_squared_discrepancy_is_the_unbiased_double_sum():
    first, second = pair(1, 12, 12, 3)
    first, second = first / 20, second / 20

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    m = len(first)
    others = [(i, j) for i in range(m) for j in range(m) if i != j]
    expected = (
        sum(kernel(first[i], first[j]) + kernel(second[i], second[j]) for i, j in others) / (m * (m - 1))
        - 2 * sum(kernel(x, y) for x in first for y in second) / m**2
    )

    assert squared_discrepancy(first, second) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_on_one_whole_subset_is_the_plain_discrepancy():
    real, generated = pair(2, 40, 40)

    found = kernel_distance(real=real, generated=generated, subsets=1, subset_size=40)

    assert found.mean == pytest.approx(squared_discrepancy(real, generated), rel=1e-9)


def test_classifier_score_is_the_exponential_of_the_mean_divergence():
    rng = np.random.default_rng(3)
    rows = rng.dirichlet(np.full(10, 0.3), size=200)
    rows[0] = np.eye(10)[4]  # a certain row: 0 · log 0 counts as 0
    marginal = rows.mean(axis=0)
    divergences = [sum(p * np.log(p / q) for p, q in zip(row, marginal, strict=True) if p > 0) for row in rows]

    assert classifier_score(rows) == pytest.approx(np.exp(np.mean(divergences)), rel=1e-10)


def test_agreeing_compares_the_most_probable_class_with_the_label():
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])

    assert agreeing(rows, np.array([0, 1, 1])).tolist() == [True, False, True]


@pytest.mark.parametrize("seed", range(5))
def test_too_near_is_the_definition_by_brute_force(seed):
    training, samples = pair(seed)
    to_training = distances(samples, training)
    among_training = distances(training, training)
    np.fill_diagonal(among_training, np.inf)
    nearest = to_training.argmin(axis=1)
    expected = to_training.min(axis=1) <= among_training.min(axis=1)[nearest]

    assert too_near(training=training, samples=samples).tolist() == expected.tolist()
    assert 0 < expected.mean() < 1

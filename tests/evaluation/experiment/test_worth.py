"""Tests of the worth of generated digits in real images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.sentences import worth_sentence
from digitforge_evaluation.experiment.worth import worth

EXPONENT = 0.5


def _errors(n: float, subsets: int = 10, scatter: float = 0.0) -> npt.NDArray[np.float64]:
    """Errors on a power law. The scatter does not change their mean."""
    return 0.3 * n**-EXPONENT * (1 + scatter * np.linspace(-1, 1, subsets))


def test_an_arm_with_the_error_of_n_images_is_worth_n_images() -> None:
    curve = {n: _errors(n, scatter=0.1) for n in (10, 20, 50, 100)}
    found = worth(curve, n=10, arm=_errors(35, scatter=0.1), smallest=1e-4)
    assert found.images == pytest.approx(25, rel=1e-3)
    assert found.exponent == pytest.approx(EXPONENT, rel=1e-3)
    assert found.misfit < 1e-6
    assert found.low is not None
    assert found.high is not None
    assert 15 < found.low < 25 < found.high < 40
    assert not found.extrapolated
    assert found.sizes == (10, 20, 50, 100)


def test_no_gain_is_worth_nothing_even_if_the_curve_fits_badly() -> None:
    bent = {10: _errors(10) * 1.3, 100: _errors(100), 1000: _errors(1000) * 1.3}
    found = worth(bent, n=10, arm=bent[10], smallest=1e-4)
    assert found.images == pytest.approx(0, abs=1e-9)
    assert found.misfit > 0.005


def test_a_loss_is_worth_fewer_images() -> None:
    found = worth({10: _errors(10), 100: _errors(100)}, n=100, arm=_errors(50), smallest=1e-4)
    assert found.images == pytest.approx(-50)


def test_a_result_beyond_the_largest_size_is_marked_as_extrapolated() -> None:
    assert worth({10: _errors(10), 20: _errors(20)}, n=10, arm=_errors(35), smallest=1e-4).extrapolated


def test_a_curve_that_does_not_fall_gives_no_worth() -> None:
    found = worth({10: _errors(10), 100: _errors(10)}, n=10, arm=_errors(20), smallest=1e-4)
    assert found.images is None or found.images > 1e6
    rising = worth({10: _errors(100), 100: _errors(10)}, n=10, arm=_errors(200), smallest=1e-4)
    assert rising.images is None
    assert rising.high is None


def test_the_interval_covers_the_true_worth_in_most_experiments() -> None:
    """Simulates 40 experiments with a known power law and gain, and errors that scatter by a tenth."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(40):
        noisy = {n: _errors(n) * rng.normal(1, 0.1, 10) for n in (10, 30, 100)}
        found = worth(noisy, n=10, arm=_errors(25) * rng.normal(1, 0.1, 10), smallest=1e-4)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 15 <= found.high
    assert covered >= 33  # with ten subsets, a bootstrap covers less than 95 %; fewer than 33 has a probability of 1 %


def test_an_error_of_zero_counts_as_half_an_image() -> None:
    found = worth({10: _errors(10), 100: _errors(100)}, n=10, arm=np.zeros(10), smallest=1e-3)
    assert found.images is not None
    assert np.isfinite(found.images)
    assert found.extrapolated


@pytest.mark.parametrize("curve", [{10: [0.1]}, {20: [0.1], 40: [0.1]}, {10: [0.1, 0.1], 20: [0.1]}])
def test_arms_and_curves_that_do_not_match_are_refused(curve: dict[int, list[float]]) -> None:
    with pytest.raises(InvalidInputError, match="expected two sizes or more, including 10"):
        worth(curve, n=10, arm=[0.1], smallest=1e-4)


def test_the_sentence_warns_if_the_curve_fits_badly() -> None:
    near = worth({n: _errors(n) for n in (1, 10, 100)}, n=10, arm=_errors(20), smallest=1e-4)
    assert "Do not rely" not in worth_sentence(near)
    bent = {1: np.full(10, 0.4), 10: np.full(10, 0.04), 100: np.full(10, 0.03)}
    assert "misses the measured errors by up to" in worth_sentence(worth(bent, n=10, arm=bent[100], smallest=1e-4))

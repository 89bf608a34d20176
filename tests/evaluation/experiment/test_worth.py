"""Tests of the worth of generated images in real images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.sentences import worth_sentence
from digitforge_evaluation.experiment.worth import worth


def _errors(n: float, subsets: int = 10, scatter: float = 0.0) -> npt.NDArray[np.float64]:
    """Errors on a power law. The scatter does not change their mean."""
    return 0.3 * n**-0.5 * (1 + scatter * np.linspace(-1, 1, subsets))


def _spread_out(*sizes: float) -> dict[int, npt.NDArray[np.float64]]:
    return {int(n): _errors(n, scatter=0.1) for n in sizes}


def test_an_arm_with_the_error_of_n_images_is_worth_n_images() -> None:
    found = worth(_spread_out(10, 20, 50, 100), n=10, arm=_errors(35, scatter=0.1), smallest=1e-4)
    assert found.images == pytest.approx(25, rel=1e-3)
    assert found.misfit == pytest.approx(0, abs=1e-6)
    assert found.low is not None
    assert found.high is not None
    assert 15 < found.low < 25 < found.high < 40
    assert not found.beyond
    assert found.sizes == (10, 20, 50, 100)
    assert "equals 25 more real images per class (95 % interval" in worth_sentence(found)


def test_a_curve_that_flattens_is_followed_where_it_was_measured() -> None:
    """One power law through all sizes would put the error of 100 images at 34."""
    flat = {10: _errors(10), 100: _errors(30), 1000: _errors(40)}
    assert worth(flat, n=10, arm=flat[100], smallest=1e-4).images == pytest.approx(90)


def test_no_gain_is_worth_nothing_even_if_the_curve_is_bent() -> None:
    bent = {10: _errors(10) * 1.3, 100: _errors(100), 1000: _errors(1000) * 1.3}
    assert worth(bent, n=10, arm=bent[10], smallest=1e-4).images == pytest.approx(0, abs=1e-9)


def test_a_loss_is_worth_fewer_images() -> None:
    found = worth({10: _errors(10), 100: _errors(100)}, n=100, arm=_errors(50), smallest=1e-4)
    assert found.images == pytest.approx(-50)
    assert "equals 50 fewer" in worth_sentence(found)


def test_an_accuracy_that_no_measured_size_has_gives_a_bound() -> None:
    gain = worth(_spread_out(10, 20), n=10, arm=_errors(35, scatter=0.1), smallest=1e-4)
    assert gain.images == pytest.approx(10)
    assert (gain.beyond, gain.high) == (True, None)
    assert "equals more than 10 more real images per class" in worth_sentence(gain)
    assert "the largest has 20 images per class" in worth_sentence(gain)
    loss = worth(_spread_out(10, 20), n=20, arm=_errors(4, scatter=0.1), smallest=1e-4)
    assert loss.images == pytest.approx(-10)
    assert (loss.beyond, loss.low) == (True, None)
    assert "equals more than 10 fewer real images per class" in worth_sentence(loss)


@pytest.mark.parametrize(("n", "errors", "which"), [(20, 35, "larger"), (10, 4, "smaller")])
def test_a_gain_at_the_largest_size_and_a_loss_at_the_smallest_have_no_number(n: int, errors: int, which: str) -> None:
    found = worth(_spread_out(10, 20), n=n, arm=_errors(errors, scatter=0.1), smallest=1e-4)
    assert (
        worth_sentence(found) == f"The effect cannot be expressed in real images, because no {which} size was measured."
    )


def test_an_interval_that_leaves_the_measured_sizes_is_open() -> None:
    found = worth(_spread_out(10, 20, 40), n=10, arm=_errors(38, scatter=0.1), smallest=1e-4)
    assert not found.beyond
    assert found.low is not None
    assert found.high is None
    assert "to more than +30)" in worth_sentence(found)


@pytest.mark.parametrize("errors", [(10, 10), (100, 10)])
def test_a_curve_that_does_not_fall_gives_no_worth(errors: tuple[int, int]) -> None:
    found = worth({10: _errors(errors[0]), 100: _errors(errors[1])}, n=10, arm=_errors(200), smallest=1e-4)
    assert (found.images, found.low, found.high) == (None, None, None)
    assert "cannot be expressed" in worth_sentence(found)


def _coverage(*, true: int, correlation: float, experiments: int) -> float:
    """Share of simulated experiments whose interval contains the true worth. Errors scatter by a tenth."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(experiments):
        scatter = {n: rng.normal(size=10) for n in (10, 30, 100)}
        own = correlation * scatter[10] + np.sqrt(1 - correlation**2) * rng.normal(size=10)
        curve = {n: _errors(n) * (1 + 0.1 * each) for n, each in scatter.items()}
        found = worth(curve, n=10, arm=_errors(true) * (1 + 0.1 * own), smallest=1e-4)
        low = -np.inf if found.low is None else found.low
        covered += low <= true - 10 <= (np.inf if found.high is None else found.high)
    return covered / experiments


def test_the_interval_usually_covers_the_true_worth() -> None:
    """The share lies within three standard errors of 95 %."""
    assert 0.904 <= _coverage(true=25, correlation=0.5, experiments=200) <= 0.996


@pytest.mark.slow
@pytest.mark.parametrize("true", [11, 25, 90])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_interval_covers_the_true_worth(true: int, correlation: float) -> None:
    assert 0.93 <= _coverage(true=true, correlation=correlation, experiments=2000) <= 0.97


def test_an_error_of_zero_counts_as_half_an_image() -> None:
    found = worth({10: _errors(10), 100: _errors(100)}, n=10, arm=np.zeros(10), smallest=1e-3)
    assert found.images == pytest.approx(90)
    assert found.beyond


def test_two_subsets_give_no_interval() -> None:
    found = worth({10: _errors(10, 2, 0.1), 100: _errors(100, 2, 0.1)}, n=10, arm=_errors(20, 2), smallest=1e-4)
    assert found.images == pytest.approx(10)
    assert (found.low, found.high) == (None, None)
    assert "interval" not in worth_sentence(found)


@pytest.mark.parametrize("curve", [{10: [0.1]}, {20: [0.1], 40: [0.1]}, {10: [0.1, 0.1], 20: [0.1]}])
def test_arms_and_curves_that_do_not_match_are_refused(curve: dict[int, list[float]]) -> None:
    with pytest.raises(InvalidInputError, match="expected two sizes or more, including 10"):
        worth(curve, n=10, arm=[0.1], smallest=1e-4)


def test_the_sentence_warns_if_the_curve_does_not_predict_a_size() -> None:
    near = worth({n: _errors(n) for n in (1, 10, 100)}, n=10, arm=_errors(20), smallest=1e-4)
    assert "Do not rely" not in worth_sentence(near)
    bent = {1: np.full(10, 0.4), 10: np.full(10, 0.04), 100: np.full(10, 0.03)}
    found = worth(bent, n=10, arm=bent[100], smallest=1e-4)
    assert found.misfit == pytest.approx(np.sqrt(0.4 * 0.03) - 0.04)
    assert "misses a size that is left out by 7.0 points" in worth_sentence(found)

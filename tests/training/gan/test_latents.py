"""Latents: the published random number generator, their distribution, and independent rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from digitforge_client.contract import ROWS_PER_SEED, SEEDS, row_seeds
from digitforge_training.gan.latents import latents_of, threefry2x32

SIZE = 64


def _latents(seeds: npt.ArrayLike, distribution: str = "normal", size: int = SIZE) -> npt.NDArray[np.float32]:
    return latents_of(tf.constant(np.asarray(seeds, np.int64)), size, distribution).numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that Random123 publishes for threefry2x32 with 20 rounds
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_answers(
    counter: tuple[int, int], key: tuple[int, int], expected: tuple[int, int]
) -> None:
    words = threefry2x32(
        (tf.constant(key[0], tf.uint32), tf.constant(key[1], tf.uint32)),
        (tf.constant(counter[0], tf.uint32), tf.constant(counter[1], tf.uint32)),
    )
    assert tuple(int(word) for word in words) == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), st.integers(0, 19))
def test_the_latent_of_a_row_depends_on_its_seed_alone(seeds: list[int], place: int) -> None:
    place %= len(seeds)
    np.testing.assert_allclose(_latents(seeds)[place], _latents([seeds[place]])[0], atol=2e-6)


def test_normal_latents_follow_the_normal_law() -> None:
    values = _latents(row_seeds(3, 20_000)).ravel()  # 1.28 million
    assert abs(values.mean()) < 5 / np.sqrt(values.size)
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / values.size)
    assert abs(stats.skew(values)) < 5 * np.sqrt(6 / values.size)
    assert abs(stats.kurtosis(values)) < 5 * np.sqrt(24 / values.size)
    assert stats.kstest(values, "norm").pvalue > 1e-4


def test_uniform_latents_follow_the_uniform_law() -> None:
    values = _latents(row_seeds(3, 20_000), "uniform").ravel()
    assert -1 < values.min() < -0.999
    assert 0.999 < values.max() < 1
    assert stats.kstest(values, "uniform", args=(-1, 2)).pvalue > 1e-4


def test_an_odd_size_is_the_beginning_of_the_same_law() -> None:
    assert _latents([5], size=7).shape == (1, 7)
    assert stats.kstest(_latents(row_seeds(0, 20_000), size=7).ravel(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("stride", [1, ROWS_PER_SEED])
def test_neighboring_seeds_are_uncorrelated(stride: int) -> None:
    """Neighboring rows of one seed, and the same row of neighboring seeds."""
    seeds = np.arange(20_000, dtype=np.int64) * stride
    values = _latents(seeds)
    neighbors = (values[:-1] * values[1:]).mean(axis=0)  # per coordinate; standard deviation 1/√n
    assert np.abs(neighbors).max() < 5.5 / np.sqrt(len(values))


def test_coordinates_are_uncorrelated() -> None:
    values = _latents(row_seeds(9, 20_000))
    correlations = np.corrcoef(values.T) - np.eye(SIZE)
    assert np.abs(correlations).max() < 5.5 / np.sqrt(len(values))


def test_row_seeds_of_different_seeds_never_meet() -> None:
    ends = [(row_seeds(s, 1)[0], row_seeds(s, 1, ROWS_PER_SEED - 1)[0]) for s in (0, 1, 2, SEEDS - 2, SEEDS - 1)]
    for (_, last), (first, _) in pairwise(ends):
        assert last < first
    assert ends[-1][1] < 2**53

"""Walks between latents start and end exactly, and keep the norm of latents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitforge_client.latent_space import blend, walk


@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(2, 30), distribution=st.sampled_from(["normal", "uniform"]))
def test_both_ends_of_a_walk_are_exact(seed: int, steps: int, distribution: str) -> None:
    first, last = np.random.default_rng(seed).normal(size=(2, 16)).astype(np.float32)
    way = walk(first, last, steps=steps, distribution=distribution)
    assert way.shape == (steps, 16)
    assert way.dtype == np.float32
    np.testing.assert_array_equal(way[0], first)
    np.testing.assert_allclose(way[-1], last, rtol=1e-6, atol=1e-6)


def test_a_walk_on_the_great_circle_keeps_norm_and_step_size() -> None:
    first, last = np.random.default_rng(0).normal(size=(2, 64))
    first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
    way = walk(first, last, steps=11, distribution="normal").astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose((way[:-1] * way[1:]).sum(axis=1), np.cos(np.arccos(first @ last) / 10), atol=1e-6)


def test_a_straight_walk_is_straight() -> None:
    first, last = np.zeros(3), np.array([1.0, -1.0, 0.5])
    np.testing.assert_allclose(walk(first, last, steps=3, distribution="uniform")[1], last / 2)


@pytest.mark.parametrize("last", [[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], ids=str)
def test_equal_or_opposite_directions_are_joined_by_a_straight_line(last: list[float]) -> None:
    way = walk(np.array([1.0, 0.0]), np.array(last), steps=3, distribution="normal")
    np.testing.assert_allclose(way[1], [(1 + last[0]) / 2, 0], atol=1e-6)


def test_blended_class_weights_sum_to_one() -> None:
    weights = blend(4, 8, steps=5, classes=10)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert (weights[0, 4], weights[-1, 8], weights[2, 4], weights[2, 8]) == (1, 1, 0.5, 0.5)
    assert blend(3, 3, steps=4, classes=10)[:, 3].tolist() == [1, 1, 1, 1]

"""Latents from row seeds, by a counter-based random number generator in standard graph operations.

The latent of a row depends on its row seed alone, so an address gives the same image in any batch, at any position,
on any engine. The random number generator is Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"). Its key is the row seed, its counter is the index in the latent.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from digitforge_training.gan.networks.parts import to_quantile

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_MARGIN = 1e-6  # distance of quantiles from the edges of a cluster


def _rotate(x: tf.Tensor, by: int) -> tf.Tensor:
    left = tf.bitwise.left_shift(x, tf.constant(by, tf.uint32))
    return tf.bitwise.bitwise_or(left, tf.bitwise.right_shift(x, tf.constant(32 - by, tf.uint32)))


def threefry2x32(key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Two uint32 words from a key of two words and a counter of two words. Shapes broadcast."""
    parity = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(*key), tf.constant(_PARITY, tf.uint32))
    keys = (*key, parity)
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x += y
            y = tf.bitwise.bitwise_xor(_rotate(y, rotation), x)
        x += keys[(group + 1) % 3]
        y += keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return x, y


def _unit(words: tf.Tensor) -> tf.Tensor:
    """uint32 => float32 strictly between 0 and 1: midpoints of 2²³ equal intervals, exact in float32."""
    return (tf.cast(tf.bitwise.right_shift(words, tf.constant(9, tf.uint32)), tf.float32) + 0.5) * 2.0**-23


def latents_of(seeds: tf.Tensor, size: int, distribution: Literal["normal", "uniform"]) -> tf.Tensor:
    """Make the latents of row seeds.

    Args:
        seeds: int64 (n,), row seeds of any value.
        size: numbers in a latent.
        distribution: ``normal`` for N(0, 1) by the Box-Muller transform, or ``uniform`` on [−1, 1].

    Returns:
        float32 (n, size).
    """
    low = tf.cast(tf.bitwise.bitwise_and(seeds, tf.constant(0xFFFFFFFF, tf.int64)), tf.uint32)
    shifted = tf.bitwise.right_shift(seeds, tf.constant(32, tf.int64))
    high = tf.cast(tf.bitwise.bitwise_and(shifted, tf.constant(0xFFFFFFFF, tf.int64)), tf.uint32)
    pairs = (size + 1) // 2
    counter = tf.cast(tf.range(pairs, dtype=tf.int32), tf.uint32)[None, :]
    first, second = threefry2x32((low[:, None], high[:, None]), (counter, tf.zeros_like(counter)))
    u, v = _unit(first), _unit(second)
    if distribution == "normal":
        radius = tf.sqrt(-2.0 * tf.math.log(u))
        u, v = radius * tf.cos(2 * math.pi * v), radius * tf.sin(2 * math.pi * v)
    else:
        u, v = 2.0 * u - 1.0, 2.0 * v - 1.0
    return tf.concat([u, v], axis=1)[:, :size]


def place_in_clusters(
    latents: tf.Tensor,
    class_weights: tf.Tensor,
    counts: npt.NDArray[np.int32],
    *,
    distribution: Literal["normal", "uniform"],
) -> tf.Tensor:
    """Change the first number of each latent so that it chooses the cluster of its row.

    If the rows have clusters in proportion to *counts*, the result follows the same distribution as *latents*.

    Args:
        latents: (n, d) float32, drawn from the distribution.
        class_weights: (n, K·m) one-hot: class and cluster of each row.
        counts: (K, m), number of images in each cluster.
        distribution: see `latents_of`.

    Returns:
        (n, d) float32.
    """
    upper = np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)
    lower = upper - counts / counts.sum(axis=1, keepdims=True)
    low, high = (tf.linalg.matvec(class_weights, tf.constant(edges.ravel(), tf.float32)) for edges in (lower, upper))
    quantile = low + (high - low) * to_quantile(latents[:, 0], distribution)
    # Keep off the edges, because rounding could move a quantile into the next cluster.
    quantile = tf.clip_by_value(quantile, low + _MARGIN, high - _MARGIN)
    first = 2.0 * quantile - 1.0
    if distribution == "normal":
        first = math.sqrt(2.0) * tf.math.erfinv(first)
    return tf.concat([first[:, None], latents[:, 1:]], axis=1)

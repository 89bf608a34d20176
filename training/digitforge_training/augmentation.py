"""Differentiable augmentation of what the discriminator sees (Zhao et al. 2020, arXiv:2006.10738).

Shifts and cutouts only; never flips, because a mirrored 2 is not a digit.
"""

from __future__ import annotations

import tensorflow as tf

from digitforge_training.recipes import Recipe

_BACKGROUND = -1.0


def augment(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """Shift each image and blank a square of it, as the recipe says; differentiable.

    Args:
        images: float32 (n, H, W, C) in [−1, 1].
        seed: int64 (2,).

    Returns:
        The same shape and range.
    """
    if recipe.augment_shift:
        images = _shift(images, recipe.augment_shift, seed + [0, 2])
    if recipe.augment_cutout:
        images = _cutout(images, recipe.augment_cutout, seed + [0, 3])
    return images


def _shift(images: tf.Tensor, most: int, seed: tf.Tensor) -> tf.Tensor:
    n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    offsets = tf.random.stateless_uniform((n, 2), seed, -most, most + 1, tf.int32)
    padded = tf.pad(images, [[0, 0], [most, most], [most, most], [0, 0]], constant_values=_BACKGROUND)
    rows = tf.range(height)[None, :] + most + offsets[:, :1]
    columns = tf.range(width)[None, :] + most + offsets[:, 1:]
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def _cutout(images: tf.Tensor, side: int, seed: tf.Tensor) -> tf.Tensor:
    n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    # Corners lie so that each pixel is blanked equally often.
    tops = tf.random.stateless_uniform((n, 1), seed, 1 - side, height, tf.int32)
    lefts = tf.random.stateless_uniform((n, 1), seed + [1, 0], 1 - side, width, tf.int32)
    rows, columns = tf.range(height)[None, :] - tops, tf.range(width)[None, :] - lefts
    blank_rows = (rows >= 0) & (rows < side)
    blank_columns = (columns >= 0) & (columns < side)
    blank = blank_rows[:, :, None, None] & blank_columns[:, None, :, None]
    return tf.where(blank, tf.constant(_BACKGROUND, images.dtype), images)

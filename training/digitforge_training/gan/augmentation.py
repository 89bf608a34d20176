"""Differentiable augmentation of the discriminator's images (Zhao et al. 2020, arXiv:2006.10738).

Shifts, small rotations, small changes of size, and cutouts. No flips, because a mirrored 2 is not a digit.
"""

from __future__ import annotations

import math

import tensorflow as tf

from digitforge_training.gan.replicas import draw
from digitforge_training.recipes import Recipe

_BACKGROUND = -1.0


def augment(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """Rotate, scale and shift each image, then blank a square, as the recipe says. Differentiable.

    Args:
        images: float32 (n, H, W, C) in [−1, 1].
        recipe: gives the strength of each augmentation.
        seed: int64 (2,).

    Returns:
        float32 (n, H, W, C) in [−1, 1].
    """
    if recipe.augment_rotation or recipe.augment_scale:
        images = _rotate_and_scale(images, recipe, seed + [0, 7])
    if recipe.augment_shift:
        images = _shift(images, recipe, seed + [0, 2])
    if recipe.augment_cutout:
        images = _cutout(images, recipe, seed + [0, 3])
    return images


def _rotate_and_scale(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """Rotate and scale each image about its center."""
    n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    draws = draw(tf.random.stateless_uniform, (n, 2), seed, -1.0, 1.0, batch=recipe.batch_size)
    angle, scale = draws[:, 0] * (recipe.augment_rotation * math.pi / 180), 1.0 + draws[:, 1] * recipe.augment_scale
    # The inverse map: source coordinates of each pixel of the result, relative to the center of the image.
    down, right = (height - 1) / 2, (width - 1) / 2
    y = tf.range(height, dtype=tf.float32)[None, :, None] - down
    x = tf.range(width, dtype=tf.float32)[None, None, :] - right
    cosine, sine = (tf.cos(angle) / scale)[:, None, None], (tf.sin(angle) / scale)[:, None, None]
    return _bilinear(images, cosine * y - sine * x + down, sine * y + cosine * x + right)


def _bilinear(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Interpolate at the coordinates y and x (n, H, W). Points outside of the image are background."""
    height, width = images.shape[1], images.shape[2]
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=_BACKGROUND)
    y, x = tf.clip_by_value(y + 1.0, 0.0, height + 1.0), tf.clip_by_value(x + 1.0, 0.0, width + 1.0)
    top, left = tf.minimum(tf.floor(y), height), tf.minimum(tf.floor(x), width)
    below, after = (y - top)[..., None], (x - left)[..., None]
    row, column = tf.cast(top, tf.int32), tf.cast(left, tf.int32)

    def at(dy: int, dx: int) -> tf.Tensor:
        return tf.gather_nd(padded, tf.stack([row + dy, column + dx], axis=-1), batch_dims=1)

    upper = (1.0 - after) * at(0, 0) + after * at(0, 1)
    lower = (1.0 - after) * at(1, 0) + after * at(1, 1)
    return (1.0 - below) * upper + below * lower


def _shift(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    most = recipe.augment_shift
    n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    offsets = draw(tf.random.stateless_uniform, (n, 2), seed, -most, most + 1, tf.int32, batch=recipe.batch_size)
    padded = tf.pad(images, [[0, 0], [most, most], [most, most], [0, 0]], constant_values=_BACKGROUND)
    rows = tf.range(height)[None, :] + most + offsets[:, :1]
    columns = tf.range(width)[None, :] + most + offsets[:, 1:]
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def _cutout(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    side, batch = recipe.augment_cutout, recipe.batch_size
    n, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    # Corners may lie outside of the image, so that every pixel is blanked equally often.
    tops = draw(tf.random.stateless_uniform, (n, 1), seed, 1 - side, height, tf.int32, batch=batch)
    lefts = draw(tf.random.stateless_uniform, (n, 1), seed + [1, 0], 1 - side, width, tf.int32, batch=batch)
    rows, columns = tf.range(height)[None, :] - tops, tf.range(width)[None, :] - lefts
    blank_rows = (rows >= 0) & (rows < side)
    blank_columns = (columns >= 0) & (columns < side)
    blank = blank_rows[:, :, None, None] & blank_columns[:, None, :, None]
    return tf.where(blank, tf.constant(_BACKGROUND, images.dtype), images)

"""Between stored pixels, uint8, and the networks' pixels, float32 in [−1, 1]."""

from __future__ import annotations

import tensorflow as tf


def from_pixels(images: tf.Tensor) -> tf.Tensor:
    """uint8 => float32 in [−1, 1]."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def to_pixels(images: tf.Tensor) -> tf.Tensor:
    """float32 in about [−1, 1] => uint8, as the contract defines it."""
    return tf.cast(tf.round(tf.clip_by_value(images, -1.0, 1.0) * 127.5 + 127.5), tf.uint8)

"""Conversion between stored pixels, uint8, and the networks' pixels, float32 in [−1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

_BATCH = 256


def from_pixels(images: tf.Tensor) -> tf.Tensor:
    """uint8 => float32 in [−1, 1]."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def to_pixels(images: tf.Tensor) -> tf.Tensor:
    """float32 in about [−1, 1] => uint8, by the contract's formula."""
    return tf.cast(tf.round(tf.clip_by_value(images, -1.0, 1.0) * 127.5 + 127.5), tf.uint8)


@tf.custom_gradient
def to_pixel_range(images: tf.Tensor) -> Any:
    """Clip to [−1, 1]. The gradient passes unless it would push a pixel further outside.

    Replaces a tanh, which never reaches the value −1 of real backgrounds. The discriminator would see the difference.
    """

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        outward = ((images < -1) & (upstream > 0)) | ((images > 1) & (upstream < 0))
        return tf.where(outward, tf.zeros_like(upstream), upstream)

    return tf.clip_by_value(images, -1.0, 1.0), gradient


def generated_pixels(generator: Any, inputs: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.uint8]:
    """Generate images in batches.

    Args:
        generator: Keras model.
        inputs: the generator's inputs: class weights (n, K) if there are classes, then latents (n, d).

    Returns:
        (n, H, W, C) uint8.
    """
    parts = [
        to_pixels(generator([rows[at : at + _BATCH] for rows in inputs], training=False)).numpy()
        for at in range(0, len(inputs[-1]), _BATCH)
    ]
    return np.concatenate(parts)

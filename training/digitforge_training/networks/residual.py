"""Residual networks without normalisation layers, for the relativistic loss with gradient penalties.

After the design of R3GAN (Huang et al. 2024, arXiv:2501.05441): no normalisation, leaky ReLU, residual branches that
start at zero. Work is done at half and quarter resolution, where a small image has nearly all its structure; full
resolution costs one thin convolution.

    generator      class weights (n, K), latents (n, d)      => images (n, H, W, C) in about [−1, 1], linear
    discriminator  images (n, H, W, C), class weights (n, K) => score (n,), class logits (n, K)
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

SLOPE = 0.2  # of the leaky ReLU, as in DCGAN and StyleGAN
_STEM = 8  # channels of the generator at full resolution

# Each layer gets its own seed, so that a run's seed decides all its weights and no two layers start alike.
_he = keras.initializers.HeNormal
_glorot = keras.initializers.GlorotUniform


def _activate(x: Any) -> Any:
    return layers.LeakyReLU(negative_slope=SLOPE)(x)


def _convolve(x: Any, width: int, *, zero: bool = False, size: int = 3, strides: int = 1, seed: int) -> Any:
    start = keras.initializers.Zeros() if zero else _he(seed=seed)
    return layers.Conv2D(width, size, strides=strides, padding="same", kernel_initializer=start)(x)


def _pair(x: Any, seed: int, style: Any = None) -> Any:
    """Residual pair of 3×3 convolutions: x + f(x), with f zero at the start.

    Between the two, a *style* scales and shifts each channel (feature-wise modulation, Perez et al. 2017), from zero.
    """
    width = x.shape[-1]
    h = _convolve(_activate(x), width, seed=seed)
    if style is not None:
        modulation = layers.Dense(2 * width, kernel_initializer="zeros")(style)
        scale, shift = ops.split(layers.Reshape((1, 1, 2 * width))(modulation), 2, axis=-1)
        h = h * (1 + scale) + shift
    return x + _convolve(_activate(h), width, zero=True, seed=seed + 1)


def _pixel_shuffle(x: Any) -> Any:
    """(n, H, W, 4·C) => (n, 2H, 2W, C)."""
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height, width, 2, 2, channels // 4))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 2 * height, 2 * width, channels // 4))


def residual_generator(
    *, image_shape: tuple[int, int, int], classes: int, latent_size: int, width: int, blocks: int, embedding_size: int,
    seed: int,
) -> keras.Model:  # fmt: skip
    """Build the generator; the sides of *image_shape* must be divisible by 4."""
    height, breadth, channels = image_shape
    class_weights = keras.Input((classes,), name="class_weights")
    latents = keras.Input((latent_size,), name="latents")
    # A class is a row of a matrix, so a blend of classes is a blend of rows.
    embedded = layers.Dense(embedding_size, use_bias=False, kernel_initializer=_he(seed=seed))(class_weights)
    start = layers.Concatenate()([latents, embedded])
    style = _activate(layers.Dense(2 * width, kernel_initializer=_he(seed=seed + 1))(start))

    x = layers.Dense(height // 4 * (breadth // 4) * 2 * width, kernel_initializer=_he(seed=seed + 2))(start)
    x = layers.Reshape((height // 4, breadth // 4, 2 * width))(x)  # quarter resolution
    x = _pair(x, seed + 10, style)
    x = layers.UpSampling2D(2, interpolation="bilinear")(_convolve(x, width, size=1, seed=seed + 3))
    for block in range(blocks):  # half resolution
        x = _pair(x, seed + 20 + 2 * block, style)
    x = _pixel_shuffle(_convolve(_activate(x), 4 * _STEM, seed=seed + 4))
    images = _convolve(_activate(x), channels, seed=seed + 5)  # full resolution
    return keras.Model([class_weights, latents], images, name="generator")


def residual_discriminator(
    *, image_shape: tuple[int, int, int], classes: int, width: int, blocks: int, seed: int
) -> keras.Model:
    """Build the discriminator: a projection score (Miyato and Koyama 2018) and an auxiliary class head."""
    images = keras.Input(image_shape, name="images")
    class_weights = keras.Input((classes,), name="class_weights")
    x = _convolve(images, width, size=5, strides=2, seed=seed)  # half resolution
    for block in range(blocks):
        x = _pair(x, seed + 10 + 2 * block)
    x = layers.AveragePooling2D(2)(_convolve(x, 2 * width, size=1, seed=seed + 1))  # quarter resolution
    x = _pair(x, seed + 30)
    x = _activate(_convolve(_activate(x), 2 * width, strides=2, seed=seed + 2))
    features = layers.Dense(128, kernel_initializer=_he(seed=seed + 3))(layers.Flatten()(x))
    features = _activate(features)
    projected = layers.Dense(128, use_bias=False, kernel_initializer=_glorot(seed=seed + 4))(class_weights)
    # Divided by √128, so that both terms of the score start at the same size.
    plain = layers.Dense(1, kernel_initializer=_glorot(seed=seed + 5))(features)[:, 0]
    score = plain + ops.sum(features * projected, axis=1) / 128**0.5
    logits = layers.Dense(classes, kernel_initializer=_glorot(seed=seed + 6))(features)
    return keras.Model([images, class_weights], [score, logits], name="discriminator")

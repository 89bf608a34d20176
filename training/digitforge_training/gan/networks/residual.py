"""Residual networks for the relativistic loss with gradient penalties.

The design follows R3GAN (Huang et al. 2024, arXiv:2501.05441): no normalization by default, leaky ReLU, residual
branches that start at zero. Most layers work at half and quarter resolution, where a small image has nearly all its
structure. Full resolution has one thin convolution.

::

    generator      [class weights (n, K),] latents (n, d)         => images (n, H, W, C) in about [−1, 1]
    discriminator  images (n, H, W, C) [, class weights (n, K·m)] => score (n,) [, class logits (n, K)]
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from digitforge_training.gan.networks.parts import Parts, from_output, leaky, pixel_shuffle, to_output
from digitforge_training.recipes import Recipe

_STEM = 8  # channels of the generator at full resolution
_FEATURES = 128  # features of the discriminator's head
_KERNEL = 3

# In one dimension, a "square" is a pair of neighboring pixels: position 0 and position 1. A 3-tap kernel at a position
# reads pixels of its own square and the two neighboring squares.
# _TAPS[position, square, input position, tap] is 1 if the tap reads that input.
_TAPS = np.zeros((2, 3, 2, _KERNEL), np.float32)
for _position in range(2):
    for _tap in range(_KERNEL):
        _TAPS[_position, (_position + _tap + 1) // 2, (_position + _tap + 1) % 2, _tap] = 1.0


# The same in two dimensions, [nine squares × four inputs, position in the square, row of the tap, column of the tap].
_UNFOLDED = np.einsum("aipt,bjqu->ijpqabtu", _TAPS, _TAPS).reshape(9 * 4, 4, _KERNEL, _KERNEL)


class UnfoldedConvolution(layers.Layer):
    """A faster `pixel_shuffle` followed by a 3×3 "same" convolution, (n, H, W, 4·C) => (n, 2H, 2W, filters).

    Convolves first and shuffles last, so the four pixels of a 2×2 square stay together as channels. The 3×3 kernel over
    squares holds the taps of the plain kernel, and zeros elsewhere. It needs four times as many products. It is still
    faster, because with few filters at full resolution the processor waits for memory, and there are a quarter as many
    positions. It has the weights of the plain convolution. The results are equal up to rounding.
    """

    def __init__(self, filters: int, *, kernel_initializer: Any, **options: Any) -> None:
        super().__init__(**options)
        self._filters = filters
        self._kernel_initializer = kernel_initializer

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        shape = (_KERNEL, _KERNEL, input_shape[-1] // 4, self._filters)
        self.kernel = self.add_weight(shape=shape, initializer=self._kernel_initializer, name="kernel")
        self.bias = self.add_weight(shape=(self._filters,), initializer="zeros", name="bias")

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """(n, 2H, 2W, filters)."""
        n, height, breadth, _ = input_shape
        return (n, 2 * height, 2 * breadth, self._filters)

    def call(self, x: Any) -> Any:
        """Convolve, then shuffle the four pixels of each square into place."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        spread = ops.tensordot(ops.cast(_UNFOLDED, self.compute_dtype), kernel, axes=2)
        spread = ops.reshape(ops.transpose(spread, (0, 2, 1, 3)), (3, 3, x.shape[-1], 4 * self._filters))
        return pixel_shuffle(ops.conv(x, spread, padding="same")) + ops.cast(self.bias, self.compute_dtype)


def _convolve(parts: Parts, x: Any, width: int, *, zero: bool = False, size: int = 3, strides: int = 1) -> Any:
    # No zero kernel under spectral normalization, which would divide by zero.
    start = keras.initializers.Zeros() if zero and not parts.spectral else parts.he()
    layer = layers.Conv2D(width, size, strides=strides, padding="same", kernel_initializer=start)
    return parts.weighted(layer)(x)


def _pair(parts: Parts, x: Any, style: Any = None) -> Any:
    """Residual block of two 3×3 convolutions: x + f(x), where f is zero at the start.

    Between the convolutions, *style* scales and shifts each channel (feature-wise modulation, Perez et al. 2017). This
    modulation also starts as the identity.
    """
    width = x.shape[-1]
    h = parts.normalize(_convolve(parts, leaky(x), width))
    if style is not None:
        modulation = layers.Dense(2 * width, kernel_initializer="zeros")(style)
        scale, shift = ops.split(layers.Reshape((1, 1, 2 * width))(modulation), 2, axis=-1)
        h = h * (1 + scale) + shift
    return x + _convolve(parts, parts.drop(leaky(h)), width, zero=True)


def residual_generator(recipe: Recipe, parts: Parts, *, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Build the generator. The sides of *image_shape* must be divisible by 4."""
    height, breadth, channels = image_shape
    quarter, half = recipe.generator_widths or (2 * recipe.width, recipe.width)
    inputs, start = parts.start(recipe, classes=classes)
    style = leaky(layers.Dense(quarter, kernel_initializer=parts.he())(start))

    x = layers.Dense(height // 4 * (breadth // 4) * quarter, kernel_initializer=parts.he())(start)
    x = layers.Reshape((height // 4, breadth // 4, quarter))(x)  # quarter resolution
    x = _pair(parts, x, style)
    # float32, because XLA cannot compile the gradient of this layer in bfloat16 (TensorFlow 2.21).
    doubled = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32")
    x = doubled(_convolve(parts, x, half, size=1))
    for _ in range(recipe.generator_blocks):  # half resolution
        x = _pair(parts, x, style)
    x = leaky(_convolve(parts, leaky(x), 4 * _STEM))
    last = parts.weighted(UnfoldedConvolution(channels, kernel_initializer=parts.he()))
    images = last(x)  # full resolution
    return keras.Model(inputs, to_output(images, recipe.output), name="generator")


def residual_discriminator(
    recipe: Recipe, parts: Parts, *, image_shape: tuple[int, int, int], classes: int
) -> keras.Model:
    """Build the discriminator."""
    half, quarter = recipe.discriminator_widths or (recipe.width, 2 * recipe.width)
    images = keras.Input(image_shape, name="images")
    x = _convolve(parts, from_output(images, recipe.output), half, size=5, strides=2)  # half resolution
    for _ in range(recipe.discriminator_blocks):
        x = _pair(parts, x)
    x = _convolve(parts, layers.AveragePooling2D(2)(x), quarter, size=1)  # quarter resolution
    x = _pair(parts, x)
    x = leaky(_convolve(parts, leaky(x), quarter, strides=2))
    features = parts.weighted(layers.Dense(_FEATURES, kernel_initializer=parts.he()))(layers.Flatten()(x))
    return parts.head(recipe, images, leaky(features), classes=classes)

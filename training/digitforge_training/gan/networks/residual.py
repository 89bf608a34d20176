"""Residual networks, by default without normalization layers, for the relativistic loss with gradient penalties.

After the design of R3GAN (Huang et al. 2024, arXiv:2501.05441): no normalization, leaky ReLU, residual branches that
start at zero. Work is done at half and quarter resolution, where a small image has nearly all its structure; full
resolution costs one thin convolution.

    generator      [class weights (n, K),] latents (n, d)       => images (n, H, W, C) in about [−1, 1]
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
_FEATURES = 128  # of the discriminator
_KERNEL = 3

# Where a tap of a pixel at an even or odd place finds its pixel once the image is folded: in which of three
# neighboring squares, and at an even or odd place there. [place, square, place there, tap]
_TAPS = np.zeros((2, 3, 2, _KERNEL), np.float32)
for _place in range(2):
    for _tap in range(_KERNEL):
        _TAPS[_place, (_place + _tap + 1) // 2, (_place + _tap + 1) % 2, _tap] = 1.0


# Which taps of the plain kernel lead from one of the four inputs of nine neighboring squares to a place in the square.
_UNFOLDED = np.einsum("aipt,bjqu->ijpqabtu", _TAPS, _TAPS).reshape(9 * 4, 4, _KERNEL, _KERNEL)


class UnfoldedConvolution(layers.Layer):
    """`pixel_shuffle` and a 3×3 "same" convolution after it, (n, H, W, 4·C) => (n, 2H, 2W, filters), in less time.

    The four pixels of a square stay beside each other as channels until the end: one 3×3 convolution of squares with
    squares, whose kernel holds each tap of the plain one where it belongs, and zeros. With few filters at full
    resolution processors wait for memory, and its four times as many products cost less than a quarter of the places
    save. Its weights are those of the plain convolution, and so is its result, but for rounding.
    """

    def __init__(self, filters: int, *, kernel_initializer: Any, **options: Any) -> None:
        super().__init__(**options)
        self._filters = filters
        self._kernel_initializer = kernel_initializer

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        shape = (_KERNEL, _KERNEL, input_shape[-1] // 4, self._filters)
        self.kernel = self.add_weight(shape=shape, initializer=self._kernel_initializer, name="kernel")
        self.bias = self.add_weight(shape=(self._filters,), initializer="zeros", name="bias")

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """(n, 2H, 2W, filters)."""
        n, height, breadth, _ = input_shape
        return (n, 2 * height, 2 * breadth, self._filters)

    def call(self, x: Any) -> Any:
        """Convolve, and put the four places of each square beside each other."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        spread = ops.tensordot(ops.cast(_UNFOLDED, self.compute_dtype), kernel, axes=2)
        spread = ops.reshape(ops.transpose(spread, (0, 2, 1, 3)), (3, 3, x.shape[-1], 4 * self._filters))
        return pixel_shuffle(ops.conv(x, spread, padding="same")) + ops.cast(self.bias, self.compute_dtype)


def _convolve(parts: Parts, x: Any, width: int, *, zero: bool = False, size: int = 3, strides: int = 1) -> Any:
    # A kernel of zeros has no spectral norm to divide by.
    start = keras.initializers.Zeros() if zero and not parts.spectral else parts.he()
    layer = layers.Conv2D(width, size, strides=strides, padding="same", kernel_initializer=start)
    return parts.weighted(layer)(x)


def _pair(parts: Parts, x: Any, style: Any = None) -> Any:
    """Residual pair of 3×3 convolutions: x + f(x), with f zero at the start.

    Between the two, a *style* scales and shifts each channel (feature-wise modulation, Perez et al. 2017), from zero.
    """
    width = x.shape[-1]
    h = parts.normalize(_convolve(parts, leaky(x), width))
    if style is not None:
        modulation = layers.Dense(2 * width, kernel_initializer="zeros")(style)
        scale, shift = ops.split(layers.Reshape((1, 1, 2 * width))(modulation), 2, axis=-1)
        h = h * (1 + scale) + shift
    return x + _convolve(parts, parts.drop(leaky(h)), width, zero=True)


def residual_generator(recipe: Recipe, parts: Parts, *, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Build the generator; the sides of *image_shape* must be divisible by 4."""
    height, breadth, channels = image_shape
    width = recipe.width
    inputs, start = parts.start(recipe, classes=classes)
    style = leaky(layers.Dense(2 * width, kernel_initializer=parts.he())(start))

    x = layers.Dense(height // 4 * (breadth // 4) * 2 * width, kernel_initializer=parts.he())(start)
    x = layers.Reshape((height // 4, breadth // 4, 2 * width))(x)  # quarter resolution
    x = _pair(parts, x, style)
    # In float32, because XLA cannot compile the gradient of this layer in bfloat16 (TensorFlow 2.21).
    doubled = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32")
    x = doubled(_convolve(parts, x, width, size=1))
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
    width = recipe.width
    images = keras.Input(image_shape, name="images")
    x = _convolve(parts, from_output(images, recipe.output), width, size=5, strides=2)  # half resolution
    for _ in range(recipe.discriminator_blocks):
        x = _pair(parts, x)
    x = _convolve(parts, layers.AveragePooling2D(2)(x), 2 * width, size=1)  # quarter resolution
    x = _pair(parts, x)
    x = leaky(_convolve(parts, leaky(x), 2 * width, strides=2))
    features = parts.weighted(layers.Dense(_FEATURES, kernel_initializer=parts.he()))(layers.Flatten()(x))
    return parts.head(recipe, images, leaky(features), classes=classes)

"""DCGAN's networks (Radford et al. 2015, arXiv:1511.06434), with 5×5 convolutions as the published recipe has them.

    generator      [class weights (n, K),] latents (n, d)       => images (n, H, W, C)
    discriminator  images (n, H, W, C) [, class weights (n, K)] => score (n,) [, class logits (n, K)]

The generator starts at quarter resolution and doubles it twice, before its second and third layer; the discriminator
halves it in every layer but the last.
"""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from digitforge_training.gan.networks.parts import Parts, SquaresConvolution, from_output, leaky, to_output
from digitforge_training.recipes import Recipe

_KERNEL = 5
_DOUBLINGS = 2

# Which of three neighboring pixels each of five taps meets on the doubled image, at even and at odd places.
# [place, pixel, tap]
_TAPS = np.zeros((2, 3, _KERNEL), np.float32)
for _phase in range(2):
    for _tap in range(_KERNEL):
        _TAPS[_phase, (_tap + _phase) // 2, _tap] = 1.0


class DoubledConvolution(SquaresConvolution):
    """`UpSampling2D(2)` and a 5×5 "same" convolution after it, (n, H, W, C) => (n, 2H, 2W, filters), for less work.

    On a doubled image the five taps of a row or column meet only three different pixels. Taps that meet the same one
    are summed, once for each of the four places in a 2×2 square, and the original image is convolved with the four
    3×3 kernels: 36 products instead of 100, and the same result but for rounding.
    """

    taps = np.einsum("pai,qbj->abpqij", _TAPS, _TAPS).reshape(9, 4, _KERNEL, _KERNEL)


class SmallConvolution(layers.Conv2D):
    """A "same" convolution without strides of an image no larger than its odd kernel, (n, H, W, C) => (n, H, W, f).

    A product of matrices for each pixel, of what its kernel sees of the image. So the zeros around the image are not
    multiplied: of 5×5 taps on 4×4 pixels they meet more than half.
    """

    def call(self, x: Any) -> Any:
        """Convolve."""
        _, height, breadth, channels = x.shape
        down, across = self.kernel_size
        places = list(itertools.product(range(height), range(breadth)))
        pixels = ops.unstack(ops.reshape(x, (-1, height * breadth, channels)), axis=1)
        kernel = ops.cast(self.kernel, self.compute_dtype)
        taps = ops.unstack(ops.reshape(kernel, (down * across, channels, self.filters)), axis=0)
        results = []
        for row, column in places:
            top, left = row - down // 2, column - across // 2
            seen, by = [], []
            for i, j in places:
                if 0 <= i - top < down and 0 <= j - left < across:
                    seen.append(pixels[i * breadth + j])
                    by.append(taps[(i - top) * across + j - left])
            results.append(ops.matmul(ops.concatenate(seen, axis=1), ops.concatenate(by, axis=0)))
        result = ops.reshape(ops.stack(results, axis=1), (-1, height, breadth, self.filters))
        return result + ops.cast(self.bias, self.compute_dtype)


def convolutional_generator(
    recipe: Recipe, parts: Parts, *, image_shape: tuple[int, int, int], classes: int
) -> keras.Model:
    """Build the generator; the sides of *image_shape* must be divisible by 4."""
    height, breadth, channels = image_shape
    first, *widths = recipe.generator_widths
    inputs, x = parts.start(recipe, classes=classes)
    x = parts.dense(x, height // 4 * (breadth // 4) * first)
    x = layers.ReLU()(parts.normalize(layers.Reshape((height // 4, breadth // 4, first))(x)))
    x = parts.drop(x)
    for place, width in enumerate(widths):
        x = layers.ReLU()(parts.normalize(parts.weighted(_layer(parts, width, doubles=place < _DOUBLINGS))(x)))
    last = _layer(parts, channels, doubles=False)
    return keras.Model(inputs, to_output(parts.weighted(last)(x), recipe.output), name="generator")


def _layer(parts: Parts, width: int, *, doubles: bool) -> Any:
    # Without strides a transposed convolution is a convolution, its kernel turned round.
    if doubles:
        return DoubledConvolution(width, kernel_initializer=parts.glorot())
    return layers.Conv2DTranspose(width, _KERNEL, padding="same", kernel_initializer=parts.glorot())


def convolutional_discriminator(
    recipe: Recipe, parts: Parts, *, image_shape: tuple[int, int, int], classes: int
) -> keras.Model:
    """Build the discriminator."""
    images = keras.Input(image_shape, name="images")
    x = from_output(images, recipe.output)
    for place, width in enumerate(recipe.discriminator_widths, start=1):
        strides = 1 if place == len(recipe.discriminator_widths) else 2
        small = strides == 1 and max(x.shape[1:3]) <= _KERNEL
        kind = SmallConvolution if small else layers.Conv2D
        layer = kind(width, _KERNEL, strides=strides, padding="same", kernel_initializer=parts.glorot())
        x = parts.weighted(layer)(x)
        # The first layer stays as it is: DCGAN found normalization next to the pixels unstable.
        x = parts.drop(leaky(x if place == 1 else parts.normalize(x)))
    features = layers.Flatten()(x)
    return parts.head(recipe, images, features, classes=classes)

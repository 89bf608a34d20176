"""DCGAN's networks (Radford et al. 2015, arXiv:1511.06434), with 5×5 convolutions like the recipe ``dcgan-rmsprop``.

::

    generator      [class weights (n, K),] latents (n, d)       => images (n, H, W, C)
    discriminator  images (n, H, W, C) [, class weights (n, K)] => score (n,) [, class logits (n, K)]

The generator starts at quarter resolution and doubles it before its second and third layer. The discriminator halves
the resolution in every layer except the last.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from digitforge_training.gan.networks.parts import Parts, from_output, leaky, to_output
from digitforge_training.recipes import Recipe

_KERNEL = 5
_DOUBLINGS = 2


def convolutional_generator(
    recipe: Recipe, parts: Parts, *, image_shape: tuple[int, int, int], classes: int
) -> keras.Model:
    """Build the generator. The sides of *image_shape* must be divisible by 4."""
    height, breadth, channels = image_shape
    first, *widths = recipe.generator_widths
    inputs, x = parts.start(recipe, classes=classes)
    x = parts.dense(x, height // 4 * (breadth // 4) * first)
    x = layers.ReLU()(parts.normalize(layers.Reshape((height // 4, breadth // 4, first))(x)))
    x = parts.drop(x)
    for place, width in enumerate(widths):
        if place < _DOUBLINGS:
            x = layers.UpSampling2D(2)(x)
        x = layers.ReLU()(parts.normalize(_convolve(parts, x, width, transposed=place >= _DOUBLINGS)))
    images = _convolve(parts, x, channels, transposed=True)
    return keras.Model(inputs, to_output(images, recipe.output), name="generator")


def _convolve(parts: Parts, x: Any, width: int, *, strides: int = 1, transposed: bool = False) -> Any:
    layer = layers.Conv2DTranspose if transposed else layers.Conv2D
    convolution = layer(width, _KERNEL, strides=strides, padding="same", kernel_initializer=parts.glorot())
    return parts.weighted(convolution)(x)


def convolutional_discriminator(
    recipe: Recipe, parts: Parts, *, image_shape: tuple[int, int, int], classes: int
) -> keras.Model:
    """Build the discriminator."""
    images = keras.Input(image_shape, name="images")
    x = from_output(images, recipe.output)
    for place, width in enumerate(recipe.discriminator_widths, start=1):
        strides = 1 if place == len(recipe.discriminator_widths) else 2
        x = _convolve(parts, x, width, strides=strides)
        # No normalization after the first layer: DCGAN found it unstable there.
        x = parts.drop(leaky(x if place == 1 else parts.normalize(x)))
    features = layers.Flatten()(x)
    return parts.head(recipe, images, features, classes=classes)

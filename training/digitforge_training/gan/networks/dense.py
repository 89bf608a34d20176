"""Fully connected networks. A hidden layer is dense, activation, normalization, dropout, in this order.

::

    generator      [class weights (n, K),] latents (n, d)       => images (n, H, W, C)
    discriminator  images (n, H, W, C) [, class weights (n, K)] => score (n,) [, class logits (n, K)]
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers

from digitforge_training.gan.networks.parts import Parts, from_output, leaky, to_output
from digitforge_training.recipes import Recipe


def _hidden(parts: Parts, x: Any, widths: tuple[int, ...], activation: str) -> Any:
    for width in widths:
        x = parts.dense(x, width)
        x = leaky(x) if activation == "leaky-relu" else layers.Activation(activation)(x)
        x = parts.drop(parts.normalize(x))
    return x


def dense_generator(recipe: Recipe, parts: Parts, *, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Build the generator."""
    inputs, x = parts.start(recipe, classes=classes)
    x = _hidden(parts, x, recipe.generator_widths, recipe.activation)
    images = to_output(layers.Reshape(image_shape)(parts.dense(x, math.prod(image_shape))), recipe.output)
    return keras.Model(inputs, images, name="generator")


def dense_discriminator(
    recipe: Recipe, parts: Parts, *, image_shape: tuple[int, int, int], classes: int
) -> keras.Model:
    """Build the discriminator."""
    images = keras.Input(image_shape, name="images")
    x = layers.Flatten()(from_output(images, recipe.output))
    features = _hidden(parts, x, recipe.discriminator_widths, recipe.activation)
    return parts.head(recipe, images, features, classes=classes)

"""Builds the networks of a recipe. They use keras.layers and keras.ops only, so they run on every Keras backend."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import layers

from digitforge_training.gan.networks.convolutional import convolutional_discriminator, convolutional_generator
from digitforge_training.gan.networks.dense import dense_discriminator, dense_generator
from digitforge_training.gan.networks.parts import Parts
from digitforge_training.gan.networks.residual import residual_discriminator, residual_generator
from digitforge_training.recipes import Recipe

__all__ = ["build_discriminator", "build_generator", "parameter_count"]

_BUILDERS = {
    "residual": (residual_generator, residual_discriminator),
    "dense": (dense_generator, dense_discriminator),
    "convolutional": (convolutional_generator, convolutional_discriminator),
}


def build_generator(
    recipe: Recipe,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    seed: int,
    draw: Callable[..., Any] | None = None,
) -> keras.Model:
    """Build the recipe's generator: [class weights (n, K),] latents (n, d) => images (n, H, W, C).

    Args:
        recipe: the recipe.
        image_shape: (H, W, C). Networks that need sides divisible by 4 make larger images and crop them.
        classes: K, or 0 for a generator without classes.
        seed: seed of the weights.
        draw: draws random numbers if there are several replicas, see `Parts`.
    """
    height, breadth, channels = image_shape
    extra = (0, 0) if recipe.network == "dense" else (-height % 4, -breadth % 4)
    parts = Parts(
        seed=seed,
        normalization=recipe.generator_normalization,
        momentum=recipe.normalization_momentum,
        dropout=recipe.generator_dropout,
        draw=draw,
    )
    build, _ = _BUILDERS[recipe.network]
    whole = (height + extra[0], breadth + extra[1], channels)
    with _precision(recipe):
        generator = build(recipe, parts, image_shape=whole, classes=classes)
    if any(extra):
        cropping = tuple((more // 2, more - more // 2) for more in extra)
        generator = keras.Model(generator.inputs, layers.Cropping2D(cropping)(generator.output), name="generator")
    return _named(generator)


def build_discriminator(
    recipe: Recipe,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    seed: int,
    draw: Callable[..., Any] | None = None,
) -> keras.Model:
    """Build the recipe's discriminator: images (n, H, W, C) [, class weights (n, K·m)] => score (n,).

    It takes class weights, one for each of the m clusters of a class, if the recipe has a projection. With an auxiliary
    classifier it returns a list: the score, and class logits (n, K).
    """
    parts = Parts(
        seed=seed,
        normalization=recipe.discriminator_normalization,
        momentum=recipe.normalization_momentum,
        dropout=recipe.discriminator_dropout,
        draw=draw,
    )
    _, build = _BUILDERS[recipe.network]
    with _precision(recipe):
        return _named(build(recipe, parts, image_shape=image_shape, classes=classes))


def parameter_count(network: keras.Model) -> int:
    """Number of trained parameters. Measured numbers, such as the frequencies of clusters, do not count."""
    return sum(math.prod(variable.shape) for variable in network.trainable_variables)


def _named(network: keras.Model) -> keras.Model:
    """Name the layers of a network by their positions.

    Keras numbers layers over the whole process, and TensorFlow's graph optimizer sorts the terms of sums by name. With
    Keras's names, two trainings in one process would differ by rounding.
    """
    for place, layer in enumerate(network.layers):
        layer.name = f"{type(layer).__name__}_{place}"
        if isinstance(layer, layers.Wrapper):
            layer.layer.name = "wrapped"
    return network


@contextlib.contextmanager
def _precision(recipe: Recipe) -> Iterator[None]:
    """Layers compute in bfloat16 if the recipe says so. Weights, inputs and outputs stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.bfloat16 else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

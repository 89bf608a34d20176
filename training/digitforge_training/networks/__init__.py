"""Networks of the recipes, in keras.layers and keras.ops only, so that they depend on no Keras backend."""

from __future__ import annotations

import keras

from digitforge_client.errors import InvalidInputError
from digitforge_training.networks.residual import residual_discriminator, residual_generator
from digitforge_training.recipes import Recipe

__all__ = ["build_discriminator", "build_generator"]


def _check(image_shape: tuple[int, int, int]) -> None:
    height, breadth, _ = image_shape
    if height % 4 or breadth % 4:
        raise InvalidInputError(
            f"images are {height}×{breadth}; this recipe needs sides divisible by 4: pad or resize them"
        )


def build_generator(recipe: Recipe, *, image_shape: tuple[int, int, int], classes: int, seed: int) -> keras.Model:
    """Build the recipe's generator: class weights (n, K), latents (n, d) => images (n, H, W, C).

    Raises:
        InvalidInputError: the recipe cannot make images of this shape.
    """
    _check(image_shape)
    return residual_generator(
        image_shape=image_shape, classes=classes, latent_size=recipe.latent_size, width=recipe.width,
        blocks=recipe.generator_blocks, embedding_size=recipe.embedding_size, seed=seed,
    )  # fmt: skip


def build_discriminator(recipe: Recipe, *, image_shape: tuple[int, int, int], classes: int, seed: int) -> keras.Model:
    """Build the recipe's discriminator: images, class weights (n, K) => score (n,), class logits (n, K).

    Raises:
        InvalidInputError: the recipe cannot judge images of this shape.
    """
    _check(image_shape)
    return residual_discriminator(
        image_shape=image_shape, classes=classes, width=recipe.width, blocks=recipe.discriminator_blocks, seed=seed
    )

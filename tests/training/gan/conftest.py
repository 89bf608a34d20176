"""Fixtures of the tests of networks and steps."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import pytest
import tensorflow as tf

from digitforge_training.gan.adversary import Adversary
from digitforge_training.gan.networks import build_discriminator, build_generator
from digitforge_training.recipes import resolve


@pytest.fixture
def adversary() -> Adversary:
    """The losses of `forge` between small dense networks, for three classes of 16×16 images."""
    small: dict[str, str | float] = {"network": "dense", "generator_widths": "32", "discriminator_widths": "32"}
    few: dict[str, str | float] = {"clusters": 1, "penalty_noise": 0.001, "ema_images": 640, "batch_size": 32}
    recipe = resolve("forge", small | few)
    generator, averaged = (build_generator(recipe, image_shape=(16, 16, 1), classes=3, seed=0) for _ in range(2))
    discriminator = build_discriminator(recipe, image_shape=(16, 16, 1), classes=3, seed=1)
    return Adversary(
        recipe=recipe,
        generator=generator,
        discriminator=discriminator,
        averaged=averaged,
        generator_optimizer=keras.optimizers.Adam(1e-3),
        discriminator_optimizer=keras.optimizers.Adam(1e-3),
    )


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Run steps eagerly: tracing a graph takes seconds, and a few small steps take almost no time.

    Use batches of 200, so that a call draws batches for few steps (see `Recipe.steps_at_once`).
    """
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)

"""Networks: shapes, other image sizes, blends of classes, and the numbers of parameters that the documents name."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_training.networks import build_discriminator, build_generator
from digitforge_training.recipes import RECIPES, resolve

TINY = resolve("forge", {"width": 8, "generator_blocks": 1, "discriminator_blocks": 1})


@pytest.mark.parametrize("shape", [(16, 16, 1), (28, 28, 1), (32, 32, 3), (64, 64, 1)])
def test_networks_fit_square_images_of_many_sizes(shape: tuple[int, int, int]) -> None:
    generator = build_generator(TINY, image_shape=shape, classes=7, seed=0)
    discriminator = build_discriminator(TINY, image_shape=shape, classes=7, seed=1)
    weights = np.eye(7, dtype=np.float32)
    images = generator([weights, np.zeros((7, TINY.latent_size), np.float32)])
    assert images.shape == (7, *shape)
    score, logits = discriminator([np.asarray(images), weights])
    assert (score.shape, logits.shape) == ((7,), (7, 7))


def test_a_side_that_cannot_be_halved_twice_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"30×30.*divisible by 4"):
        build_generator(TINY, image_shape=(30, 30, 1), classes=2, seed=0)


@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_the_seed_decides_every_weight(build: Callable[..., keras.Model]) -> None:
    one, same, other = (build(TINY, image_shape=(28, 28, 1), classes=10, seed=seed).get_weights() for seed in (4, 4, 5))
    for a, b, c in zip(one, same, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c) or np.unique(a).size == 1  # biases and last convolutions start at zero


def test_every_layer_starts_with_its_own_random_weights() -> None:
    generator = build_generator(RECIPES["forge"], image_shape=(28, 28, 1), classes=10, seed=0)
    kernels = [w for w in map(np.asarray, generator.weights) if w.ndim == 4 and np.abs(w).max() > 0]
    for i, one in enumerate(kernels):
        for other in kernels[i + 1 :]:
            assert one.shape != other.shape or not np.array_equal(one, other)


def test_forge_has_about_as_many_parameters_as_documented() -> None:
    generator = build_generator(RECIPES["forge"], image_shape=(28, 28, 1), classes=10, seed=0)
    assert 700_000 < generator.count_params() < 900_000

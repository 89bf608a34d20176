"""Networks: shapes, image sizes, options, blends of classes, and documented parameter counts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import keras
import numpy as np
import pytest

from digitforge_training.gan.networks import build_discriminator, build_generator, parameter_count
from digitforge_training.gan.networks.parts import pixel_shuffle
from digitforge_training.gan.networks.residual import UnfoldedConvolution
from digitforge_training.recipes import RECIPES, Recipe, resolve

NARROW: dict[str, dict[str, str | float]] = {
    "residual": {"clusters": 1, "width": 8, "generator_blocks": 1, "discriminator_blocks": 1},
    "dense": {"generator_widths": "8,16", "discriminator_widths": "16,8"},
    "convolutional": {"generator_widths": "8,6,4", "discriminator_widths": "4,6"},
}
OF_NETWORK = {"residual": "forge", "dense": "dense-bn", "convolutional": "dcgan-rmsprop"}


def _narrow(network: str, **overrides: str | float) -> Recipe:
    return resolve(OF_NETWORK[network], {**NARROW[network], **overrides})


def _discriminate(recipe: Recipe, shape: tuple[int, int, int], classes: int = 3) -> tuple[np.ndarray, list[np.ndarray]]:
    """One image per class, and what the discriminator returns for them."""
    weights = np.eye(classes, dtype=np.float32)
    generator = build_generator(recipe, image_shape=shape, classes=classes if recipe.conditional else 0, seed=0)
    discriminator = build_discriminator(recipe, image_shape=shape, classes=classes, seed=1)
    latents = np.zeros((classes, recipe.latent_size), np.float32)
    images = np.asarray(generator([weights, latents] if recipe.conditional else [latents], training=True))
    outputs = discriminator([images, weights] if recipe.projection else [images], training=True)
    return images, [np.asarray(output) for output in (outputs if recipe.auxiliary else [outputs])]


@pytest.mark.parametrize("network", NARROW)
@pytest.mark.parametrize("shape", [(16, 16, 1), (28, 28, 1), (30, 30, 3), (17, 17, 1), (64, 64, 3)])
def test_networks_fit_square_images_of_many_sizes(network: str, shape: tuple[int, int, int]) -> None:
    images, (score, *_) = _discriminate(_narrow(network), shape)
    assert images.shape == (3, *shape)
    assert score.shape == (3,)


def test_the_widths_of_a_residual_network_can_differ_from_its_default() -> None:
    shape = (16, 16, 1)
    plain = _narrow("residual")
    spelled = _narrow("residual", generator_widths="16,8", discriminator_widths="8,16")
    other = _narrow("residual", generator_widths="12,4", discriminator_widths="4,12")
    for build in (build_generator, build_discriminator):
        of_plain, of_spelled, of_other = (
            [tuple(weights.shape) for weights in build(recipe, image_shape=shape, classes=3, seed=0).weights]
            for recipe in (plain, spelled, other)
        )
        assert of_plain == of_spelled
        assert {12, 4} <= {size for weights in of_other for size in weights}
    images, _ = _discriminate(other, shape)
    assert images.shape == (3, *shape)


@pytest.mark.parametrize("network", NARROW)
@pytest.mark.parametrize("conditioning", ["none", "projection", "auxiliary", "both"])
def test_every_network_takes_every_conditioning(network: str, conditioning: str) -> None:
    images, outputs = _discriminate(_narrow(network, conditioning=conditioning), (16, 16, 1))
    assert [output.shape for output in outputs] == [(3,), (3, 3)][: 1 + (conditioning in {"auxiliary", "both"})]
    if conditioning != "none":
        assert not np.array_equal(images[0], images[1])  # the same latent, another class


@pytest.mark.parametrize(
    ("network", "normalization"),
    [
        (network, normalization)
        for network in NARROW
        for normalization in ("batch", "instance", "spectral")
        if (network, normalization) != ("dense", "instance")
    ],
)
def test_every_network_takes_every_normalization_dropout_and_bfloat16(network: str, normalization: str) -> None:
    recipe = _narrow(
        network,
        generator_normalization=normalization,
        discriminator_normalization=normalization,
        generator_dropout=0.3,
        discriminator_dropout=0.3,
        bfloat16="true",
        conditioning="both",
    )
    images, outputs = _discriminate(recipe, (16, 16, 1))
    assert all(array.dtype == np.float32 for array in (images, *outputs))  # also if the layers compute in bfloat16
    assert all(np.isfinite(array).all() for array in (images, *outputs))
    generator = build_generator(recipe, image_shape=(16, 16, 1), classes=3, seed=0)
    assert all(variable.dtype == "float32" for variable in generator.trainable_variables)


def test_spectral_normalization_bounds_how_steep_a_discriminator_can_be() -> None:
    recipe = _narrow("dense", discriminator_normalization="spectral")
    discriminator = build_discriminator(recipe, image_shape=(16, 16, 1), classes=3, seed=1)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 16, 16, 1)).astype(np.float32)
    for layer in discriminator.layers:  # start far from norm 1; power iteration needs some rounds
        for variable in layer.trainable_variables:
            variable.assign(10 * variable.value)
    for _ in range(50):
        scores = np.asarray(discriminator([images], training=True))
    assert abs(scores[0] - scores[1]) <= 1.05 * np.linalg.norm(images[0] - images[1])


def test_an_unfolded_convolution_is_the_plain_one_on_the_shuffled_image() -> None:
    squares = np.random.default_rng(0).normal(size=(2, 7, 5, 12)).astype(np.float32)
    fast = UnfoldedConvolution(6, kernel_initializer="glorot_uniform")
    plain = keras.layers.Conv2D(6, 3, padding="same")
    image = pixel_shuffle(squares)
    fast.build(squares.shape)
    fast.bias.assign(np.arange(6))
    plain.build(image.shape)
    plain.set_weights(fast.get_weights())
    np.testing.assert_allclose(np.asarray(fast(squares)), np.asarray(plain(image)), atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_the_seed_decides_every_weight(build: Callable[..., keras.Model], recipe: Recipe) -> None:
    classes = 10 if recipe.conditional else 0
    networks = [build(recipe, image_shape=(28, 28, 1), classes=classes, seed=seed) for seed in (4, 4, 5)]
    for a, b, c in zip(*(network.get_weights() for network in networks), strict=True):
        np.testing.assert_array_equal(a, b)
        # Biases, moving averages and last convolutions start equal.
        assert not np.array_equal(a, c) or np.unique(a).size == 1


def test_every_layer_starts_with_its_own_random_weights() -> None:
    generator = build_generator(RECIPES["forge"], image_shape=(28, 28, 1), classes=10, seed=0)
    kernels = [w for w in map(np.asarray, generator.weights) if w.ndim == 4 and np.abs(w).max() > 0]
    for i, one in enumerate(kernels):
        for other in kernels[i + 1 :]:
            assert one.shape != other.shape or not np.array_equal(one, other)


def _dense(*sizes: int) -> int:
    return sum((i + 1) * o for i, o in itertools.pairwise(sizes))


def _convolutions(*channels: int) -> int:
    return sum(25 * i * o + o for i, o in itertools.pairwise(channels))


@pytest.mark.parametrize(
    ("name", "generator", "discriminator"),
    [
        ("mlp", _dense(100, 256, 512, 1024, 784), _dense(784, 1024, 512, 256, 1)),
        ("dense-bn", _dense(100, 256, 512, 1024, 784) + 2 * (256 + 512 + 1024), _dense(784, 512, 256, 1)),
        (
            "dcgan-rmsprop",
            _dense(100, 7 * 7 * 256) + _convolutions(256, 128, 64, 32, 1) + 2 * (256 + 128 + 64 + 32),
            _convolutions(1, 64, 128, 256, 512) + _dense(4 * 4 * 512, 1),
        ),
        ("bp-gan", _dense(100, 784), _dense(784, 100, 1)),
    ],
)
def test_the_published_networks_have_the_published_weights(name: str, generator: int, discriminator: int) -> None:
    recipe = RECIPES[name]
    built = (
        build_generator(recipe, image_shape=(28, 28, 1), classes=0, seed=0),
        build_discriminator(recipe, image_shape=(28, 28, 1), classes=0, seed=0),
    )
    counts = [sum(int(np.prod(variable.shape)) for variable in network.trainable_variables) for network in built]
    assert counts == [generator, discriminator]


@pytest.mark.parametrize("name", ["mlp", "dcgan-rmsprop"])
def test_published_images_lie_in_the_range_of_their_last_activation(name: str) -> None:
    recipe = RECIPES[name]
    generator = build_generator(recipe, image_shape=(28, 28, 1), classes=0, seed=0)
    latents = 100 * np.random.default_rng(0).normal(size=(8, recipe.latent_size)).astype(np.float32)
    images = np.asarray(generator([latents]))
    assert images.min() < -0.5 < 0.5 < images.max()
    assert np.abs(images).max() <= 1


def test_forge_has_as_many_parameters_as_documented() -> None:
    generator = build_generator(RECIPES["forge"], image_shape=(28, 28, 1), classes=10, seed=0)
    assert parameter_count(generator) == 568_145

"""What all networks share: normalization, where classes enter, and the discriminator's head.

Networks are built by `Parts`, which gives each layer its own seed, so that a run's seed decides all weights and no
two layers start alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from digitforge_training.recipes import Normalization, Recipe

SLOPE = 0.2  # of the leaky ReLU, as in DCGAN and StyleGAN


class SharedDropout(layers.Dropout):
    """Dropout of one replica of several: its rows of the mask that one device would draw for all of them."""

    def __init__(self, rate: float, *, seed: int, draw: Callable[..., Any]) -> None:
        super().__init__(rate, seed=seed)
        self._draw = draw

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop, while training; *inputs* (rows, …) keep their shape."""
        if not training:
            return inputs

        def sample(shape: Any) -> Any:
            return keras.random.dropout(ops.ones(shape, inputs.dtype), self.rate, seed=self.seed_generator)

        return inputs * self._draw(sample, (ops.shape(inputs)[0], *inputs.shape[1:]))


class Clusters(layers.Layer):
    """The cluster of each class that a latent decides on (see clusters.py).

    Class weights (n, K) and latents (n, d) => (n, K·m): each class's weight, at the cluster in whose part of the
    latent's distribution the first latent lies. The weight `counts` (K, m) holds the images of each cluster.
    """

    def __init__(self, classes: int, each: int, *, distribution: str) -> None:
        super().__init__(dtype="float32")
        self._distribution = distribution
        # Whole numbers: they are counted, and neither trained nor averaged.
        self.counts = self.add_weight(shape=(classes, each), dtype="int32", initializer="ones", trainable=False)

    def call(self, class_weights: Any, latents: Any) -> Any:
        """Choose."""
        upper = ops.cumsum(ops.cast(self.counts, "float32"), axis=1)
        # Below one, so that a class with fewer clusters has none behind its last.
        quantile = ops.minimum(to_quantile(latents[:, 0], self._distribution), 1 - 2**-24)[:, None, None]
        classes, each = self.counts.shape
        passed = ops.cast(quantile >= (upper / upper[:, -1:])[None, :, :-1], "int32")
        chosen = ops.one_hot(ops.sum(passed, axis=2), each)
        return ops.reshape(class_weights[:, :, None] * chosen, (-1, classes * each))


def to_quantile(latents: Any, distribution: str) -> Any:
    """Latents => where each lies in its distribution, in [0, 1]."""
    return 0.5 * (1.0 + (ops.erf(latents * 0.5**0.5) if distribution == "normal" else latents))


def without_clusters(class_weights: Any, each: int) -> Any:
    """Weights of each of a class's clusters, (n, K·each) => of the classes, (n, K)."""
    if each == 1:
        return class_weights
    return ops.sum(ops.reshape(class_weights, (-1, class_weights.shape[1] // each, each)), axis=2)


class Parts:
    """Layers of one network, each with the next seed.

    Args:
        draw: where several replicas share a batch, what draws the random numbers of one (see replicas.py).
    """

    def __init__(
        self,
        *,
        seed: int,
        normalization: Normalization,
        momentum: float,
        dropout: float,
        draw: Callable[..., Any] | None = None,
    ) -> None:
        self._seeds = itertools.count(seed)
        self.spectral = normalization == "spectral"
        self._normalization = normalization
        self._momentum = momentum
        self._dropout = dropout
        self._draw = draw

    def he(self) -> keras.initializers.Initializer:
        """Weights for layers that leaky units follow or precede."""
        return keras.initializers.HeNormal(seed=next(self._seeds))

    def glorot(self) -> keras.initializers.Initializer:
        """Weights for the last layers, and Keras's default, which the published networks use."""
        return keras.initializers.GlorotUniform(seed=next(self._seeds))

    def weighted(self, layer: Any) -> Any:
        """A layer with a kernel, under spectral normalization if the network has it (Miyato et al. 2018)."""
        return layers.SpectralNormalization(layer, dtype=layer.dtype_policy) if self.spectral else layer

    def dense(self, x: Any, units: int, **options: Any) -> Any:
        """(n, i) => (n, units)."""
        return self.weighted(layers.Dense(units, kernel_initializer=self.glorot(), **options))(x)

    def normalize(self, x: Any) -> Any:
        """Batch or instance normalization, if the network has it."""
        if self._normalization == "batch":
            return layers.BatchNormalization(momentum=self._momentum, synchronized=self._draw is not None)(x)
        if self._normalization == "instance":
            return layers.GroupNormalization(groups=-1)(x)  # −1: each channel by itself
        return x

    def drop(self, x: Any) -> Any:
        """Dropout, if the network has it."""
        if not self._dropout:
            return x
        if self._draw is not None:
            return SharedDropout(self._dropout, seed=next(self._seeds), draw=self._draw)(x)
        return layers.Dropout(self._dropout, seed=next(self._seeds))(x)

    def start(self, recipe: Recipe, *, classes: int) -> tuple[list[Any], Any]:
        """The generator's inputs, and the vector that it starts from: the latent, and a class's embedding behind it."""
        latents = keras.Input((recipe.latent_size,), name="latents")
        x = layers.Rescaling(0.5, offset=0.5)(latents) if recipe.positive_latents else latents
        if not classes:
            return [latents], x
        class_weights = keras.Input((classes,), name="class_weights")
        # A class is a row of a matrix, so a blend of classes is a blend of rows.
        embedded = layers.Dense(recipe.embedding_size, use_bias=False, kernel_initializer=self.he())(class_weights)
        if recipe.clusters > 1:
            chosen = Clusters(classes, recipe.clusters, distribution=recipe.latent_distribution)(class_weights, latents)
            # As large at the start as the class's, whose kernel has fewer rows.
            initial = keras.initializers.RandomNormal(stddev=(2 / classes) ** 0.5, seed=next(self._seeds))
            embedded += layers.Dense(recipe.embedding_size, use_bias=False, kernel_initializer=initial)(chosen)
        return [class_weights, latents], layers.Concatenate()([x, embedded])

    def head(self, recipe: Recipe, images: Any, features: Any, *, classes: int) -> keras.Model:
        """The discriminator: a score, with a projection of the class (Miyato and Koyama 2018), a classifier, or both.

        Args:
            recipe: says which, and how many clusters a class has.
            images: its input.
            features: (n, f).
            classes: K.
        """
        size, each = features.shape[-1], recipe.clusters
        inputs, score = [images], self.dense(features, 1, dtype="float32")[:, 0]
        if recipe.projection:
            class_weights = keras.Input((classes * each,), name="class_weights")
            projected = self.dense(without_clusters(class_weights, each), size, use_bias=False, dtype="float32")
            if each > 1:
                projected += self.dense(class_weights, size, use_bias=False, dtype="float32")
            # Divided by √f, so that both terms of the score start at the same size.
            score += ops.sum(ops.cast(features, "float32") * projected, axis=1) / size**0.5
            inputs.append(class_weights)
        outputs = [score, self.dense(features, classes, dtype="float32")] if recipe.auxiliary else score
        return keras.Model(inputs, outputs, name="discriminator")


def leaky(x: Any) -> Any:
    """Leaky ReLU."""
    return layers.LeakyReLU(negative_slope=SLOPE)(x)


def pixel_shuffle(x: Any) -> Any:
    """(n, H, W, 4·C) => (n, 2H, 2W, C), the four of a pixel in a 2×2 square (Shi et al. 2016)."""
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height, width, 2, 2, channels // 4))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 2 * height, 2 * width, channels // 4))


def to_output(x: Any, output: str) -> Any:
    """The generator's last activation; images lie in [−1, 1] outside the networks, whatever range they work in."""
    x = layers.Activation(output, dtype="float32")(x)
    return layers.Rescaling(2.0, offset=-1.0, dtype="float32")(x) if output == "sigmoid" else x


def from_output(images: Any, output: str) -> Any:
    """Images as a discriminator sees them: in [0, 1] where the generator ends in a sigmoid."""
    return layers.Rescaling(0.5, offset=0.5)(images) if output == "sigmoid" else images

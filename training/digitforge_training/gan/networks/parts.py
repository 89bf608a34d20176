"""Parts of all networks: layers, normalization, class inputs, and the discriminator's head.

`Parts` gives each layer its own seed, so that the seed of a run determines all weights and no two layers start equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from digitforge_training.recipes import Normalization, Recipe

SLOPE = 0.2  # negative slope of leaky ReLU, as in DCGAN and StyleGAN


class SharedDropout(layers.Dropout):
    """Dropout for several replicas. Each takes its rows of the mask that a single device would draw."""

    def __init__(self, rate: float, *, seed: int, draw: Callable[..., Any]) -> None:
        super().__init__(rate, seed=seed)
        self._draw = draw

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Apply dropout while training. *inputs* (rows, …) keep their shape."""
        if not training:
            return inputs

        def sample(shape: Any) -> Any:
            return keras.random.dropout(ops.ones(shape, inputs.dtype), self.rate, seed=self.seed_generator)

        return inputs * self._draw(sample, (ops.shape(inputs)[0], *inputs.shape[1:]))


class Clusters(layers.Layer):
    """Chooses one cluster of each class from the first number of a latent (see ``gan/clusters.py``).

    Class weights (n, K) and latents (n, d) => (n, K·m). The chosen cluster gets the weight of its class, and the other
    clusters get 0. The layer's weight `counts` (K, m) holds the number of images of each cluster.
    """

    def __init__(self, classes: int, each: int, *, distribution: str) -> None:
        super().__init__(dtype="float32")
        self._distribution = distribution
        # Integers, so that they are neither trained nor averaged.
        self.counts = self.add_weight(shape=(classes, each), dtype="int32", initializer="ones", trainable=False)

    def call(self, class_weights: Any, latents: Any) -> Any:
        """Choose the clusters."""
        upper = ops.cumsum(ops.cast(self.counts, "float32"), axis=1)
        # Keep below 1. At 1, a latent would choose the last cluster, which is empty if a class has fewer clusters.
        quantile = ops.minimum(to_quantile(latents[:, 0], self._distribution), 1 - 2**-24)[:, None, None]
        classes, each = self.counts.shape
        passed = ops.cast(quantile >= (upper / upper[:, -1:])[None, :, :-1], "int32")
        chosen = ops.one_hot(ops.sum(passed, axis=2), each)
        return ops.reshape(class_weights[:, :, None] * chosen, (-1, classes * each))


def to_quantile(latents: Any, distribution: str) -> Any:
    """Latents => their quantiles in [0, 1]."""
    return 0.5 * (1.0 + (ops.erf(latents * 0.5**0.5) if distribution == "normal" else latents))


def without_clusters(class_weights: Any, each: int) -> Any:
    """Weights of clusters (n, K·each) => weights of classes (n, K)."""
    if each == 1:
        return class_weights
    return ops.sum(ops.reshape(class_weights, (-1, class_weights.shape[1] // each, each)), axis=2)


class Parts:
    """Makes the layers of one network. Each layer gets the next seed.

    Args:
        seed: seed of the first layer.
        normalization: normalization of the network.
        momentum: momentum of batch normalization.
        dropout: dropout rate.
        draw: draws the random numbers of one replica if several share a batch (see ``gan/replicas.py``).
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
        """Initializer for layers next to a leaky ReLU."""
        return keras.initializers.HeNormal(seed=next(self._seeds))

    def glorot(self) -> keras.initializers.Initializer:
        """Initializer for last layers. It is also Keras's default, which the published networks use."""
        return keras.initializers.GlorotUniform(seed=next(self._seeds))

    def weighted(self, layer: Any) -> Any:
        """Add spectral normalization to a layer with a kernel, if the network has it (Miyato et al. 2018)."""
        return layers.SpectralNormalization(layer, dtype=layer.dtype_policy) if self.spectral else layer

    def dense(self, x: Any, units: int, **options: Any) -> Any:
        """(n, i) => (n, units)."""
        return self.weighted(layers.Dense(units, kernel_initializer=self.glorot(), **options))(x)

    def normalize(self, x: Any) -> Any:
        """Batch or instance normalization, if the network has it."""
        if self._normalization == "batch":
            return layers.BatchNormalization(momentum=self._momentum, synchronized=self._draw is not None)(x)
        if self._normalization == "instance":
            return layers.GroupNormalization(groups=-1)(x)  # -1: one group per channel
        return x

    def drop(self, x: Any) -> Any:
        """Dropout, if the network has it."""
        if not self._dropout:
            return x
        if self._draw is not None:
            return SharedDropout(self._dropout, seed=next(self._seeds), draw=self._draw)(x)
        return layers.Dropout(self._dropout, seed=next(self._seeds))(x)

    def start(self, recipe: Recipe, *, classes: int) -> tuple[list[Any], Any]:
        """The generator's inputs, and the vector it starts from: the latent and the embedding of class or cluster."""
        latents = keras.Input((recipe.latent_size,), name="latents")
        x = layers.Rescaling(0.5, offset=0.5)(latents) if recipe.positive_latents else latents
        if recipe.unlabeled:
            # All images form one class. Its embedding would be constant, so only the cluster has one.
            cluster_layer = Clusters(1, recipe.clusters, distribution=recipe.latent_distribution)
            chosen = cluster_layer(ops.ones_like(latents[:, :1]), latents)
            initial = keras.initializers.RandomNormal(seed=next(self._seeds), stddev=1.0)  # the scale of latents
            embedded = layers.Dense(recipe.embedding_size, use_bias=False, kernel_initializer=initial)(chosen)
            return [latents], layers.Concatenate()([x, embedded])
        if not classes:
            return [latents], x
        class_weights = keras.Input((classes,), name="class_weights")
        # Each class is a row of a matrix, so a blend of classes is a blend of rows.
        embedded = layers.Dense(recipe.embedding_size, use_bias=False, kernel_initializer=self.he())(class_weights)
        if recipe.clusters > 1:
            chosen = Clusters(classes, recipe.clusters, distribution=recipe.latent_distribution)(class_weights, latents)
            # Start at the scale of the class embedding. HeNormal would give another scale, because this kernel has more
            # rows.
            initial = keras.initializers.RandomNormal(stddev=(2 / classes) ** 0.5, seed=next(self._seeds))
            embedded += layers.Dense(recipe.embedding_size, use_bias=False, kernel_initializer=initial)(chosen)
        return [class_weights, latents], layers.Concatenate()([x, embedded])

    def head(self, recipe: Recipe, images: Any, features: Any, *, classes: int) -> keras.Model:
        """Build the discriminator from its features: the score, and what the recipe's `conditioning` asks for.

        ``projection`` adds a projection of the class to the score (Miyato and Koyama 2018). ``auxiliary`` adds class
        logits as a second output, or cluster logits if the recipe ignores labels.

        Args:
            recipe: the recipe.
            images: input of the discriminator.
            features: (n, f).
            classes: K. Ignored if the recipe ignores labels: all images form one class.
        """
        classes = 1 if recipe.unlabeled else classes
        size, each = features.shape[-1], recipe.clusters
        inputs, score = [images], self.dense(features, 1, dtype="float32")[:, 0]
        if recipe.projection:
            class_weights = keras.Input((classes * each,), name="class_weights")
            projected = self.dense(without_clusters(class_weights, each), size, use_bias=False, dtype="float32")
            if each > 1:
                projected += self.dense(class_weights, size, use_bias=False, dtype="float32")
            # Divided by √f, so that both terms of the score start with the same scale.
            score += ops.sum(ops.cast(features, "float32") * projected, axis=1) / size**0.5
            inputs.append(class_weights)
        if not recipe.auxiliary:
            return keras.Model(inputs, score, name="discriminator")
        logits = self.dense(features, classes * (each if recipe.unlabeled else 1), dtype="float32")
        return keras.Model(inputs, [score, logits], name="discriminator")


def leaky(x: Any) -> Any:
    """Leaky ReLU."""
    return layers.LeakyReLU(negative_slope=SLOPE)(x)


def pixel_shuffle(x: Any) -> Any:
    """(n, H, W, 4·C) => (n, 2H, 2W, C). Each pixel becomes a 2×2 square (Shi et al. 2016)."""
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height, width, 2, 2, channels // 4))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 2 * height, 2 * width, channels // 4))


def to_output(x: Any, output: str) -> Any:
    """Apply the generator's last activation. Outside of the networks, images are always in [−1, 1]."""
    x = layers.Activation(output, dtype="float32")(x)
    return layers.Rescaling(2.0, offset=-1.0, dtype="float32")(x) if output == "sigmoid" else x


def from_output(images: Any, output: str) -> Any:
    """Convert images to the range that the discriminator works in: [0, 1] if the generator ends in a sigmoid."""
    return layers.Rescaling(0.5, offset=0.5)(images) if output == "sigmoid" else images

"""The batches of a step: real images, class weights, latents and seeds. Random choices depend only on (seed, step)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from digitforge_training.data import Dataset
from digitforge_training.gan import replicas
from digitforge_training.gan.clusters import count_clusters, find_clusters, find_clusters_without_labels
from digitforge_training.gan.latents import place_in_clusters
from digitforge_training.recipes import Recipe

_STREAMS = 16  # independent random streams per update; stream s has the seed ``seed + [0, s]``


class Batch(NamedTuple):
    """The input of one update of a network, n rows."""

    images: tf.Tensor  #: (n, H, W, C) uint8, real images.
    #: (n, K·m) float32, one-hot: class and cluster of each image. In equal parts if the clusters are unknown.
    class_weights: tf.Tensor
    latents: tf.Tensor  #: (n, d) float32, for generated images of the same classes and clusters.
    seed: tf.Tensor  #: (2,) int64, seed of all other random numbers.

    def own_rows(self) -> Batch:
        """The rows of this replica."""
        own = functools.partial(replicas.own_rows, batch=self.images.shape[0])
        return Batch(own(self.images), own(self.class_weights), own(self.latents), self.seed)


class Batches:
    """Draws the batches of a training."""

    def __init__(
        self, dataset: Dataset, recipe: Recipe, *, seed: int, counts: npt.NDArray[np.int32] | None = None
    ) -> None:
        """Find the clusters of the images.

        Args:
            dataset: the training images.
            recipe: the recipe.
            seed: seed of all random choices.
            counts: (K, m), images of each cluster of the data that the generator was trained on before. The clusters of
                *dataset* are then unknown: each image belongs to all clusters of its class in equal parts, and latents
                are drawn regardless of clusters.
        """
        self._recipe, self._seed, per_class = recipe, seed, recipe.clusters
        self._clustered = per_class > 1 and counts is None
        labels, classes = dataset.labels, len(dataset.class_names)
        if recipe.unlabeled:
            labels, classes = np.zeros(len(dataset), np.int64), 1
        if counts is not None:
            found = np.zeros(len(dataset), np.int64)
        elif recipe.unlabeled:
            found = find_clusters_without_labels(dataset.images, per_class, seed=seed)
        else:
            found = find_clusters(dataset, per_class, seed=seed)
        if counts is None:
            counts = count_clusters(found, labels, classes=classes, per_class=per_class)
        self.counts = counts  #: (K, m) int32, images of each cluster.
        clusters = labels * per_class + found  # class and cluster in one number
        # All images stay on the device as uint8, so the loop copies nothing from the host.
        self._images, self._clusters = tf.constant(dataset.images), tf.constant(clusters)
        self._by_cluster = tf.constant(np.argsort(clusters, kind="stable"))

    @property
    def dtypes(self) -> list[Batch]:
        """Dtypes of the batches that `draw` returns."""
        return [Batch(tf.uint8, tf.float32, tf.float32, tf.int64)] * len(self._turns())

    def _turns(self) -> range:
        """Numbers of the batches of a step."""
        recipe = self._recipe
        first, second = recipe.discriminator_steps, recipe.generator_steps
        return range(max(first, second) if recipe.shared_latents else first + second)

    def draw(self, step: tf.Tensor) -> list[Batch]:
        """Draw the batches of a step: one per update, or one per pair of updates with shared latents.

        The discriminator takes the first batches. Later batches repeat their real images with other latents.
        """
        fresh = self._recipe.discriminator_steps
        real = [self.real(step * fresh + turn) for turn in range(fresh)]
        seeds = [self._seed_of(step, turn) for turn in self._turns()]
        return [
            Batch(images, class_weights, self._latents(seed, class_weights), seed)
            for turn, seed in enumerate(seeds)
            for images, class_weights in [real[turn % fresh]]
        ]

    def real(self, turn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and class weights of the discriminator's update number *turn*. Each epoch has its own permutation."""
        size, n = self._recipe.batch_size, len(self._images)
        position = turn * size + tf.range(size, dtype=tf.int64)
        epoch = position // n
        seeds = tf.stack([tf.fill([size], tf.constant(self._seed, tf.int64)), epoch, tf.zeros_like(epoch)], axis=1)
        # A batch may contain rows of two epochs, so each row needs its own seed. The raw operation takes one seed per
        # row, but tf.random.experimental.index_shuffle takes only one for the whole batch.
        index = tf.raw_ops.RandomIndexShuffle(
            index=position % n, seed=seeds, max_index=tf.constant(n - 1, tf.int64), rounds=4
        )
        if self._clustered:
            index = tf.where(tf.range(size) % 4 != 0, index, self._any_cluster(index, turn))
        return tf.gather(self._images, index), self._class_weights(tf.gather(self._clusters, index))

    def _class_weights(self, clusters: tf.Tensor) -> tf.Tensor:
        classes, per_class = self.counts.shape
        if self._clustered or per_class == 1:
            return tf.one_hot(clusters, classes * per_class)
        return tf.repeat(tf.one_hot(clusters // per_class, classes), per_class, axis=1) / per_class

    def _any_cluster(self, index: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
        """Replace each image by one of its class, from a cluster drawn uniformly among the class's clusters."""
        per_class, counts = self._recipe.clusters, tf.constant(self.counts.ravel(), tf.int64)
        chances = tf.random.stateless_uniform((2, self._recipe.batch_size), self._seed_of(turn, 0))
        label = tf.gather(self._clusters, index) // per_class
        nonempty = tf.gather(tf.constant((self.counts > 0).sum(axis=1), tf.float32), label)
        cluster = label * per_class + tf.cast(chances[0] * nonempty, tf.int64)
        before, size = tf.gather(tf.cumsum(counts, exclusive=True), cluster), tf.gather(counts, cluster)
        within = tf.minimum(tf.cast(chances[1] * tf.cast(size, tf.float32), tf.int64), size - 1)
        return tf.gather(self._by_cluster, before + within)

    def _latents(self, seed: tf.Tensor, class_weights: tf.Tensor) -> tf.Tensor:
        recipe, distribution = self._recipe, self._recipe.latent_distribution
        shape = (recipe.batch_size, recipe.latent_size)
        if distribution == "normal":
            latents = tf.random.stateless_normal(shape, seed + [0, 4])
        else:
            latents = tf.random.stateless_uniform(shape, seed + [0, 4], -1.0, 1.0)
        if not self._clustered:
            return latents
        return place_in_clusters(latents, class_weights, self.counts, distribution=distribution)

    def _seed_of(self, step: tf.Tensor, turn: int) -> tf.Tensor:
        """Seed of an update, int64 (2,). Its random streams add their number to the second element."""
        return tf.stack([tf.constant(self._seed + (turn << 32), tf.int64), step * _STREAMS])

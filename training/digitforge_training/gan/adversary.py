"""The networks of a training and the mathematics between them; steps.py says who learns from what.

The score is zero-centered by gradient penalties on real and on generated images, R1 and R2, as R3GAN has it (Huang et
al. 2024, arXiv:2501.05441). An auxiliary classifier on the discriminator's features (Odena et al. 2017,
arXiv:1610.09585) learns from real images only and adds a small term to the generator's loss. The term vanishes for
digits that are already recognized, so it mends wrong labels and leaves the rest alone.
"""

from __future__ import annotations

import dataclasses
import math

import keras
import tensorflow as tf

from digitforge_training.gan import losses
from digitforge_training.gan.networks.parts import without_clusters
from digitforge_training.gan.pixels import to_pixel_range
from digitforge_training.gan.replicas import count, draw
from digitforge_training.recipes import Recipe

Statistics = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversary:
    """A generator and a discriminator, and what moves them. Images are float32 (n, H, W, C) in [−1, 1].

    Class weights are (n, K·m), for each of the m clusters of a class, if the recipe has such, and else (n, K). The
    discriminator sees the clusters; the generator finds them in its latents.
    """

    recipe: Recipe
    generator: keras.Model
    discriminator: keras.Model
    averaged: keras.Model  # the generator with averaged weights; the generator itself if the recipe averages none
    generator_optimizer: keras.optimizers.Optimizer
    discriminator_optimizer: keras.optimizers.Optimizer

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of what there is to watch in every step."""
        losses_of_classes = ("class_loss_real", "class_loss_generated") if self.recipe.auxiliary else ()
        accuracies = ("accuracy_real", "accuracy_generated", "pair_accuracy", "score_gap")
        return ("discriminator_loss", "generator_loss", *accuracies, *losses_of_classes)

    def generate(self, class_weights: tf.Tensor, latents: tf.Tensor, *, training: bool = True) -> tf.Tensor:
        """(n, K·m), (n, d) => images; a generator without classes ignores the weights."""
        classes = [without_clusters(class_weights, self.recipe.clusters)] if self.recipe.conditional else []
        images = self.generator([*classes, latents], training=training)
        return to_pixel_range(images) if self.recipe.output == "linear" else images

    def discriminate(self, images: tf.Tensor, class_weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Score (n,) and class logits (n, K) of images; no logits without an auxiliary classifier."""
        outputs = self.discriminator([images, class_weights] if self.recipe.projection else [images], training=True)
        return tuple(outputs) if self.recipe.auxiliary else (outputs, None)

    def class_loss(self, logits: tf.Tensor | None, class_weights: tf.Tensor) -> tf.Tensor:
        """Cross-entropy of the first of (2n, K) or all of (n, K) logits with the classes; 0 without a classifier."""
        if logits is None:
            return tf.constant(0.0)
        weights = without_clusters(class_weights, self.recipe.clusters)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(weights, logits[: tf.shape(weights)[0]]))

    def penalty(
        self, images: tf.Tensor, class_weights: tf.Tensor, score: tf.Tensor, *, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """R1 + R2, (γ/2)·‖∇D‖² on real plus on generated images; γ falls along a cosine.

        Computed at every so many steps and weighted up by as much, so that γ keeps its meaning; 0 at the others.
        """
        recipe = self.recipe
        if not (recipe.gamma or recipe.gamma_end):
            return tf.constant(0.0)
        done = tf.cast(step, tf.float32) / recipe.steps
        gamma = recipe.gamma_end + (recipe.gamma - recipe.gamma_end) * 0.5 * (1.0 + tf.cos(math.pi * done))
        gamma = tf.where(step % recipe.penalty_every == 0, gamma * recipe.penalty_every, 0.0)

        def penalty() -> tf.Tensor:
            return 0.5 * gamma * self.squared_gradient(images, class_weights, score, seed=seed)

        # Replicas cannot meet inside of a branch, as batch normalization lets them.
        if count() > 1 and recipe.discriminator_normalization == "batch":
            return penalty()
        return tf.cond(gamma > 0, penalty, lambda: 0.0)

    def squared_gradient(
        self, images: tf.Tensor, class_weights: tf.Tensor, score: tf.Tensor, *, seed: tf.Tensor
    ) -> tf.Tensor:
        """‖∇D‖² on real plus on generated images, by finite difference: E[(D(x + σε) − D(x))²] / σ² for ε ~ N(0, I).

        To first order this is the squared norm of the gradient, as R1 and R2 have it, at the price of one more
        forward pass instead of a second derivative (measured on a CPU: 0.63 times the time of a step).
        """
        sigma = self.recipe.penalty_noise
        shape = (tf.shape(images)[0], *images.shape[1:])
        noise = draw(tf.random.stateless_normal, shape, seed + [0, 1], batch=self.recipe.batch_size)
        moved, _ = self.discriminate(images + sigma * noise, class_weights)
        return 2.0 * tf.reduce_mean(tf.square((moved - score) / sigma))  # 2: the mean is over real and generated

    def accuracies(self, score_real: tf.Tensor, score_generated: tf.Tensor) -> Statistics:
        """How well the discriminator tells the two apart: shares, and the distance of the mean scores."""
        line = losses.boundary(self.recipe.loss, score_real, score_generated)

        def share(true: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(tf.cast(true, tf.float32))

        return {
            "accuracy_real": share(score_real > line),
            "accuracy_generated": share(score_generated <= line),
            "pair_accuracy": share(score_real > score_generated),
            "score_gap": tf.reduce_mean(score_real) - tf.reduce_mean(score_generated),
        }

    def average(self, step: tf.Tensor) -> None:
        """Exponential moving average of the generator; its half-life grows with the training at first."""
        recipe = self.recipe
        if not recipe.ema_images:
            return
        half_life = tf.minimum(float(recipe.ema_images), 0.1 * tf.cast((step + 1) * recipe.images_per_step, tf.float32))
        keep = tf.pow(0.5, recipe.images_per_step / half_life)
        for average, weight in zip(self.averaged.weights, self.generator.weights, strict=True):
            if average.dtype != "int32":  # counts
                average.assign(keep * average + (1.0 - keep) * weight)

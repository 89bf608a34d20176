"""The adversarial mathematics, in one object: what the two networks minimize.

The losses of scores are in losses.py. The relativistic one pairs real and generated images by class, with
zero-centered gradient penalties on both, R1 and R2, as R3GAN has it (Huang et al. 2024, arXiv:2501.05441). An auxiliary
classifier on the discriminator's features (Odena et al. 2017, arXiv:1610.09585) learns from real images only and adds
a small term to the generator's loss; the term vanishes for digits that are already recognized, so it mends wrong
labels and leaves the rest alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import keras
import tensorflow as tf

from digitforge_training.gan import losses
from digitforge_training.gan.augmentation import augment
from digitforge_training.gan.networks.parts import without_clusters
from digitforge_training.gan.replicas import count, draw
from digitforge_training.recipes import Recipe

Statistics = dict[str, tf.Tensor]


@tf.custom_gradient
def to_pixel_range(images: tf.Tensor) -> Any:
    """Clip to [−1, 1], with the gradient of a projection: it passes unless it would push a pixel further out.

    Real backgrounds are exactly −1. A tanh never gets there, and the discriminator would see the difference.
    """

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        outward = ((images < -1) & (upstream > 0)) | ((images > 1) & (upstream < 0))
        return tf.where(outward, tf.zeros_like(upstream), upstream)

    return tf.clip_by_value(images, -1.0, 1.0), gradient


def _mean(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(values, tf.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversary:
    """Losses of a generator and a discriminator. Images are float32 (n, H, W, C) in [−1, 1].

    Class weights are (n, K·m), for each of the m clusters of a class, if the recipe has such, and else (n, K). The
    discriminator sees the clusters; the generator finds them in its latents.
    """

    generator: keras.Model
    discriminator: keras.Model
    recipe: Recipe

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of what there is to watch in every step."""
        names = (
            "discriminator_loss",
            "generator_loss",
            "accuracy_real",
            "accuracy_generated",
            "pair_accuracy",
            "score_gap",
        )
        return (*names, "class_loss_real", "class_loss_generated") if self.recipe.auxiliary else names

    def generate(self, class_weights: tf.Tensor, latents: tf.Tensor, *, training: bool = True) -> tf.Tensor:
        """(n, K·m), (n, d) => images; a generator without classes ignores the weights."""
        inputs = (
            [without_clusters(class_weights, self.recipe.clusters), latents] if self.recipe.conditional else [latents]
        )
        images = self.generator(inputs, training=training)
        return to_pixel_range(images) if self.recipe.output == "linear" else images

    def judge(self, images: tf.Tensor, class_weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Score (n,) and class logits (n, K) or None of images as they are, without augmentation."""
        outputs = self.discriminator([images, class_weights] if self.recipe.projection else [images], training=True)
        return tuple(outputs) if self.recipe.auxiliary else (outputs, None)

    def discriminator_loss(
        self, *, real: tf.Tensor, generated: tf.Tensor, class_weights: tf.Tensor, gamma: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, Statistics]:
        """Loss of the discriminator on as many real as generated images, of the same classes in the same order.

        Args:
            gamma: scalar, weight γ of (γ/2)·‖∇D‖² at this step; 0 spares the work.
            seed: int64 (2,), of the augmentation and the penalties.

        Returns:
            The loss, scalar; the scores of the real images, (n,); and what to watch.
        """
        recipe = self.recipe
        images = augment(tf.concat([real, generated], 0), recipe, seed)
        both = tf.concat([class_weights, class_weights], 0)
        score, logits = self.judge(images, both)
        score_real, score_generated = tf.split(score, 2)
        if recipe.loss == "relativistic":
            loss = tf.reduce_mean(losses.relativistic(score_real, score_generated))
        else:
            loss = tf.reduce_mean(losses.on_real(recipe.loss, score_real, smoothing=recipe.label_smoothing))
            loss += tf.reduce_mean(losses.on_generated(recipe.loss, score_generated))
        statistics: Statistics = {}
        if logits is not None:
            statistics["class_loss_real"] = self._classify(tf.split(logits, 2)[0], class_weights)
            loss += recipe.auxiliary_discriminator * statistics["class_loss_real"]
        if recipe.gamma or recipe.gamma_end:

            def penalty() -> tf.Tensor:
                return 0.5 * gamma * self._penalty(images, both, score, seed)

            # Replicas cannot meet inside of a branch, as batch normalization lets them.
            meets = count() > 1 and recipe.discriminator_normalization == "batch"
            loss += penalty() if meets else tf.cond(gamma > 0, penalty, lambda: 0.0)
        if recipe.gradient_penalty:
            loss += recipe.gradient_penalty * self._gradient_penalty(images, class_weights, seed)
        statistics |= {"discriminator_loss": loss} | self.accuracies(score_real, score_generated)
        return loss, score_real, statistics

    def one_sided_loss(
        self, side: Literal["real", "generated"], *, images: tf.Tensor, class_weights: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, Statistics]:
        """Loss of the discriminator on real or on generated images alone, scalar; their scores, (n,); what to watch."""
        recipe = self.recipe
        score, logits = self.judge(augment(images, recipe, seed), class_weights)
        if side == "generated":
            return tf.reduce_mean(losses.on_generated(recipe.loss, score)), score, {}
        loss = tf.reduce_mean(losses.on_real(recipe.loss, score, smoothing=recipe.label_smoothing))
        statistics: Statistics = {}
        if logits is not None:
            statistics["class_loss_real"] = self._classify(logits, class_weights)
            loss += recipe.auxiliary_discriminator * statistics["class_loss_real"]
        return loss, score, statistics

    def accuracies(self, score_real: tf.Tensor, score_generated: tf.Tensor) -> Statistics:
        """How well the discriminator tells the two apart: shares, and the distance of the mean scores."""
        line = losses.boundary(self.recipe.loss, score_real, score_generated)
        return {
            "accuracy_real": _mean(score_real > line),
            "accuracy_generated": _mean(score_generated <= line),
            "pair_accuracy": _mean(score_real > score_generated),
            "score_gap": tf.reduce_mean(score_real) - tf.reduce_mean(score_generated),
        }

    def _classify(self, logits: tf.Tensor, class_weights: tf.Tensor) -> tf.Tensor:
        weights = without_clusters(class_weights, self.recipe.clusters)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(weights, logits))

    def _penalty(self, images: tf.Tensor, class_weights: tf.Tensor, score: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """‖∇D‖² on real plus on generated images, by finite difference: E[(D(x + σε) − D(x))²] / σ² for ε ~ N(0, I).

        To first order this is the squared norm of the gradient, as R1 and R2 have it, at the price of one more
        forward pass instead of a second derivative (measured on a CPU: 0.63 times the time of a step).
        """
        sigma = self.recipe.penalty_noise
        shape = (tf.shape(images)[0], *images.shape[1:])
        noise = draw(tf.random.stateless_normal, shape, seed + [0, 1], batch=self.recipe.batch_size)
        moved, _ = self.judge(images + sigma * noise, class_weights)
        return 2.0 * tf.reduce_mean(tf.square((moved - score) / sigma))  # 2: the mean is over real and generated

    def _gradient_penalty(self, images: tf.Tensor, class_weights: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """E[(‖∇D(x)‖ − 1)²], x between a real and a generated image, of WGAN-GP (Gulrajani et al. 2017)."""
        real, generated = tf.split(images, 2)
        shape = (tf.shape(real)[0], 1, 1, 1)
        share = draw(tf.random.stateless_uniform, shape, seed + [0, 6], batch=self.recipe.batch_size)
        between = share * real + (1.0 - share) * generated
        with tf.GradientTape() as tape:
            tape.watch(between)
            score, _ = self.judge(between, class_weights)
        squares = tf.reduce_sum(tf.square(tape.gradient(score, between)), axis=(1, 2, 3))
        return tf.reduce_mean(tf.square(tf.sqrt(squares + 1e-12) - 1.0))  # the root has no derivative at 0

    def generator_loss(
        self, *, generated: tf.Tensor, score_real: tf.Tensor, class_weights: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Statistics]:
        """Loss of the generator, scalar, and what to watch.

        Args:
            score_real: (n,), scores of the paired real images; no gradient passes, so that those of the
                discriminator's own step, one update old, do as well as new ones.
            seed: int64 (2,), of the augmentation.
        """
        recipe = self.recipe
        score, logits = self.judge(augment(generated, recipe, seed), class_weights)
        if recipe.loss == "relativistic":
            loss = tf.reduce_mean(losses.relativistic(score, tf.stop_gradient(score_real)))
        else:
            loss = tf.reduce_mean(losses.for_generator(recipe.loss, score))
        statistics: Statistics = {}
        if logits is not None:
            statistics["class_loss_generated"] = self._classify(logits, class_weights)
            loss += recipe.auxiliary_generator * statistics["class_loss_generated"]
        return loss, {"generator_loss": loss} | statistics

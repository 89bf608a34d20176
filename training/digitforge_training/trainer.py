"""One training in memory: two networks, their optimisers, the averaged generator, and the compiled step.

All randomness is derived from (seed, step), so a resumed training is the same training.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from digitforge_client.errors import DataError
from digitforge_training.adversary import Adversary, Statistics
from digitforge_training.checkpoints import State
from digitforge_training.data import Dataset
from digitforge_training.networks import build_discriminator, build_generator
from digitforge_training.pixels import from_pixels, to_pixels
from digitforge_training.recipes import Recipe

_STATISTICS = (
    "discriminator_loss", "generator_loss", "score_gap", "pair_accuracy", "class_loss_real", "class_loss_generated",
)  # fmt: skip
_STREAMS = 16  # independent random streams of a step; see `_step`


class Trainer:
    """Trains a recipe's generator on a data set, a number of steps at a time."""

    def __init__(self, recipe: Recipe, dataset: Dataset, *, seed: int) -> None:
        self.recipe = recipe
        self._seed = seed
        self._classes = len(dataset.class_names)
        # On the device once, as uint8: no copy from the host inside the loop.
        self._images = tf.constant(dataset.images)
        self._labels = tf.constant(dataset.labels)
        shape = dataset.images.shape[1:]
        build: dict[str, Any] = {"image_shape": shape, "classes": self._classes}
        generator = build_generator(recipe, **build, seed=1000 * seed)
        discriminator = build_discriminator(recipe, **build, seed=1000 * seed + 500)
        self.averaged = build_generator(recipe, **build, seed=1000 * seed)
        self._adversary = Adversary(generator=generator, discriminator=discriminator, recipe=recipe)
        self._generator_optimiser = self._optimiser(generator)
        self._discriminator_optimiser = self._optimiser(discriminator)

    def _optimiser(self, network: keras.Model) -> keras.optimizers.Optimizer:
        recipe = self.recipe
        schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, recipe.steps)
        optimiser = keras.optimizers.Adam(schedule, beta_1=recipe.beta_1, beta_2=recipe.beta_2)
        optimiser.build(network.trainable_variables)
        return optimiser

    @property
    def steps_done(self) -> int:
        """Steps taken so far, over all resumptions."""
        return int(self._generator_optimiser.iterations.numpy())

    @property
    def images_seen(self) -> int:
        """Real images shown to the discriminator so far."""
        return self.steps_done * self.recipe.batch_size

    def run(self, steps: int) -> dict[str, float]:
        """Take *steps* steps in one compiled call and return the means of the statistics over them."""
        means = self._run(tf.constant(self.steps_done, tf.int64), tf.constant(steps, tf.int64))
        return {name: float(value) for name, value in means.items()}

    @tf.function(reduce_retracing=True)
    def _run(self, first: tf.Tensor, steps: tf.Tensor) -> Statistics:
        totals = dict.fromkeys(_STATISTICS, 0.0)
        for step in tf.range(first, first + steps):
            statistics = self._step(step)
            totals = {name: totals[name] + statistics[name] for name in _STATISTICS}
        return {name: total / tf.cast(steps, tf.float32) for name, total in totals.items()}

    def _step(self, step: tf.Tensor) -> Statistics:
        adversary = self._adversary
        seed = tf.stack([tf.constant(self._seed, tf.int64), step * _STREAMS])
        real, class_weights = self._batch(step)
        latents = self._latents(seed)
        with tf.GradientTape() as generator_tape:
            # Both networks learn from the same generated batch: one forward pass of the generator less.
            generated = adversary.generate(class_weights, latents)
        with tf.GradientTape() as tape:
            loss, score_real, statistics = adversary.discriminator_loss(
                real=real, generated=tf.stop_gradient(generated), class_weights=class_weights,
                gamma=self._gamma(step), seed=seed,
            )  # fmt: skip
        self._apply(self._discriminator_optimiser, tape, loss, adversary.discriminator.trainable_variables)
        with generator_tape:
            loss, more = adversary.generator_loss(
                generated=generated, score_real=score_real, class_weights=class_weights, seed=seed + [0, 8]
            )
        self._apply(self._generator_optimiser, generator_tape, loss, adversary.generator.trainable_variables)
        self._average(step)
        return statistics | more

    def _gamma(self, step: tf.Tensor) -> tf.Tensor:
        """Weight of the penalty: every so many steps as many times γ, which falls along a cosine; else 0."""
        recipe = self.recipe
        done = tf.cast(step, tf.float32) / recipe.steps
        gamma = recipe.gamma_end + (recipe.gamma - recipe.gamma_end) * 0.5 * (1.0 + tf.cos(math.pi * done))
        return tf.where(step % recipe.penalty_every == 0, gamma * recipe.penalty_every, 0.0)

    @staticmethod
    def _apply(optimiser: Any, tape: tf.GradientTape, loss: tf.Tensor, variables: Any) -> None:
        optimiser.apply(tape.gradient(loss, variables), variables)

    def _batch(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Real images in [−1, 1] and their classes, one-hot: every epoch is another permutation of all images."""
        size, n = self.recipe.batch_size, len(self._images)
        position = step * size + tf.range(size, dtype=tf.int64)
        epoch = position // n
        seeds = tf.stack([tf.fill([size], tf.constant(self._seed, tf.int64)), epoch, tf.zeros_like(epoch)], axis=1)
        # The raw operation, because tf.random.experimental.index_shuffle takes one seed for the whole batch, and a
        # batch may straddle two epochs.
        index = tf.raw_ops.RandomIndexShuffle(
            index=position % n, seed=seeds, max_index=tf.constant(n - 1, tf.int64), rounds=4
        )
        labels = tf.one_hot(tf.gather(self._labels, index), self._classes)
        return from_pixels(tf.gather(self._images, index)), labels

    def _latents(self, seed: tf.Tensor) -> tf.Tensor:
        shape = (self.recipe.batch_size, self.recipe.latent_size)
        if self.recipe.latent_law == "normal":
            return tf.random.stateless_normal(shape, seed + [0, 4])
        return tf.random.stateless_uniform(shape, seed + [0, 4], -1.0, 1.0)

    def _average(self, step: tf.Tensor) -> None:
        """Exponential moving average of the generator; its half-life grows with the training at first."""
        images = tf.cast((step + 1) * self.recipe.batch_size, tf.float32)
        half_life = tf.minimum(float(self.recipe.ema_images), 0.1 * images)
        keep = tf.pow(0.5, self.recipe.batch_size / half_life)
        for average, weight in zip(self.averaged.weights, self._adversary.generator.weights, strict=True):
            average.assign(keep * average + (1.0 - keep) * weight)

    def sample(
        self, labels: npt.NDArray[np.int64], latents: npt.NDArray[np.float32], *, batch: int = 256
    ) -> npt.NDArray[np.uint8]:
        """Images of the averaged generator.

        Args:
            labels: (n,) int64.
            latents: (n, d) float32.

        Returns:
            (n, H, W, C) uint8.
        """
        weights = np.eye(self._classes, dtype=np.float32)[labels]
        parts = [
            to_pixels(self.averaged([weights[i : i + batch], latents[i : i + batch]], training=False)).numpy()
            for i in range(0, len(labels), batch)
        ]
        return np.concatenate(parts)

    def _variables(self) -> dict[str, Any]:
        groups = {
            "generator": self._adversary.generator.variables,
            "discriminator": self._adversary.discriminator.variables,
            "averaged": self.averaged.variables,
            "generator_optimiser": self._generator_optimiser.variables,
            "discriminator_optimiser": self._discriminator_optimiser.variables,
        }
        return {f"{group}/{i:03d}": v for group, variables in groups.items() for i, v in enumerate(variables)}

    def state(self) -> State:
        """Everything that a resumed training needs."""
        return {name: v.value.numpy() for name, v in self._variables().items()}

    def averaged_state(self) -> State:
        """The part of `state` that an export needs."""
        return {name: v.value.numpy() for name, v in self._variables().items() if name.startswith("averaged/")}

    def restore(self, state: State) -> None:
        """Go back to a state.

        Raises:
            DataError: the state belongs to other networks.
        """
        variables = self._variables()
        if {k: v.shape for k, v in state.items()} != {k: tuple(v.shape) for k, v in variables.items()}:
            raise DataError("the checkpoint belongs to other networks; train into another folder")
        for name, variable in variables.items():
            variable.assign(state[name])

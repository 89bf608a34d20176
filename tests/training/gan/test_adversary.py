"""The adversarial mathematics: the penalty, the projection onto pixels, and the average."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from digitforge_training.gan.adversary import Adversary
from digitforge_training.gan.pixels import to_pixel_range


def test_pixels_out_of_range_are_clipped_and_may_only_come_back() -> None:
    images = tf.constant([-2.0, -2.0, 0.5, 2.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(to_pixel_range(images) * tf.constant([1.0, -1.0, 1.0, 1.0, -1.0]))
    np.testing.assert_array_equal(to_pixel_range(images), [-1, -1, 0.5, 1, 1])
    # Gradient descent lowers a pixel with gradient +1 and raises one with −1. Steps further outside are stopped.
    np.testing.assert_array_equal(tape.gradient(loss, images), [0, -1, 1, 1, 0])


def test_the_penalty_estimates_the_squared_norm_of_the_gradient(adversary: Adversary) -> None:
    images = tf.random.stateless_uniform((32, 16, 16, 1), [1, 2], -1, 1)
    classes = tf.one_hot(tf.range(32) % 3, 3)
    with tf.GradientTape() as tape:
        tape.watch(images)
        score, _ = adversary.discriminate(images, classes)
    norms = tf.reduce_sum(tf.square(tape.gradient(score, images)), axis=(1, 2, 3))
    estimate = tf.function(lambda seed: adversary.squared_gradient(images, classes, score, seed=seed))
    estimates = [estimate(tf.constant([0, i], tf.int64)) for i in range(0, 6400, 16)]
    exact = 2.0 * float(tf.reduce_mean(norms))  # real plus generated images
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 4 * error + 0.01 * exact

    def penalty(step: int) -> float:
        seed = tf.constant([0, 0], tf.int64)
        return float(adversary.penalty(images, classes, score, step=tf.constant(step, tf.int64), seed=seed))

    recipe = adversary.recipe
    assert recipe.penalty_every == 4
    np.testing.assert_allclose(penalty(0), 0.5 * recipe.gamma * 4 * float(estimates[0]), rtol=1e-5)
    assert [penalty(step) for step in (1, 2, 3)] == [0, 0, 0]
    np.testing.assert_allclose(penalty(recipe.steps) / penalty(0), recipe.gamma_end / recipe.gamma, rtol=1e-4)


def test_the_average_follows_the_generator_with_a_half_life_in_images(adversary: Adversary) -> None:
    recipe = adversary.recipe
    for average, weight in zip(adversary.averaged.weights, adversary.generator.weights, strict=True):
        average.assign(tf.zeros_like(average))
        weight.assign(tf.ones_like(weight))
    late = 10 * recipe.ema_images // recipe.images_per_step  # by now the half-life has reached its full length
    for step in range(late, late + recipe.ema_images // recipe.images_per_step):
        adversary.average(tf.constant(step, tf.int64))
    for average in adversary.averaged.weights:
        np.testing.assert_allclose(average, 0.5, atol=1e-3)

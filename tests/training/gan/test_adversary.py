"""The adversarial mathematics: the penalty, the projection onto pixels, and who learns from what."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from digitforge_training.gan.adversary import Adversary, to_pixel_range
from digitforge_training.gan.networks import build_discriminator, build_generator
from digitforge_training.recipes import resolve

RECIPE = resolve("forge", {"clusters": 1, "width": 8, "discriminator_blocks": 1, "penalty_noise": "0.001"})
SHAPE = (16, 16, 1)
N = 32


def _adversary() -> Adversary:
    return Adversary(
        generator=build_generator(RECIPE, image_shape=SHAPE, classes=3, seed=0),
        discriminator=build_discriminator(RECIPE, image_shape=SHAPE, classes=3, seed=1),
        recipe=RECIPE,
    )


def _batch() -> tuple[tf.Tensor, tf.Tensor]:
    images = tf.random.stateless_uniform((N, *SHAPE), [1, 2], -1, 1)
    return images, tf.one_hot(tf.range(N) % 3, 3)


def test_pixels_out_of_range_are_clipped_and_may_only_come_back() -> None:
    images = tf.constant([-2.0, -2.0, 0.5, 2.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(to_pixel_range(images) * tf.constant([1.0, -1.0, 1.0, 1.0, -1.0]))
    np.testing.assert_array_equal(to_pixel_range(images), [-1, -1, 0.5, 1, 1])
    # Descent on +1 would lower a pixel, on −1 raise it: what leads further out is stopped.
    np.testing.assert_array_equal(tape.gradient(loss, images), [0, -1, 1, 1, 0])


def test_the_penalty_estimates_the_squared_norm_of_the_gradient() -> None:
    adversary = _adversary()
    images, classes = _batch()
    with tf.GradientTape() as tape:
        tape.watch(images)
        score, _ = adversary.judge(images, classes)
    norms = tf.reduce_sum(tf.square(tape.gradient(score, images)), axis=(1, 2, 3))
    penalty = tf.function(lambda seed: adversary._penalty(images, classes, score, seed))
    estimates = [penalty(tf.constant([0, i], tf.int64)) for i in range(0, 6400, 16)]
    exact = 2.0 * float(tf.reduce_mean(norms))  # on real plus on generated images
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 4 * error + 0.01 * exact


def test_the_discriminator_learns_nothing_through_the_generator_and_the_reverse() -> None:
    adversary = _adversary()
    real, classes = _batch()
    latents = tf.random.stateless_normal((N, RECIPE.latent_size), [3, 4])
    seed = tf.constant([0, 0], tf.int64)
    with tf.GradientTape(persistent=True) as tape:
        generated = adversary.generate(classes, latents)
        d_loss, score_real, _ = adversary.discriminator_loss(
            real=real,
            generated=tf.stop_gradient(generated),
            class_weights=classes,
            gamma=tf.constant(0.5),
            seed=seed,
        )
        g_loss, _ = adversary.generator_loss(
            generated=generated, score_real=score_real, class_weights=classes, seed=seed
        )
    assert all(g is None for g in tape.gradient(d_loss, adversary.generator.trainable_variables))
    assert all(g is not None for g in tape.gradient(d_loss, adversary.discriminator.trainable_variables))
    assert all(g is not None for g in tape.gradient(g_loss, adversary.generator.trainable_variables))


def test_a_few_discriminator_steps_tell_real_from_generated() -> None:
    adversary = _adversary()
    real, classes = _batch()
    real = tf.sign(real)  # black and white, which noise is not
    generated = adversary.generate(classes, tf.random.stateless_normal((N, RECIPE.latent_size), [3, 4]))
    optimizer = tf.keras.optimizers.Adam(1e-3)
    accuracies = []
    for step in range(30):
        with tf.GradientTape() as tape:
            loss, _, watched = adversary.discriminator_loss(
                real=real,
                generated=generated,
                class_weights=classes,
                gamma=tf.constant(0.5),
                seed=tf.constant([0, 16 * step], tf.int64),
            )
        variables = adversary.discriminator.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        accuracies.append(float(watched["pair_accuracy"]))
    assert accuracies[-1] > 0.95

"""Augmentation: shifts and cutouts keep shape, range and gradients, and never mirror a digit."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from digitforge_training.augmentation import augment
from digitforge_training.recipes import resolve

SEED = tf.constant([1, 2], tf.int64)


def test_without_augmentation_images_pass_unchanged() -> None:
    images = tf.random.stateless_uniform((4, 28, 28, 1), [0, 0], -1, 1)
    np.testing.assert_array_equal(augment(images, resolve("forge"), SEED), images)


def test_a_shift_moves_the_whole_image_by_at_most_so_many_pixels() -> None:
    images = np.full((200, 28, 28, 1), -1, np.float32)
    images[:, 14, 14] = 1
    moved = augment(tf.constant(images), resolve("forge", {"augment_shift": 3}), SEED).numpy()
    places = np.argwhere(moved[..., 0] == 1)
    assert len(places) == 200
    offsets = places[:, 1:] - 14
    assert set(np.unique(offsets)) == set(range(-3, 4))


def test_a_cutout_blanks_a_square_and_stops_its_gradient() -> None:
    images = tf.ones((50, 28, 28, 1))
    with tf.GradientTape() as tape:
        tape.watch(images)
        cut = augment(images, resolve("forge", {"augment_cutout": 8}), SEED)
    gradient = tape.gradient(cut, images).numpy()
    blank = cut.numpy() == -1
    assert 0 < blank.mean() < 0.1
    np.testing.assert_array_equal(gradient == 0, blank)
    assert (blank.sum(axis=(1, 2, 3)) <= 64).all()

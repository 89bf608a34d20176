"""Augmentation: shifts, rotations and cutouts keep shape, range and gradients, and never mirror a digit."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from digitforge_training.gan.augmentation import augment
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


def test_a_turn_is_the_affine_map_that_scipy_computes() -> None:
    from scipy import ndimage

    from digitforge_training.gan.augmentation import _bilinear

    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=(28, 28)), 2).astype(np.float32)
    angle, scale = 0.3, 1.1
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    middle = np.array([13.5, 13.5])
    expected = ndimage.affine_transform(image, matrix, middle - matrix @ middle, order=1, cval=-1.0)
    places = np.einsum("ij,jhw->ihw", matrix, np.indices((28, 28)) - 13.5) + 13.5
    turned = _bilinear(tf.constant(image)[None, :, :, None], *(tf.constant(p[None], tf.float32) for p in places))
    inside = np.all((places > 0) & (places < 27), axis=0)  # leave out the edge, which the two fade differently
    np.testing.assert_allclose(turned.numpy()[0, :, :, 0][inside], expected[inside], atol=1e-4)
    assert np.all(turned.numpy()[0, :, :, 0][np.any((places < -1) | (places > 28), axis=0)] == -1)


def test_turns_keep_a_digit_in_place_and_let_gradients_through() -> None:
    images = np.full((100, 28, 28, 1), -1, np.float32)
    images[:, 6:22, 13:15] = 1  # a 1, upright
    recipe = resolve("forge", {"augment_rotation": 15, "augment_scale": 0.1})
    constant = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(constant)
        turned = augment(constant, recipe, SEED)
    assert np.abs(tape.gradient(turned, constant).numpy()).sum() > 0
    ink = (turned.numpy() + 1)[..., 0] / 2
    assert (np.abs(ink).max(axis=(1, 2)) <= 1).all()
    rows = (ink * np.arange(28)[:, None]).sum(axis=(1, 2)) / ink.sum(axis=(1, 2))
    np.testing.assert_allclose(rows, 13.5, atol=0.3)
    upper = (ink[:, :10] * np.arange(28)).sum(axis=(1, 2)) / ink[:, :10].sum(axis=(1, 2))
    assert np.ptp(upper) > 1  # in both directions
    assert np.abs(upper - 13.5).max() < 9 * np.tan(np.radians(16))

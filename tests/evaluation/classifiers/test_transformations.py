"""Classical augmentation and the cheap generators, on real digits."""

from __future__ import annotations

import numpy as np
import pytest

from digitforge_evaluation.classifiers.transformations import (
    SMOTE_NEIGHBORS,
    Images,
    Smote,
    _smooth_fields,
    add_noise,
    shift_rotate_scale,
)
from digitforge_training.data import Dataset, load


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def _bar(vertical: bool) -> Images:
    images = np.zeros((200, 28, 28, 1), np.uint8)
    images[(slice(None), slice(4, 24), 14) if vertical else (slice(None), 14, slice(4, 24))] = 255
    return images


def test_a_classifier_recognizes_augmented_digits(digits: Dataset) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    known = np.concatenate([digits.images, *(shift_rotate_scale(digits.images, rng) for _ in range(3))])
    model = KNeighborsClassifier(3).fit(known.reshape(len(known), -1), np.tile(digits.labels, 4))
    augmented = shift_rotate_scale(digits.images, rng)
    assert (model.predict(augmented.reshape(len(augmented), -1)) == digits.labels).mean() > 0.9


def test_every_image_gets_its_own_transformation(digits: Dataset) -> None:
    copies = np.repeat(digits.images[:1], 50, axis=0)
    changed = shift_rotate_scale(copies, np.random.default_rng(0))
    assert changed.dtype == np.uint8
    assert len(np.unique(changed.reshape(50, -1), axis=0)) == 50


def test_no_image_is_mirrored() -> None:
    """The corner of an L stays at the lower left. A mirror would move it to the lower right."""
    images = np.zeros((500, 28, 28, 1), np.uint8)
    images[:, 6:22, 8] = images[:, 21, 8:20] = 255
    changed = shift_rotate_scale(images, np.random.default_rng(0)).astype(float)
    left, right = changed[:, :, :14].sum(axis=(1, 2, 3)), changed[:, :, 14:].sum(axis=(1, 2, 3))
    assert (left > right).mean() > 0.95


@pytest.mark.parametrize("vertical", [True, False])
def test_a_bar_rotates_by_at_most_fifteen_degrees_plus_shear(vertical: bool) -> None:
    changed = shift_rotate_scale(_bar(vertical), np.random.default_rng(0), elastic=0)[..., 0].astype(float)
    angles = []
    for image in changed:
        y, x = np.nonzero(image > 60)
        _, vectors = np.linalg.eigh(np.cov(x, y))
        along_x, along_y = vectors[:, -1]
        across, along = (along_x, along_y) if vertical else (along_y, along_x)
        angles.append(np.degrees(np.arctan2(abs(across), abs(along))))
    assert 8 < max(angles) < 15 + np.degrees(np.arctan(0.15)) + 2


def test_pixels_from_outside_the_image_are_black() -> None:
    white = np.full((100, 28, 28, 1), 255, np.uint8)
    changed = shift_rotate_scale(white, np.random.default_rng(0))
    assert (changed[:, 0, 0] == 0).any()
    assert (changed[:, 14, 14] == 255).all()


def test_larger_color_images_keep_their_shape() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    assert shift_rotate_scale(images, np.random.default_rng(0)).shape == images.shape


def test_noise_has_the_documented_standard_deviation(digits: Dataset) -> None:
    gray = np.full((50, 28, 28, 1), 128, np.uint8)
    noisy = add_noise(gray, np.random.default_rng(0)).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=0.5)
    assert noisy.std() == pytest.approx(25, rel=0.02)


def test_smote_mixes_an_image_with_a_nearest_neighbor_of_its_class(digits: Dataset) -> None:
    images, labels = digits.images[:300], digits.labels[:300]
    indices = np.arange(300)
    mixed = Smote(images, labels).mix(indices, np.random.default_rng(0)).reshape(300, -1).astype(float)
    flat = images.reshape(300, -1).astype(float)
    for i in range(0, 300, 7):
        members = np.flatnonzero((labels == labels[i]) & (indices != i))
        nearest = members[np.argsort(np.linalg.norm(flat[members] - flat[i], axis=1))[:SMOTE_NEIGHBORS]]
        step = mixed[i] - flat[i]
        distances = []
        for partner in nearest:
            line = flat[partner] - flat[i]
            share = np.clip(step @ line / (line @ line), 0, 1)
            distances.append(np.abs(step - share * line).max())
        assert min(distances) <= 1.0  # rounding


def test_smote_repeats_an_image_that_is_alone_in_its_class(digits: Dataset) -> None:
    images, labels = digits.images[:3], np.array([0, 0, 1])
    mixed = Smote(images, labels).mix(np.array([2, 2]), np.random.default_rng(0))
    assert (mixed == images[2]).all()


def test_only_elastic_distortion_bends_a_straight_bar() -> None:
    def bend(elastic: float) -> float:
        """Mean distance of the pixels of a bar from a fitted straight line, in pixels."""
        changed = shift_rotate_scale(_bar(vertical=True), np.random.default_rng(0), elastic=elastic)[..., 0]
        left = []
        for image in changed.astype(float):
            rows = np.flatnonzero(image.sum(axis=1) > 60)
            middle = (image[rows] * np.arange(28)).sum(axis=1) / image[rows].sum(axis=1)
            left.append(np.abs(middle - np.polyval(np.polyfit(rows, middle, 1), rows)).mean())
        return float(np.mean(left))

    assert bend(0.0) < 0.2
    assert 0.3 < bend(1.2) < bend(2.4)


@pytest.mark.parametrize("side", [16, 28, 33])
def test_the_elastic_field_is_smooth_and_has_variance_one(side: int) -> None:
    field = _smooth_fields(2000, side, side, np.random.default_rng(0))
    assert field.shape == (2000, side, side)
    assert np.abs(field.std(axis=0) - 1).max() < 0.1
    steps = np.diff(field, axis=2)
    assert np.sqrt((steps**2).mean()) < 0.3 * 28 / side

"""Tests of the draws: each arm returns the training images of its design."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import Images
from digitforge_evaluation.experiment.arms import ARMS
from digitforge_evaluation.experiment.draws import Rows, class_gaps, draw_for
from digitforge_training.data import Dataset, load

GENERATED_MARK = 77


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load("digits")
    return data.subset(np.concatenate([np.flatnonzero(data.labels == label)[:6] for label in range(10)]))


def _generated(n: int = 40) -> Rows:
    return np.full((n, 28, 28, 1), GENERATED_MARK, np.uint8), np.arange(n, dtype=np.int64) % 10


def _drawn(name: str, digits: Dataset, rows: int = 600) -> Rows:
    draw = draw_for(name, images=digits.images, labels=digits.labels, generated=_generated())
    return draw(rows, np.random.default_rng(0))


def _share_found(images: Images, among: Images) -> float:
    known = {image.tobytes() for image in among}
    return float(np.mean([image.tobytes() in known for image in images]))


@pytest.mark.parametrize("name", ARMS)
@given(rows=st.integers(1, 130), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_every_arm_draws_the_requested_number_of_rows(name: str, digits: Dataset, rows: int, seed: int) -> None:
    draw = draw_for(name, images=digits.images, labels=digits.labels, generated=_generated())
    images, labels = draw(rows, np.random.default_rng(seed))
    again, _ = draw(rows, np.random.default_rng(seed))
    assert images.shape == (rows, 28, 28, 1)
    assert images.dtype == np.uint8
    assert labels.shape == (rows,)
    assert labels.dtype == np.int64
    assert (images == again).all()


def test_the_real_arm_draws_every_image_equally_often(digits: Dataset) -> None:
    images, _ = _drawn("real", digits, rows=600)
    _, counts = np.unique(images.reshape(600, -1), axis=0, return_counts=True)
    assert set(counts) == {10}


def test_the_oversampled_arm_draws_every_class_equally_often(digits: Dataset) -> None:
    kept = np.flatnonzero((digits.labels != 3) | (np.arange(60) == np.flatnonzero(digits.labels == 3)[0]))
    _, labels = _drawn("oversampled", digits.subset(kept))
    assert set(np.bincount(labels)) == {60}
    _, labels = _drawn("real", digits.subset(kept))
    assert np.bincount(labels)[3] < 15


@pytest.mark.parametrize(
    ("name", "real", "generated"),
    [("real", 1.0, 0.0), ("oversampled", 1.0, 0.0), ("noise", 0.5, 0.0), ("gan", 0.5, 0.5), ("synthetic", 0.0, 1.0)],
)
def test_each_arm_draws_its_share_of_real_and_generated_images(
    name: str, real: float, generated: float, digits: Dataset
) -> None:
    images, _ = _drawn(name, digits)
    assert _share_found(images, digits.images) == pytest.approx(real, abs=0.01)
    assert _share_found(images, _generated()[0]) == pytest.approx(generated)


def test_labels_stay_with_their_images(digits: Dataset) -> None:
    of_image = {image.tobytes(): label for image, label in zip(digits.images, digits.labels, strict=True)}
    images, labels = _drawn("gan", digits)
    real = [(of_image[i.tobytes()], label) for i, label in zip(images, labels, strict=True) if i.tobytes() in of_image]
    assert len(real) == 300
    assert all(expected == label for expected, label in real)


def test_classical_augmentation_changes_real_and_generated_images(digits: Dataset) -> None:
    images, _ = _drawn("classical+gan", digits)
    assert _share_found(images, np.concatenate([digits.images, _generated()[0]])) < 0.05
    assert np.mean(images[:, 14, 14, 0] == GENERATED_MARK) == pytest.approx(0.5, abs=0.1)


def test_an_arm_without_its_generated_digits_is_refused(digits: Dataset) -> None:
    with pytest.raises(InvalidInputError, match="needs generated images"):
        draw_for("gan", images=digits.images, labels=digits.labels)


def test_generated_digits_balance_rare_classes() -> None:
    labels = np.repeat(np.arange(4), [100, 100, 100, 1])
    gaps = np.array(class_gaps(labels, classes=4, generated_share=0.5))
    together = np.bincount(labels) / len(labels) + gaps / gaps.sum()
    assert together == pytest.approx(np.full(4, 0.5), rel=1e-3)


def test_generated_classes_are_equal_if_real_classes_are_equal_or_unused() -> None:
    assert class_gaps(np.arange(20) % 5, classes=5, generated_share=0.3) == (1,) * 5
    assert class_gaps(np.zeros(9, np.int64), classes=3, generated_share=1.0) == (1,) * 3


def test_a_class_with_too_many_real_images_gets_no_generated_digits() -> None:
    assert class_gaps(np.array([0] * 90 + [1] * 10), classes=2, generated_share=0.1)[0] == 0


def test_fresh_digits_are_drawn_once_over_all_calls(digits: Dataset) -> None:
    images = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 1), np.uint8)
    labels = np.zeros(100, np.int64)
    draw = draw_for("synthetic", images=images, labels=labels, generated=(images, labels), fresh=True)
    rng = np.random.default_rng(0)
    handed = np.concatenate([draw(25, rng)[0][:, 0, 0, 0] for _ in range(4)])
    assert sorted(handed) == list(range(100))
    assert (np.diff(handed.astype(int)) != 1).any()


def test_classical_and_oversampled_draws_rare_classes_as_often_as_others(digits: Dataset) -> None:
    kept = np.concatenate([np.flatnonzero(digits.labels != 3), np.flatnonzero(digits.labels == 3)[:1]])
    rare = digits.subset(kept)
    draw = draw_for("classical+oversampled", images=rare.images, labels=rare.labels)
    images, labels = draw(1000, np.random.default_rng(0))
    assert (np.bincount(labels) == 100).all()
    assert len(np.unique(images[labels == 3].reshape(100, -1), axis=0)) == 100


def test_pretraining_draws_all_generated_digits_before_all_real_images(digits: Dataset) -> None:
    real = digits.subset(digits.labels < 9)
    generated = (_generated()[0], np.full(40, 9, np.int64))
    draw = draw_for(
        "classical+pretrained",
        images=real.images,
        labels=real.labels,
        generated=generated,
        generated_share=0.25,
        rows=400,
    )
    rng = np.random.default_rng(0)
    drawn = np.concatenate([draw(rows, rng)[1] for rows in (70, 70, 260)])
    np.testing.assert_array_equal(drawn == 9, np.arange(400) < 100)

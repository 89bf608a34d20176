"""Tests of subsets of real images, with cut classes and wrong labels, and of the held-out images."""

from __future__ import annotations

import numpy as np
import pytest

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.subsets import RealImages, hold_out, minority, subset_indices, subset_of
from digitforge_training.data import load


def test_a_subset_has_n_different_images_of_each_class(real: RealImages) -> None:
    indices = subset_indices(real.pool.labels, n_per_class=7, subset=0, seed=0)
    assert len(set(indices.tolist())) == 70
    assert set(np.bincount(real.pool.labels[indices])) == {7}


def test_subsets_differ_but_each_can_be_drawn_again(real: RealImages) -> None:
    def chosen(*, subset: int = 0, seed: int = 0) -> list[int]:
        return subset_indices(real.pool.labels, n_per_class=5, subset=subset, seed=seed).tolist()

    assert chosen() == chosen()
    assert chosen() != chosen(subset=1)
    assert chosen() != chosen(seed=1)


def test_validation_holds_out_training_images_and_leaves_the_test_set_alone() -> None:
    training, test = load("digits"), load("digits", split="test")
    split = hold_out(training, test, which="validation")
    assert len(split.held_out) == round(len(training) / 12)
    assert len(split.pool) + len(split.held_out) == len(training)
    kept = {image.tobytes() for image in split.held_out.images}
    assert not kept & {image.tobytes() for image in test.images}


def test_cutting_removes_images_of_the_cut_classes_alone_and_keeps_at_least_one(real: RealImages) -> None:
    whole = subset_of(real.pool, n_per_class=20, subset=3, seed=0)
    cut = subset_of(real.pool, n_per_class=20, subset=3, seed=0, cut={"8": 0.25, "1": 0.001})
    assert np.bincount(cut.labels).tolist() == [20, 1, 20, 20, 20, 20, 20, 20, 5, 20]
    assert {image.tobytes() for image in cut.images} < {image.tobytes() for image in whole.images}


def test_a_class_to_be_cut_must_exist(real: RealImages) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot cut class 'eight'.*expected one or more of 0, 1"):
        minority(real.pool, {"eight": 0.1})


def test_noisy_labels_change_a_share_of_the_labels_and_no_image(real: RealImages) -> None:
    clean = subset_of(real.pool, n_per_class=20, subset=1, seed=0)
    noisy = subset_of(real.pool, n_per_class=20, subset=1, seed=0, noisy_labels=0.3)
    again = subset_of(real.pool, n_per_class=20, subset=1, seed=0, noisy_labels=0.3)
    assert (clean.images == noisy.images).all()
    assert np.count_nonzero(clean.labels != noisy.labels) == 60
    assert (noisy.labels == again.labels).all()
    assert noisy.sha256 != clean.sha256  # so the cache of strict generators keeps them apart


def test_the_rest_is_every_training_image_outside_of_the_subset() -> None:
    training = load("digits")
    real = hold_out(training, load("digits", split="test"), which="rest")
    subset = subset_of(real.pool, n_per_class=10, subset=3, seed=0)
    held_out = real.held_out_from(subset)
    hashes = [set(image_hashes(data.images)) for data in (subset, held_out, training)]
    assert not hashes[0] & hashes[1]
    assert hashes[0] | hashes[1] == hashes[2]
    assert len(held_out) == len(training) - len(subset)

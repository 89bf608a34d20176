"""Accuracy both ways tells what a distance does not: wrong labels from lack of variety."""

from __future__ import annotations

import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.images.sources import Drawn
from digitforge_evaluation.quality.train_on_generated import both_ways
from digitforge_training.data import load


@pytest.fixture(scope="module")
def real():
    return load("digits"), load("digits", split="test")


@pytest.fixture(scope="module")
def proportions(real):
    return tuple(int(count) for count in np.bincount(real[1].labels))


def drawn(real, rows=500):
    train, _ = real
    chosen = np.random.default_rng(1).permutation(len(train))[:rows]
    return Drawn(images=train.images[chosen], labels=train.labels[chosen])


def test_real_digits_in_the_place_of_generated_ones_reach_the_floor_both_ways(real, proportions):
    train, test = real

    found, floors = both_ways(train=train, test=test, generated=drawn(real), proportions=proportions, steps=50)

    assert set(found) == set(floors) == {"train_on_generated", "train_on_real"}
    for key, figure in found.items():
        assert figure.value == pytest.approx(floors[key].mean, abs=0.08)
        assert figure.value > 0.75
        assert 0 <= figure.interval[0] <= figure.value <= figure.interval[1] <= 1
    assert (floors["train_on_real"].n, floors["train_on_real"].repeats) == (100, 5)


def test_digits_without_variety_fail_one_way_and_wrong_labels_both(real, proportions):
    train, test = real
    first = np.array([np.flatnonzero(train.labels == label)[0] for label in range(10)]).repeat(50)
    stuck = Drawn(images=train.images[first], labels=train.labels[first])
    mislabeled = drawn(real)
    mislabeled = Drawn(images=mislabeled.images, labels=(mislabeled.labels + 1) % 10)

    of_stuck, _ = both_ways(train=train, test=test, generated=stuck, proportions=proportions, steps=50)
    of_wrong, _ = both_ways(train=train, test=test, generated=mislabeled, proportions=proportions, steps=30)

    assert of_stuck["train_on_real"].value > 0.75 > of_stuck["train_on_generated"].value
    assert max(figure.value for figure in of_wrong.values()) < 0.2


def test_what_cannot_be_trained_on_is_refused(real, proportions):
    train, test = real
    unlabeled = Drawn(images=drawn(real).images, labels=None)
    with pytest.raises(InvalidInputError, match="with labels"):
        both_ways(train=train, test=test, generated=unlabeled, proportions=proportions)
    many = drawn(real)
    many = Drawn(images=many.images.repeat(50, axis=0), labels=many.labels.repeat(50))
    with pytest.raises(InvalidInputError, match="too few images for subsets of 5000"):
        both_ways(train=train, test=test, generated=many, proportions=proportions)

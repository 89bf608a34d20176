"""Tests of budgets, and of which generators an experiment refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.experiment.generators import Budget, Exported, TrainedInside, budget_of
from digitforge_evaluation.experiment.subsets import RealImages
from digitforge_evaluation.images.sources import ImageSet, Source
from digitforge_training.data import Dataset, load


@pytest.fixture(scope="module")
def generator(exported_model: Path) -> Source:
    """A generator trained on the training split of the digits."""
    return Exported(exported_model).generator_for(load("digits"), seed=0)


def _inverted(data: Dataset) -> Dataset:
    return Dataset(
        images=255 - data.images, labels=data.labels, class_names=data.class_names, name="inverted", split=data.split
    )


def test_a_generator_that_saw_images_of_the_pool_is_an_oracle(generator: Source) -> None:
    real = RealImages(pool=load("digits"), held_out=load("digits", split="test"))
    assert budget_of(generator, real) is Budget.ORACLE


def test_a_single_image_of_the_pool_makes_an_oracle(generator: Source) -> None:
    digits, inverted = load("digits"), _inverted(load("digits"))
    pool = Dataset(
        images=np.concatenate([inverted.images, digits.images[:1]]),
        labels=np.concatenate([inverted.labels, digits.labels[:1]]),
        class_names=digits.class_names,
        name="mixed",
        split="train",
    )
    assert budget_of(generator, RealImages(pool=pool, held_out=load("digits", split="test"))) is Budget.ORACLE


def test_a_generator_that_saw_none_of_the_pool_is_transfer(generator: Source) -> None:
    real = RealImages(pool=_inverted(load("digits")), held_out=_inverted(load("digits", split="test")))
    assert budget_of(generator, real) is Budget.TRANSFER


def test_a_generator_that_saw_a_held_out_image_is_refused(generator: Source) -> None:
    training = load("digits")
    real = RealImages(pool=training.subset(np.arange(100)), held_out=training.subset(np.arange(100, 107)))
    with pytest.raises(InvalidInputError, match="7 of the 7 held-out images"):
        budget_of(generator, real)


def test_a_generator_of_other_classes_is_refused(generator: Source) -> None:
    digits = load("digits")
    letters = Dataset(
        images=digits.images, labels=digits.labels, class_names=tuple("abcdefghij"), name="letters", split="train"
    )
    with pytest.raises(InvalidInputError, match="use a generator trained on this kind of images"):
        budget_of(generator, RealImages(pool=letters, held_out=letters))


def test_images_without_a_card_are_refused() -> None:
    digits = load("digits")
    unknown = ImageSet(digits.images, digits.labels, "found.npz")
    with pytest.raises(InvalidInputError, match="no card"):
        budget_of(unknown, RealImages(pool=digits, held_out=load("digits", split="test")))


def test_a_folder_without_a_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no SavedModel"):
        Exported(tmp_path)


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="forgery"):
        TrainedInside(recipe="forgery", cache=tmp_path)

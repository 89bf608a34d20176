"""The judge that `digitforge train --keep best` loads by its entry point."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.quality.judges import Images, Labels
from digitforge_training.data import load

Factory = Callable[[Images, Labels], Callable[[Images, Labels], float]]


@pytest.fixture(scope="module")
def factory() -> Factory:
    (entry,) = entry_points(group="digitforge.judges", name="digitnet-64")
    loaded: Factory = entry.load()
    return loaded


def test_the_judge_prefers_real_digits_to_noisy_ones_and_noisy_ones_to_noise(factory: Factory) -> None:
    train, test = load("digits"), load("digits", split="test")
    judge = factory(train.images, train.labels)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, test.images.shape, dtype=np.uint8)
    noisy = np.where(rng.random(test.images.shape) < 0.1, noise, test.images)

    distances = [judge(images, test.labels) for images in (test.images, noisy, noise)]

    assert distances == sorted(distances)
    assert distances[0] < distances[1] / 2


def test_the_judge_refuses_too_few_images_wrong_shapes_and_missing_labels(factory: Factory) -> None:
    train = load("digits")
    with pytest.raises(InvalidInputError, match="needs more than 64"):
        factory(train.images[:64], train.labels[:64])
    with pytest.raises(InvalidInputError, match="one label for each"):
        factory(train.images, train.labels[:-1])
    judge = factory(train.images, train.labels)
    with pytest.raises(InvalidInputError, match="one label for each"):
        judge(train.images, train.labels[:-1])
    with pytest.raises(InvalidInputError, match="28, 28, 1"):
        judge(train.images[:, :27], train.labels)


def test_the_kernel_judge_ranks_digits_from_a_handful_of_held_out_images() -> None:
    (entry,) = entry_points(group="digitforge.judges", name="kernel")
    train, test = load("digits"), load("digits", split="test")
    held = np.concatenate([np.flatnonzero(train.labels == label)[:2] for label in range(10)])
    judge = entry.load()(train.images[held], train.labels[held])
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, test.images.shape, dtype=np.uint8)
    noisy = np.where(rng.random(test.images.shape) < 0.2, noise, test.images)
    first = np.array([np.flatnonzero(test.labels == label)[0] for label in range(10)])
    collapsed = test.images[first[test.labels]]
    of_other_classes = test.images[np.argsort(-test.labels, kind="stable")]

    real = judge(test.images, test.labels)

    assert real < judge(noisy, test.labels) < judge(noise, test.labels)
    assert real < judge(collapsed, test.labels)
    assert real < judge(of_other_classes, np.sort(test.labels))


def test_the_kernel_judge_refuses_too_few_images() -> None:
    (entry,) = entry_points(group="digitforge.judges", name="kernel")
    train = load("digits")
    with pytest.raises(InvalidInputError, match="at least two"):
        entry.load()(train.images[:1], train.labels[:1])
    judge = entry.load()(train.images[:20], train.labels[:20])
    with pytest.raises(InvalidInputError, match="one label for each"):
        judge(train.images[:20], train.labels[:10])
    with pytest.raises(InvalidInputError, match="got 0 generated images of class 1"):
        judge(train.images[:20], np.zeros(20, np.int64))

"""Classification accuracy tells lack of variety from wrong labels; a distance does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import Classifier, classifier
from digitforge_evaluation.images.sources import Drawn
from digitforge_evaluation.quality import classification_accuracy
from digitforge_evaluation.quality.classification_accuracy import Accuracies, classification_accuracies
from digitforge_evaluation.quality.comparison import RealData

ROWS = 500


@pytest.fixture(autouse=True)
def _quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use support vector machines. The convolutional network has its own tests and takes seconds."""

    def quick(name: str, **settings: Any) -> Classifier:
        assert name == "cnn"
        return classifier("svm", **settings)

    monkeypatch.setattr(classification_accuracy, "classifier", quick)


def accuracies(real: RealData, generated: Drawn, steps: int) -> Accuracies:
    held_out = Drawn(images=real.test.images, labels=real.test.labels)
    proportions = tuple(np.bincount(real.test.labels).tolist())
    return classification_accuracies(
        train=real.train, test=held_out, generated=generated, proportions=proportions, steps=steps
    )


@pytest.fixture
def drawn(real: RealData) -> Drawn:
    """Real digits as if they were generated."""
    chosen = np.random.default_rng(1).permutation(len(real.train))[:ROWS]
    return Drawn(images=real.train.images[chosen], labels=real.train.labels[chosen])


def test_real_digits_in_place_of_generated_ones_reach_the_floor_both_ways(real: RealData, drawn: Drawn) -> None:
    found = accuracies(real, drawn, steps=50)

    floor = np.mean(found.real_to_real)
    for values in (found.generated_to_real, found.real_to_generated):
        assert len(values) == 5
        assert np.mean(values) == pytest.approx(floor, abs=0.08)
        assert np.mean(values) > 0.75
    assert found.n == 100


def test_digits_without_variety_fail_one_way_and_wrong_labels_fail_both_ways(real: RealData, drawn: Drawn) -> None:
    first = np.array([np.flatnonzero(real.train.labels == label)[0] for label in range(10)]).repeat(50)
    stuck = Drawn(images=real.train.images[first], labels=real.train.labels[first])
    assert drawn.labels is not None
    mislabeled = Drawn(images=drawn.images, labels=(drawn.labels + 1) % 10)

    of_stuck, of_wrong = accuracies(real, stuck, steps=50), accuracies(real, mislabeled, steps=30)

    assert np.mean(of_stuck.real_to_generated) > 0.75 > np.mean(of_stuck.generated_to_real)
    assert max(np.mean(of_wrong.generated_to_real), np.mean(of_wrong.real_to_generated)) < 0.2


def test_digits_without_labels_and_too_many_digits_are_refused(real: RealData, drawn: Drawn) -> None:
    with pytest.raises(InvalidInputError, match="with labels"):
        accuracies(real, Drawn(images=drawn.images, labels=None), steps=1)
    assert drawn.labels is not None
    many = Drawn(images=drawn.images.repeat(50, axis=0), labels=drawn.labels.repeat(50))
    with pytest.raises(InvalidInputError, match="too few images for a subset of 5000"):
        accuracies(real, many, steps=1)

"""Fixtures: real digits to measure against."""

from __future__ import annotations

import numpy as np
import pytest

from digitforge_evaluation.quality.comparison import RealData
from digitforge_training.data import Dataset


@pytest.fixture(scope="session")
def all_digits() -> RealData:
    return RealData.load("digits")


@pytest.fixture(scope="session")
def real(all_digits: RealData) -> RealData:
    """A few digits of each class, because most of the time of a measurement depends on the number of real images."""

    def first(dataset: Dataset, each: int) -> Dataset:
        return dataset.subset(
            np.sort([np.flatnonzero(dataset.labels == label)[:each] for label in range(10)], axis=None)
        )

    return RealData(train=first(all_digits.train, 60), test=first(all_digits.test, 20))

"""Fixtures of the tests of training."""

from __future__ import annotations

import pytest

from digitforge_training.data import Dataset, load


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The training images of the 1 797 real digits that scikit-learn ships."""
    return load("digits")

"""Real digits that quality is measured against."""

from __future__ import annotations

import pytest

from digitforge_evaluation.quality.comparison import RealData


@pytest.fixture(scope="session")
def real() -> RealData:
    return RealData.load("digits")

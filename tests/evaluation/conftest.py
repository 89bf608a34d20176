"""Fixtures for the tests of several parts of the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_training.data import load


@pytest.fixture(scope="session")
def few_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive with few real digits. The time of a measurement grows with their number."""
    train, test = load("digits").subset(np.arange(600)), load("digits", split="test").subset(np.arange(200))
    path = tmp_path_factory.mktemp("real") / "few.npz"
    np.savez(path, x=train.images, y=train.labels, x_test=test.images, y_test=test.labels)
    return path


@contextmanager
def _blank_plots() -> Iterator[None]:
    from matplotlib.figure import Figure

    def save(_figure: Figure, file: Any, **_: Any) -> None:
        file.write('<svg viewBox="0 0 8 8"></svg>')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture(scope="session")
def blank_plots() -> Callable[[], AbstractContextManager[None]]:
    """Context manager in which plots are saved as blank images. Drawing the plots of a report takes ten seconds."""
    return _blank_plots


@pytest.fixture
def with_blank_plots() -> Iterator[None]:
    """Save all plots of a test as blank images, see `blank_plots`."""
    with _blank_plots():
        yield

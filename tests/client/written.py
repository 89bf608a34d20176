"""Batches to write, and a function that writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from digitforge_client import Batch
from digitforge_client.datasets.writers import WRITERS


def batch(n: int, first: int = 0) -> Batch:
    rows = np.arange(first, first + n)
    images = (rows[:, None, None] * 7 + np.arange(28 * 28).reshape(28, 28)).astype(np.uint8)
    return Batch(images=images, labels=rows % 10, seeds=rows + 2**40, generator_id="0123456789abcdef", seed=2**8)


def write(form: str, path: Path, *batches: Batch) -> None:
    with WRITERS[form](path, sum(len(one) for one in batches)) as add:
        for one in batches:
            add(one)

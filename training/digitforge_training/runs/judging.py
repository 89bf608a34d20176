"""Judges: they score checkpoints by comparing generated images with held-out real ones.

A factory makes a judge from real images that the generator does not see: ``factory(images, labels) -> judge``. The
judge scores generated images: ``judge(images, labels) -> float``, lower is better. Other packages register factories
in the entry-point group ``digitforge.judges``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset

ENTRY_POINT_GROUP: Final = "digitforge.judges"
JUDGED_SEED: Final = 1  #: User seed of the latents of the scored images.

Judge = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], float]
JudgeFactory = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], Judge]


def find_judge(name: str) -> JudgeFactory:
    """Find the judge factory that is installed under *name*.

    Raises:
        InvalidInputError: there is no such factory.
    """
    found = {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise InvalidInputError(
            f"there is no judge {name!r}; choose one of the installed judges: {', '.join(sorted(found)) or '(none)'}"
        )
    factory: JudgeFactory = found[name].load()
    return factory


def hold_out(dataset: Dataset, images: int, *, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set at random into training images and *images* held-out images.

    Raises:
        InvalidInputError: fewer than two training images would remain.
    """
    if images == 0:
        return dataset, dataset.subset([])
    if not 0 < images <= len(dataset) - 2:
        raise InvalidInputError(
            f"cannot hold out {images} of {len(dataset)} images; expected 0 to {len(dataset) - 2}; change --held-out"
        )
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.subset(np.sort(order[images:])), dataset.subset(np.sort(order[:images]))

"""Judges: which checkpoint of a training is the best, in the eyes of somebody who has seen held-out images.

Training knows no judge itself. A judge is made by a factory, `factory(images, labels) -> judge`, from real images
that the generator does not see; `judge(images, labels) -> float` then scores generated ones, lower is better.
Factories are found by name in the entry-point group ``digitforge.judges``.
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
JUDGED_SEED: Final = 1  #: A user's seed, as in an address: of the latents whose images are judged.

Judge = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], float]
JudgeFactory = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], Judge]


def find_judge(name: str) -> JudgeFactory:
    """The factory that is installed under *name*.

    Raises:
        InvalidInputError: there is none.
    """
    found = {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise InvalidInputError(f"there is no judge {name!r}; installed judges: {', '.join(sorted(found)) or 'none'}")
    factory: JudgeFactory = found[name].load()
    return factory


def hold_out(dataset: Dataset, images: int, *, seed: int) -> tuple[Dataset, Dataset]:
    """Split a data set at random: what to train on, and *images* images to judge by.

    Raises:
        InvalidInputError: fewer than two images would be left to train on.
    """
    if images == 0:
        return dataset, dataset.subset([])
    if not 0 < images <= len(dataset) - 2:
        raise InvalidInputError(
            f"{images} of {len(dataset)} images are to be held out; expected 0 to {len(dataset) - 2}: set --held-out"
        )
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.subset(np.sort(order[images:])), dataset.subset(np.sort(order[:images]))

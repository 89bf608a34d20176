"""What is looked at in a training: sheets, walks between digits, and the numbers that diagnosis.py reads.

All are of the averaged generator and on latents that never change, so that two of one training can be compared.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import row_seeds
from digitforge_client.latent_space import blend, walk
from digitforge_training.data import Dataset
from digitforge_training.gan.latents import latents_of
from digitforge_training.gan.pixels import generated_pixels
from digitforge_training.gan.trainer import Trainer
from digitforge_training.runs import pictures
from digitforge_training.runs.diagnosis import image_statistics

#: Users' seeds of the latents, as in an address; see also `judging.JUDGED_SEED`.
SHEET_SEED: Final = 0
_WALKS_SEED = 2
_WATCHED_SEED = 3

_SHEET_ROWS = 8
_COLUMNS = 10  # of a sheet, where there are no classes
_WALKS = 10  # at most
_WALK_STEPS = 12  # images of a walk, both ends included
_WATCHED = 400  # generated images, and as many real ones


def draw_latents(trainer: Trainer, seed: int, n: int) -> npt.NDArray[np.float32]:
    """Latents (n, d) of the first rows of a user's seed."""
    latents: npt.NDArray[np.float32] = latents_of(
        row_seeds(seed, n), trainer.recipe.latent_size, trainer.recipe.latent_distribution
    ).numpy()
    return latents


def draw_sheet(trainer: Trainer, classes: int, path: Path) -> None:
    """Save eight rows of digits, a column for each class; or ten columns, if there are no classes.

    Raises:
        DataError: the file cannot be written.
    """
    columns = classes or _COLUMNS
    n = _SHEET_ROWS * columns
    labels = np.arange(n) % columns if classes else np.zeros(n, np.int64)
    images = trainer.sample(labels, draw_latents(trainer, SHEET_SEED, n))
    pictures.save_png(pictures.sheet(images, columns=columns), path)


def draw_walks(trainer: Trainer, classes: int, path: Path) -> None:
    """Save rows of digits, each a walk from one latent to another, and from one class to the next, if there are any.

    Raises:
        DataError: the file cannot be written.
    """
    rows = min(classes or _WALKS, _WALKS)
    ends = draw_latents(trainer, _WALKS_SEED, 2 * rows)
    distribution = trainer.recipe.latent_distribution
    parts = []
    for row in range(rows):
        latents = walk(ends[2 * row], ends[2 * row + 1], steps=_WALK_STEPS, distribution=distribution)
        weights = blend(row, (row + 1) % classes, steps=_WALK_STEPS, classes=classes) if classes else None
        parts.append(generated_pixels(trainer.averaged, [latents] if weights is None else [weights, latents]))
    pictures.save_png(pictures.sheet(np.concatenate(parts), columns=_WALK_STEPS), path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """Real images to compare generated ones with, some hundred, and their classes."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    @classmethod
    def of(cls, dataset: Dataset, *, conditional: bool, seed: int) -> Watch:
        """Images of *dataset*, drawn at random; all of one class, if the generator knows none."""
        chosen = np.random.default_rng(seed).permutation(len(dataset))[:_WATCHED]
        labels = dataset.labels[chosen]
        return cls(images=dataset.images[chosen], labels=labels if conditional else np.zeros_like(labels))

    def statistics(self, trainer: Trainer) -> dict[str, float]:
        """See `diagnosis.image_statistics`."""
        generated = trainer.sample(self.labels, draw_latents(trainer, _WATCHED_SEED, len(self.labels)))
        return image_statistics(real=self.images, generated=generated, labels=self.labels)

"""Views of a training: sample sheets, walks between images, and the statistics that ``diagnosis.py`` reads.

All use the averaged generator and fixed latents, so the views of a training at different times are comparable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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

#: User seeds of the latents. See also `judging.JUDGED_SEED`.
SHEET_SEED: Final = 0
_WALKS_SEED = 2
_WATCHED_SEED = 3

_SHEET_ROWS = 8
_COLUMNS = 10  # columns of a sheet without classes
_WALKS = 10  # largest number of walks
_WALK_STEPS = 12  # images of a walk, both ends included
_WATCHED = 400  # generated images to compare with as many real ones


def draw_latents(trainer: Trainer, seed: int, n: int) -> npt.NDArray[np.float32]:
    """Latents (n, d) of the first *n* rows of a user seed."""
    latents: npt.NDArray[np.float32] = latents_of(
        row_seeds(seed, n), trainer.recipe.latent_size, trainer.recipe.latent_distribution
    ).numpy()
    return latents


def draw_sheet(trainer: Trainer, class_names: Sequence[str], path: Path) -> None:
    """Save a sheet of eight rows, with one named column per class, or ten columns without classes.

    Raises:
        DataError: the file cannot be written.
    """
    columns = len(class_names) or _COLUMNS
    n = _SHEET_ROWS * columns
    labels = np.arange(n) % columns if class_names else np.zeros(n, np.int64)
    images = trainer.sample(labels, draw_latents(trainer, SHEET_SEED, n))
    pictures.save_png(pictures.sheet(images, columns=columns, column_names=pictures.writable(class_names)), path)


def draw_walks(trainer: Trainer, class_names: Sequence[str], path: Path) -> None:
    """Save rows of images. Each row goes from one latent to another, and with classes also from one class to the next.

    A row has the names of its two classes.

    Raises:
        DataError: the file cannot be written.
    """
    classes = len(class_names)
    rows = min(classes or _WALKS, _WALKS)
    ends = draw_latents(trainer, _WALKS_SEED, 2 * rows)
    distribution = trainer.recipe.latent_distribution
    parts = []
    for row in range(rows):
        latents = walk(ends[2 * row], ends[2 * row + 1], steps=_WALK_STEPS, distribution=distribution)
        weights = blend(row, (row + 1) % classes, steps=_WALK_STEPS, classes=classes) if classes else None
        parts.append(generated_pixels(trainer.averaged, [latents] if weights is None else [weights, latents]))
    shown = pictures.writable(class_names)
    names = [f"{shown[row]} to {shown[(row + 1) % classes]}" for row in range(rows)] if classes else ()
    pictures.save_png(pictures.sheet(np.concatenate(parts), columns=_WALK_STEPS, row_names=names), path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """A few hundred real images, to compare generated ones with."""

    images: npt.NDArray[np.uint8]  #: (n, H, W, C).
    labels: npt.NDArray[np.int64]  #: (n,), all 0 for a generator without classes.

    @classmethod
    def of(cls, dataset: Dataset, *, conditional: bool, seed: int) -> Watch:
        """Draw images of *dataset* at random."""
        chosen = np.random.default_rng(seed).permutation(len(dataset))[:_WATCHED]
        labels = dataset.labels[chosen]
        return cls(images=dataset.images[chosen], labels=labels if conditional else np.zeros_like(labels))

    def statistics(self, trainer: Trainer) -> dict[str, float]:
        """Compare with the averaged generator's images of the same classes. See `diagnosis.image_statistics`."""
        generated = trainer.sample(self.labels, draw_latents(trainer, _WATCHED_SEED, len(self.labels)))
        return image_statistics(real=self.images, generated=generated, labels=self.labels)

"""Where an experiment's generated digits come from, and what their generator has seen.

A generator's *budget* is named from the generator itself, never from what the user says of it:

* ``strict``: trained inside the experiment on exactly the real images of a subset, and nothing else;
* ``transfer``: has seen none of the real images that subsets are drawn from;
* ``semi``: has seen images of theirs that the classifier has not, but no label: a generator without classes, whose
  digits are labeled inside the experiment by a classifier that saw the subset alone;
* ``oracle``: has seen images of theirs that the classifier has not, with their labels.

A generator that has seen a held-out image is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from digitforge_client import DigitClient
from digitforge_client.contract import image_hashes
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.experiment.subsets import RealImages
from digitforge_evaluation.images.sources import SavedGenerator, ServedGenerator, Source, newest_version
from digitforge_training.data import Dataset
from digitforge_training.recipes import resolve

STRICT_RECIPE: Final = "forge-small"


class Budget(StrEnum):
    """What a generator has seen, in one word."""

    STRICT = "strict"
    TRANSFER = "transfer"
    SEMI = "semi"
    ORACLE = "oracle"


class GeneratorSource(Protocol):
    """Gives each subset its generator. Pickled into worker processes, so it holds no connection."""

    @property
    def identity(self) -> str:
        """What the digits depend on besides the subset and the seed."""

    def generator_for(self, real: Dataset, *, seed: int) -> Source:
        """The generator for the subset *real*."""


@lru_cache(maxsize=2)
def _connected(target: str) -> ServedGenerator:
    return ServedGenerator(DigitClient(target), target)


@lru_cache(maxsize=4)
def _loaded(version: Path) -> SavedGenerator:
    return SavedGenerator(version)


class Served:
    """The same served generator for every subset."""

    def __init__(self, target: str) -> None:
        """Ask the server at *target*, ``host:port``, who its generator is.

        Raises:
            ServerError: the server cannot answer.
        """
        self._target = target
        self.identity = str(_connected(target).card["generator_id"])

    def generator_for(self, real: Dataset, *, seed: int) -> Source:
        """The served generator."""
        return _connected(self._target)


class Exported:
    """The same exported generator for every subset, loaded into each process that needs it."""

    def __init__(self, folder: Path) -> None:
        """Load the generator in *folder*, or its newest version if *folder* holds numbered versions.

        Raises:
            DataError: there is none.
        """
        self._version = newest_version(folder)
        self.identity = str(_loaded(self._version).card["generator_id"])

    def generator_for(self, real: Dataset, *, seed: int) -> Source:
        """The exported generator."""
        return _loaded(self._version)


class TrainedInside:
    """A generator of its own for every subset, trained on its images alone.

    Trained generators are kept in a folder under the content they were trained on, so that no arm, no resumed run
    and no other experiment trains the same one again.
    """

    def __init__(self, *, recipe: str = STRICT_RECIPE, overrides: Mapping[str, Any] | None = None, cache: Path) -> None:
        """Keep what to train.

        Args:
            recipe: name of a recipe.
            overrides: fields of the recipe to be replaced.
            cache: folder for the trained generators.

        Raises:
            InvalidInputError: there is no such recipe.
        """
        self._recipe = resolve(recipe, overrides or {})
        self._cache = cache
        self.identity = json.dumps(self._recipe.as_dict(), sort_keys=True)

    def generator_for(self, real: Dataset, *, seed: int) -> Source:
        """Train a generator on *real*, unless one has been trained on it with this recipe and seed.

        Raises:
            InvalidInputError: the recipe cannot be trained on these images.
        """
        from filelock import FileLock

        content = f"{real.sha256}\n{self.identity}\n{seed}"
        folder = self._cache / hashlib.sha256(content.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            version = folder / "models" / "1"
            if not version.is_dir():
                from digitforge_training.export.saved_model import export
                from digitforge_training.runs.loop import train

                train(self._recipe, real, run_dir=folder / "run", seed=seed)
                export(folder / "run", real, to=version.parent)
        generator = _loaded(version)
        if generator.card["training_data"]["sha256"] != real.sha256:
            raise DataError(f"{folder} holds a generator of other images than these; remove that folder")
        return generator


def budget_of(generator: Source, real: RealImages) -> Budget:
    """Name what *generator*, made outside the experiment, has seen of its real images.

    Raises:
        InvalidInputError: it has seen held-out images, cannot tell, or makes other images or classes than these.
    """
    check_fits(generator, real.pool)
    held_out, pool = (generator.seen(image_hashes(data.images)) for data in (real.held_out, real.pool))
    if held_out is None or pool is None:
        raise InvalidInputError(f"{generator.name} cannot tell which images it has seen; export it with digitforge")
    if held_out.any():
        raise InvalidInputError(
            f"{generator.name} was trained on {np.count_nonzero(held_out)} of the {len(held_out)} held-out images, so "
            "accuracy on them would mean nothing; hold out others, or take another generator"
        )
    if not pool.any():
        return Budget.TRANSFER
    assert generator.card is not None  # check_fits refused generators without one
    return Budget.ORACLE if generator.card["class_names"] else Budget.SEMI


def check_fits(generator: Source, real: Dataset) -> None:
    """Check that generated digits can be mixed with these real ones.

    Raises:
        InvalidInputError: the generator has no card, or their shape or classes differ. No classes at all are fine: such
            digits are labeled inside the experiment.
    """
    card = generator.card
    if card is None:
        raise InvalidInputError(f"{generator.name} has no card; an experiment needs an exported generator")
    shape, classes = tuple(card["image_shape"]), tuple(card["class_names"])
    if shape != real.images.shape[1:] or (classes and classes != real.class_names):
        raise InvalidInputError(
            f"{generator.name} makes images {shape} of {len(classes)} classes ({', '.join(classes[:12])}), but the "
            f"data set {real.name} has images {real.images.shape[1:]} of {len(real.class_names)} classes "
            f"({', '.join(real.class_names[:12])}): take a generator trained on such images"
        )

"""The generators of an experiment, and their budgets.

A *budget* says which images a generator has seen. It comes from the generator itself, never from the user:

* ``strict``: trained inside the experiment, on the real images of one subset and nothing else;
* ``adapted``: a transfer generator that was adapted inside the experiment to the images of one subset;
* ``transfer``: has seen no image of the pool, from which subsets are drawn;
* ``semi``: has seen images of the pool, but no labels. It has no classes. A classifier that has seen only the subset
  labels its digits;
* ``oracle``: has seen images of the pool with their labels.

A generator that has seen a held-out image is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from digitforge_client import DigitClient
from digitforge_client.common.files import make_folder
from digitforge_client.common.versions import newest_version
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.classifiers.transformations import shift_rotate_scale
from digitforge_evaluation.experiment.subsets import RealImages
from digitforge_evaluation.images.seen import fitted, seen_images
from digitforge_evaluation.images.sources import SavedGenerator, ServedGenerator, Source
from digitforge_training.adaptation import adapt, read_parent, recipe_for
from digitforge_training.data import Dataset
from digitforge_training.data.fitting import options_for
from digitforge_training.recipes import Recipe, resolve

if TYPE_CHECKING:
    from digitforge_training.gan.parent import Parent

STRICT_RECIPE: Final = "forge-small"


class Budget(StrEnum):
    """What a generator has seen. See the module's docstring."""

    STRICT = "strict"
    ADAPTED = "adapted"
    TRANSFER = "transfer"
    SEMI = "semi"
    ORACLE = "oracle"


#: Budgets of generators that the experiment trains, one for each subset.
INSIDE: Final = (Budget.STRICT, Budget.ADAPTED)


class GeneratorSource(Protocol):
    """Provides a generator for each subset. It is pickled for worker processes, so it holds no connection."""

    @property
    def identity(self) -> str:
        """Everything that the digits depend on, apart from the subset and the seed."""

    def generator_for(self, real: Dataset, *, seed: int) -> Source:
        """The generator for the subset *real*."""


@lru_cache(maxsize=2)
def _connected(server: str | Callable[[], DigitClient]) -> ServedGenerator:
    return ServedGenerator(DigitClient(server) if isinstance(server, str) else server(), str(server))


@lru_cache(maxsize=4)
def _loaded(version: Path) -> SavedGenerator:
    return SavedGenerator(version)


class Served:
    """Uses one served generator for all subsets."""

    def __init__(self, server: str | Callable[[], DigitClient]) -> None:
        """Ask the server for its generator id.

        Args:
            server: ``host:port``, or a function that connects to the server. Worker processes get a copy of the
                function, and call it once for all equal copies.

        Raises:
            ServerError: the server cannot answer.
        """
        self._server = server
        self.identity = str(_connected(server).card["generator_id"])

    def generator_for(self, real: Dataset, *, seed: int) -> Source:
        """The served generator."""
        return _connected(self._server)


class Exported:
    """Uses one exported generator for all subsets. Each process loads it."""

    def __init__(self, folder: Path) -> None:
        """Load the generator in *folder*, or the newest version if *folder* holds numbered versions.

        Raises:
            DataError: *folder* holds no generator.
        """
        self._version = newest_version(folder)
        self.identity = str(_loaded(self._version).card["generator_id"])

    def generator_for(self, real: Dataset, *, seed: int) -> Source:
        """The exported generator."""
        return _loaded(self._version)


class TrainedInside:
    """Trains a generator for each subset, on the images of the subset alone.

    Trained generators are cached under a hash of images, recipe and seed. Other arms, resumed runs and other
    experiments in the same folder reuse them.
    """

    _copies = 0  # an adaptation has none

    def __init__(
        self,
        *,
        recipe: str = STRICT_RECIPE,
        overrides: Mapping[str, Any] | None = None,
        copies: int = 0,
        cache: Path,
    ) -> None:
        """Resolve the recipe.

        Args:
            recipe: name of a recipe.
            overrides: fields of the recipe to replace.
            copies: number of copies of each image to train on too, each changed as in the classical arms.
            cache: folder for the trained generators.

        Raises:
            InvalidInputError: the recipe is unknown.
        """
        self._recipe = resolve(recipe, overrides or {})
        self._cache, self._copies = cache, copies
        self.identity = _identity(self._recipe) + (f"\n{copies} copies" if copies else "")

    def generator_for(self, real: Dataset, *, seed: int) -> Source:
        """The generator trained on *real* with *seed*. Trains it if the cache lacks it.

        Raises:
            InvalidInputError: the recipe cannot be trained on these images.
            DataError: the cache is damaged or cannot be written.
        """
        from filelock import FileLock

        content = f"{real.sha256}\n{self.identity}\n{seed}"
        folder = self._cache / hashlib.sha256(content.encode()).hexdigest()[:16]
        real = self._with_copies(real, seed)
        make_folder(folder)
        with FileLock(folder / ".lock"):
            version = folder / "models" / "1"
            if not version.is_dir():
                from digitforge_training.export.saved_model import export

                self._train(real, folder / "run", seed)
                export(folder / "run", real, to=version.parent)
        generator = _loaded(version)
        if generator.card["training_data"]["sha256"] != real.sha256:
            raise DataError(
                f"the generator in {folder} was trained on different images; remove that folder and run again"
            )
        return generator

    def _with_copies(self, real: Dataset, seed: int) -> Dataset:
        if not self._copies:
            return real
        rows = np.tile(np.arange(len(real)), self._copies)
        copies = shift_rotate_scale(real.images[rows], np.random.default_rng(seed))
        return Dataset(
            images=np.concatenate([real.images, copies]),
            labels=np.concatenate([real.labels, real.labels[rows]]),
            class_names=real.class_names,
            name=real.name,
            split=real.split,
        )

    def _train(self, real: Dataset, run_dir: Path, seed: int) -> None:
        from digitforge_training.runs.loop import train

        train(self._recipe, real, run_dir=run_dir, seed=seed)


class AdaptedInside(TrainedInside):
    """Adapts a generator to each subset, by `digitforge.adapt`. Cached like those of `TrainedInside`."""

    def __init__(self, folder: Path, *, overrides: Mapping[str, Any] | None = None, cache: Path) -> None:
        """Read the generator to adapt.

        Args:
            folder: folder of the generator, or of its versions.
            overrides: fields of the recipe of the adaptation to replace.
            cache: folder for the adapted generators.

        Raises:
            DataError: *folder* holds no generator.
            InvalidInputError: a field does not exist or is out of range.
        """
        self._version, self._cache = newest_version(folder), cache  # a newer one may appear during the experiment
        parent = _parent(self._version)
        self._recipe = recipe_for(parent, **(overrides or {}))
        self.identity = f"{parent.card['generator_id']}\n{_identity(self._recipe)}"

    def _train(self, real: Dataset, run_dir: Path, seed: int) -> None:
        adapt(_parent(self._version), real, out=run_dir, recipe=self._recipe, seed=seed)


@lru_cache(maxsize=2)
def _parent(version: Path) -> Parent:
    return read_parent(version)


def _identity(recipe: Recipe) -> str:
    described = recipe.as_dict()
    for text in ("summary", "notes"):  # new words do not make a new generator
        del described[text]
    for field in ("discriminator_head_start", "generator_fixed", "discriminator_fixed"):
        if not described[field]:  # keeps the identity of experiments begun before these fields existed
            del described[field]
    return json.dumps(described, sort_keys=True)


def budget_of(generator: Source, real: RealImages) -> Budget:
    """The budget of a generator made outside the experiment.

    Raises:
        InvalidInputError: the generator has seen held-out images, cannot tell which images it has seen, or does not fit
            the real images.
    """
    check_fits(generator, real.pool)
    held_out, pool = (seen_images(generator, data) for data in (real.held_out, real.pool))
    if held_out is None or pool is None:
        raise InvalidInputError(
            f"{generator.name} cannot tell which images it has seen; export it again with `digitforge export`"
        )
    if held_out.any():
        raise InvalidInputError(
            f"{generator.name} was trained on {np.count_nonzero(held_out)} of the {len(held_out)} held-out images, so "
            "accuracy on them would be meaningless; hold out other images, or use another generator"
        )
    if not pool.any():
        return Budget.TRANSFER
    assert generator.card is not None  # check_fits refused generators without a card
    return Budget.ORACLE if generator.card["class_names"] else Budget.SEMI


def check_fits(generator: Source, real: Dataset) -> None:
    """Check that the digits of *generator* can be mixed with the images of *real*.

    A generator without classes fits too. The experiment labels its digits.

    Raises:
        InvalidInputError: the generator has no card, its image shape or classes differ, or it was trained on the same
            data set, with images fitted in another way.
    """
    card = generator.card
    if card is None:
        raise InvalidInputError(
            f"{generator.name} has no card; an experiment needs a generator from `digitforge export`"
        )
    shape, classes = tuple(card["image_shape"]), tuple(card["class_names"])
    options = options_for(wanted=shape, given=real.images.shape[1:])
    advice = f", or read the data set with {options}" if options else ""
    if shape != real.images.shape[1:] or (classes and classes != real.class_names):
        raise InvalidInputError(
            f"{generator.name} makes images of shape {shape} in {len(classes)} classes ({', '.join(classes[:12])}), "
            f"but the data set {real.name} has images of shape {real.images.shape[1:]} in {len(real.class_names)} "
            f"classes ({', '.join(real.class_names[:12])}); use a generator trained on this kind of images"
            f"{advice}"
        )
    then = fitted(card)
    if then and real.origin and card["training_data"]["name"] == real.name and then != real.origin.fitting:
        raise InvalidInputError(
            f"{generator.name} was trained on images of {real.name} that were fitted in another way; read the data set "
            f"with {then.options}"
        )

"""Recipes: everything that decides how a generator is trained, as data.

`RECIPES` holds the presets, one short entry each. An explicit option beats the preset
(`resolve("forge", {"learning_rate": "1e-4"})`); the resolved recipe is printed, saved in the run folder and kept in
the generator's card.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from digitforge_client.errors import InvalidInputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a generator is trained. Counts of images are images of real data shown to the discriminator."""

    name: str
    summary: str  # one line for people

    # Networks: residual pairs without normalisation at half and quarter resolution (see networks/residual.py).
    latent_size: int = 64
    latent_law: Literal["normal", "uniform"] = "normal"  # N(0, 1), or uniform on [−1, 1]
    width: int = 48  # channels at half resolution; twice as many at quarter resolution
    generator_blocks: int = 2  # residual pairs at half resolution
    discriminator_blocks: int = 2
    embedding_size: int = 32  # of a class, in the generator's input

    # Losses: relativistic pairing with zero-centred gradient penalties, plus an auxiliary classifier.
    gamma: float = 0.1  # weight γ of (γ/2)·‖∇D‖² on real and on generated images, at the start
    gamma_end: float = 0.01  # at the end; γ falls along a cosine, as R3GAN has it, so that detail can still be learnt
    penalty_every: int = 2  # steps; the penalty is weighted up by as much, so that γ keeps its meaning
    penalty_noise: float = 0.03  # σ of the finite difference that estimates ‖∇D‖², in units of [−1, 1] pixels
    auxiliary_discriminator: float = 1.0  # weight of the class loss on real images
    auxiliary_generator: float = 0.1  # weight of the class loss on generated images; large values cost variety

    # Optimisation.
    batch_size: int = 64  # images a step
    steps: int = 15_000
    learning_rate: float = 4e-4  # of both networks; falls along a cosine to zero
    beta_1: float = 0.0
    beta_2: float = 0.99
    ema_images: int = 40_000  # half-life of the generator's averaged weights, in images

    # Augmentation of what the discriminator sees, real and generated alike (see augmentation.py). Never flips.
    augment_shift: int = 0  # pixels at most, in each direction
    augment_cutout: int = 0  # side of the square that is blanked, in pixels; 0: none

    # Progress, counted in images.
    images_per_checkpoint: int = 64_000
    images_per_sheet: int = 64_000  # sample sheets become the frames of the GIF

    def __post_init__(self) -> None:
        """Refuse values that no training could use."""
        positive = (
            "latent_size", "width", "generator_blocks", "discriminator_blocks", "embedding_size", "penalty_every",
            "penalty_noise", "batch_size", "steps", "learning_rate", "ema_images", "images_per_checkpoint",
            "images_per_sheet",
        )  # fmt: skip
        for field in positive:
            if not 0 < getattr(self, field) < math.inf:
                raise InvalidInputError(f"{field} is {getattr(self, field)}; expected a finite number above 0")
        for field in (
            "gamma", "gamma_end", "auxiliary_discriminator", "auxiliary_generator", "augment_shift", "augment_cutout",
        ):  # fmt: skip
            if not 0 <= getattr(self, field) < math.inf:
                raise InvalidInputError(f"{field} is {getattr(self, field)}; expected 0 or a finite number above")
        for field in ("beta_1", "beta_2"):
            if not 0 <= getattr(self, field) < 1:
                raise InvalidInputError(f"{field} is {getattr(self, field)}; expected 0 ≤ {field} < 1")
        if self.latent_law not in ("normal", "uniform"):
            raise InvalidInputError(f"latent_law is {self.latent_law!r}; expected 'normal' or 'uniform'")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready data."""
        return dataclasses.asdict(self)


_PRESETS = (
    Recipe(name="forge", summary="The default: class-conditional, our best."),
    Recipe(
        name="forge-small", summary="The same for a thousand images or fewer.",
        width=32, generator_blocks=1, discriminator_blocks=1, gamma=0.5, gamma_end=0.1, steps=4_000, learning_rate=3e-4,
        augment_shift=3, augment_cutout=8, images_per_checkpoint=32_000,
    ),
)  # fmt: skip

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _PRESETS}


def _nearest(word: str, known: typing.Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _parse(field: str, kind: Any, value: str | float) -> Any:
    """Convert an override, which comes from the command line as text, to the type of its field."""
    if kind not in (int, float):
        return value
    try:
        number = float(value)
    except ValueError as error:
        raise InvalidInputError(f"{field} is {value!r}; expected a number") from error
    if kind is int and not number.is_integer():
        raise InvalidInputError(f"{field} is {value!r}; expected a whole number")
    return kind(number)


def resolve(name: str, overrides: Mapping[str, str | float] | None = None) -> Recipe:
    """Return the preset *name* with *overrides* of its fields.

    Raises:
        InvalidInputError: no such recipe or field (the nearest name is suggested), or a value out of range.
    """
    if name not in RECIPES:
        raise InvalidInputError(f"there is no recipe {name!r}; recipes: {', '.join(RECIPES)}{_nearest(name, RECIPES)}")
    kinds = typing.get_type_hints(Recipe)
    fixed = {"name", "summary"}
    changes: dict[str, Any] = {}
    for field, value in (overrides or {}).items():
        if field not in kinds or field in fixed:
            raise InvalidInputError(
                f"a recipe has no field {field!r}{_nearest(field, set(kinds) - fixed)}; "
                f"`digitforge recipes {name}` lists them"
            )
        changes[field] = _parse(field, kinds[field], value)
    return dataclasses.replace(RECIPES[name], **changes)


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """Rebuild a recipe from `Recipe.as_dict`, as `recipe.json` and cards hold it.

    Raises:
        InvalidInputError: a field is missing or unknown.
    """
    try:
        return Recipe(**values)
    except TypeError as error:
        raise InvalidInputError(f"this recipe was written by another version of digitforge: {error}") from error

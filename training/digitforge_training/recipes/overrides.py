"""Makes recipes from presets and overrides, and from saved JSON."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Final

from digitforge_client.errors import InvalidInputError, did_you_mean
from digitforge_training.recipes.presets import RECIPES
from digitforge_training.recipes.recipe import Recipe

_AUTO: Final = "auto"
FIXED: Final = {"name", "summary", "notes"}  # fields that cannot be overridden

#: Former names of fields. Old recipe.json files and cards still load, and ``--set`` takes both names.
_FORMER_NAMES: Final = {
    "optimiser": "optimizer",
    "latent_law": "latent_distribution",
    "generator_normalisation": "generator_normalization",
    "discriminator_normalisation": "discriminator_normalization",
    "normalisation_momentum": "normalization_momentum",
}


def _parse(field: str, hint: Any, value: str | float) -> Any:
    """Convert an override to the type of its field. Overrides from the command line are text."""
    if hint in (bool, bool | None):
        words = {"true": True, "false": False, "1": True, "0": False} | ({} if hint is bool else {_AUTO: None})
        if str(value).lower() not in words:
            expected = "true or false" if hint is bool else f"true, false or {_AUTO}"
            raise InvalidInputError(f"{field} is {value!r}; expected {expected}")
        return words[str(value).lower()]
    if hint == tuple[int, ...]:
        return tuple(_parse(field, int, part) for part in str(value).split(",") if part.strip())
    if hint not in (int, float):
        return value
    try:
        number = float(value)
    except ValueError as error:
        raise InvalidInputError(f"{field} is {value!r}; expected a number") from error
    if hint is int and not number.is_integer():
        raise InvalidInputError(f"{field} is {value!r}; expected a whole number")
    return hint(number)


def written(value: Any) -> str:
    """Write a field's value the way an override takes it."""
    if value is None:
        return _AUTO
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value).lower()


def resolve(recipe: str | Recipe, overrides: Mapping[str, str | float] | None = None) -> Recipe:
    """Return a recipe, or the preset of this name, with *overrides* of its fields.

    Raises:
        InvalidInputError: the recipe or a field does not exist (the message suggests the nearest name), or a value is
            out of range.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise InvalidInputError(
                f"there is no recipe {recipe!r}; expected one of {', '.join(RECIPES)}{did_you_mean(recipe, RECIPES)}"
            )
        recipe = RECIPES[recipe]
    hints = typing.get_type_hints(Recipe)
    changes: dict[str, Any] = {}
    for given, value in (overrides or {}).items():
        field = _FORMER_NAMES.get(given, given)
        if field not in hints or field in FIXED:
            raise InvalidInputError(
                f"a recipe has no field {field!r}{did_you_mean(field, set(hints) - FIXED)}; "
                f"`digitforge recipes show {recipe.name}` lists them"
            )
        changes[field] = _parse(field, hints[field], value)
    return dataclasses.replace(recipe, **changes)


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """Rebuild a recipe from `Recipe.as_dict`, which ``recipe.json`` and cards hold.

    Raises:
        InvalidInputError: a field is missing or unknown.
    """
    try:
        fields: dict[str, Any] = {
            _FORMER_NAMES.get(k, k): tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return Recipe(**fields)
    except TypeError as error:
        raise InvalidInputError(
            f"this recipe was written by another version of digitforge ({error}); use that version, or train again"
        ) from error

"""Recipes: presets, overrides, and errors."""

from __future__ import annotations

import dataclasses

import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_training.recipes import RECIPES, Recipe, from_dict, resolve


def test_every_preset_survives_its_own_description() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert from_dict(recipe.as_dict()) == recipe


def test_the_texts_of_a_recipe_do_not_make_another_recipe() -> None:
    recipe = RECIPES["mlp"]
    assert dataclasses.replace(recipe, summary="Other words.", notes=()) == recipe


def test_an_override_beats_the_preset_and_takes_the_type_of_its_field() -> None:
    recipe = resolve("forge", {"learning_rate": "1e-4", "steps": "2e3", "latent_distribution": "uniform"})
    assert (recipe.learning_rate, recipe.steps, recipe.latent_distribution) == (1e-4, 2000, "uniform")
    assert isinstance(recipe.steps, int)


def test_fields_are_taken_by_their_former_names_too() -> None:
    former = {"optimiser": "rmsprop", "latent_law": "uniform", "discriminator_normalisation": "spectral"}
    recipe = resolve("forge", former)
    changed = (recipe.optimizer, recipe.latent_distribution, recipe.discriminator_normalization)
    assert changed == ("rmsprop", "uniform", "spectral")
    assert from_dict({("optimiser" if k == "optimizer" else k): v for k, v in recipe.as_dict().items()}) == recipe


def test_a_misspelled_recipe_or_field_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'forge'"):
        resolve("forg")
    with pytest.raises(InvalidInputError, match="did you mean 'learning_rate'"):
        resolve("forge", {"learning_rat": "1"})


def test_the_name_of_a_recipe_cannot_be_overridden() -> None:
    with pytest.raises(InvalidInputError, match="no field 'name'"):
        resolve("forge", {"name": "other"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", "many"),
        ("steps", "1.5"),
        ("steps", "0"),
        ("learning_rate", "-1"),
        ("beta_1", "1"),
        ("gamma", "-0.1"),
        ("latent_distribution", "cauchy"),
        ("learning_rate", "nan"),
        ("batch_size", "inf"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: str) -> None:
    with pytest.raises(InvalidInputError, match=field):
        resolve("forge", {field: value})


def test_a_recipe_of_another_version_is_refused() -> None:
    values = RECIPES["forge"].as_dict()
    with pytest.raises(InvalidInputError, match="another version"):
        from_dict({**values, "warp": 9})


def test_recipes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["forge"].steps = 1  # type: ignore[misc]
    assert isinstance(RECIPES["forge"], Recipe)

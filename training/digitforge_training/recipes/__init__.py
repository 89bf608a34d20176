"""Recipes: everything that decides how a generator is trained, as data.

`RECIPES` holds the presets. An explicit option beats the preset (`resolve("forge", {"learning_rate": "1e-4"})`); the
resolved recipe is printed, saved in the run folder and kept in the generator's card.
"""

from digitforge_training.recipes.overrides import FIXED, from_dict, resolve, written
from digitforge_training.recipes.presets import RECIPES
from digitforge_training.recipes.recipe import LossName, Normalization, Recipe

__all__ = ["FIXED", "RECIPES", "LossName", "Normalization", "Recipe", "from_dict", "resolve", "written"]

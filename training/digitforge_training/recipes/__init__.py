"""Recipes: all settings of a training, as data.

`RECIPES` holds the presets. `resolve` applies overrides to a preset: ``resolve("forge", {"learning_rate": "1e-4"})``.
"""

from digitforge_training.recipes.overrides import FIXED, from_dict, resolve, written
from digitforge_training.recipes.presets import RECIPES
from digitforge_training.recipes.recipe import LossName, Normalization, Recipe

__all__ = ["FIXED", "RECIPES", "LossName", "Normalization", "Recipe", "from_dict", "resolve", "written"]

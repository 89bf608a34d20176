"""Builds the optimizers of a recipe."""

from __future__ import annotations

from typing import Any

import keras

from digitforge_training.recipes import Recipe


def build_optimizer(
    recipe: Recipe, variables: Any, *, rate: float, decay: float, updates: int
) -> keras.optimizers.Optimizer:
    """Build the optimizer of *variables*.

    Args:
        rate: learning rate at the first step.
        decay: decay of the inverse-time schedule, see `Recipe.schedule`.
        updates: number of updates in a training step.
    """
    schedule: Any = rate
    if recipe.schedule == "cosine":
        schedule = keras.optimizers.schedules.CosineDecay(rate, recipe.steps * updates)
    elif recipe.schedule == "inverse-time":
        schedule = keras.optimizers.schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=decay)
    common: dict[str, Any] = {"learning_rate": schedule, "clipvalue": recipe.clip_value or None}
    optimizer = (
        keras.optimizers.Adam(beta_1=recipe.beta_1, beta_2=recipe.beta_2, **common)
        if recipe.optimizer == "adam"
        else keras.optimizers.RMSprop(**common)
    )
    optimizer.build(variables)
    return optimizer

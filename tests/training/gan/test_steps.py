"""Training steps: which network learns from what, and which recipe uses which step."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from digitforge_training.gan.adversary import Adversary
from digitforge_training.gan.batches import Batch
from digitforge_training.gan.steps import Step, paired_step, published_step, step_of
from digitforge_training.recipes import RECIPES, resolve


def _batch(seed: int = 0) -> Batch:
    """Black and white images, unlike those of an untrained generator."""
    images = 255 * tf.random.stateless_uniform((32, 16, 16, 1), [1, 2], 0, 2, tf.int32)
    latents = tf.random.stateless_normal((32, 64), [3, 4])
    seeds = tf.constant([0, 16 * seed], tf.int64)
    return Batch(tf.cast(images, tf.uint8), tf.one_hot(tf.range(32) % 3, 3), latents, seeds)


def _take(step: Step, adversary: Adversary, *, steps: int = 1) -> dict[str, float]:
    for number in range(steps):
        statistics = step(adversary, [_batch(number)], tf.constant(number, tf.int64))
    return {name: float(value) for name, value in statistics.items()}


def _weights(adversary: Adversary) -> dict[str, list[np.ndarray[Any, Any]]]:
    return {name: getattr(adversary, name).get_weights() for name in ("generator", "discriminator", "averaged")}


@pytest.mark.parametrize("learns", ["generator", "discriminator"])
@pytest.mark.parametrize("step", [paired_step, published_step])
def test_each_network_learns_from_its_own_loss_alone(step: Step, learns: str, adversary: Adversary) -> None:
    other = "discriminator" if learns == "generator" else "generator"
    getattr(adversary, f"{other}_optimizer").learning_rate = 0.0
    before = _weights(adversary)
    _take(step, adversary)
    after = _weights(adversary)
    for old, new in zip(before[other], after[other], strict=True):
        np.testing.assert_array_equal(old, new)
    assert any(not np.array_equal(old, new) for old, new in zip(before[learns], after[learns], strict=True))


def test_the_discriminator_learns_to_tell_real_from_generated(adversary: Adversary) -> None:
    adversary.generator_optimizer.learning_rate = 0.0
    adversary.discriminator_optimizer.learning_rate = 1e-2
    assert _take(paired_step, adversary, steps=8)["pair_accuracy"] > 0.95


def test_the_generator_learns_to_deceive_a_discriminator_that_stands_still(adversary: Adversary) -> None:
    adversary.discriminator_optimizer.learning_rate = 0.0
    first = _take(paired_step, adversary)["generator_loss"]
    assert _take(paired_step, adversary, steps=5)["generator_loss"] < first


@pytest.mark.parametrize("steps", [1, 4])
def test_the_published_step_with_the_fields_of_forge_is_the_paired_step(steps: int, adversary: Adversary) -> None:
    start = _weights(adversary)

    def take(step: Step) -> dict[str, float]:
        # Adam would turn a gradient that is 0 up to rounding into a full step.
        optimizers = {f"{who}_optimizer": keras.optimizers.SGD(1e-2) for who in ("generator", "discriminator")}
        for name, weights in start.items():
            getattr(adversary, name).set_weights(weights)
        return _take(step, dataclasses.replace(adversary, **optimizers), steps=steps)

    watched = take(paired_step)
    paired = _weights(adversary)
    same = take(published_step)
    assert same == pytest.approx(watched, rel=1e-3, abs=1e-4)
    for name, weights in _weights(adversary).items():
        for one, other in zip(weights, paired[name], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5, err_msg=name)


def test_a_recipe_takes_the_paired_step_unless_a_field_of_the_published_systems_says_otherwise() -> None:
    ours = {"forge", "forge-small", "forge-unlabeled"}
    assert {name for name, recipe in RECIPES.items() if step_of(recipe) is paired_step} == ours
    as_forge: list[dict[str, str | float]] = [
        {"conditioning": "none", "clusters": 1},
        {"augment_shift": 3},
        {"gamma": 0},
        {"ema_images": 0},
    ]
    otherwise: list[dict[str, str | float]] = [
        {"loss": "hinge"},
        {"loss": "hinge", "separate_batches": "true"},
        {"discriminator_steps": 2},
        {"generator_steps": 2},
        {"shared_latents": "false"},
        {"generator_predicts": "true"},
        {"discriminator_in_chain": "trained"},
        {"gradient_penalty": 10},
    ]
    assert {step_of(resolve("forge", overrides)) for overrides in as_forge} == {paired_step}
    assert {step_of(resolve("forge", overrides)) for overrides in otherwise} == {published_step}

"""Trainer: every preset and every loss learns, and a step updates what its recipe says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset
from digitforge_training.gan.trainer import Trainer
from digitforge_training.recipes import RECIPES, Recipe, resolve

SMALL: dict[str, dict[str, str | float]] = {
    "residual": {"width": 8, "generator_blocks": 1, "discriminator_blocks": 1},
    "dense": {"generator_widths": "16", "discriminator_widths": "16"},
    "convolutional": {"generator_widths": "8,6,4", "discriminator_widths": "4,6"},
}


def _small(name: str, **overrides: str | float) -> Recipe:
    recipe = RECIPES[name]
    fewer = {f"{who}_steps": min(getattr(recipe, f"{who}_steps"), 2) for who in ("discriminator", "generator")}
    return resolve(name, {**SMALL[recipe.network], **fewer, "batch_size": 16, **overrides})


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(200))


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    yield
    tf.keras.backend.clear_session()


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_resumes_to_the_same_weights(name: str, few: Dataset) -> None:
    recipe = _small(name, jit="false")
    whole = Trainer(recipe, few, seed=1)
    first = whole.state()
    whole.run(2)
    resumed = Trainer(recipe, few, seed=1)
    resumed.restore(whole.state())
    statistics = whole.run(2)
    assert all(np.isfinite(value) for value in statistics.values())
    assert whole.images_seen == 4 * recipe.images_per_step
    resumed.run(2)
    for key, value in whole.state().items():
        np.testing.assert_array_equal(value, resumed.state()[key], err_msg=key)
    moved = {key.split("/")[0] for key, value in whole.state().items() if not np.array_equal(value, first[key])}
    assert {"generator", "discriminator", "averaged"} <= moved
    images = whole.sample(np.arange(10), np.zeros((10, recipe.latent_size), np.float32))
    assert images.shape == (10, 28, 28, 1)
    assert images.dtype == np.uint8


@pytest.mark.parametrize("jit", ["true", "false"])
def test_steps_are_the_same_in_one_call_or_in_several(jit: str, few: Dataset) -> None:
    recipe = _small("dense-bn", batch_size=600, jit=jit)
    assert recipe.steps_at_once == 2
    once, often = (Trainer(recipe, few, seed=1) for _ in range(2))
    means = once.run(5)
    parts = [(steps, often.run(steps)) for steps in (1, 3, 1)]
    for key, value in once.state().items():
        np.testing.assert_array_equal(value, often.state()[key], err_msg=key)
    for name, mean in means.items():
        assert mean == pytest.approx(sum(steps * part[name] for steps, part in parts) / 5, rel=1e-5), name


def test_a_call_as_long_as_the_last_one_works_at_full_size(digits: Dataset) -> None:
    """TensorFlow saves memory in graphs of this size, but not in the small ones of the other tests."""
    many = digits.subset(np.arange(60_000) % len(digits.labels))
    trainer = Trainer(resolve("forge", {"batch_size": 8, "clusters": 1, "jit": "false"}), many, seed=0)
    for _ in range(2):
        trainer.run(2)
    assert trainer.steps_done == 4


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("loss", "generator_steps"),
    [
        ("relativistic", 3),
        ("minimax", 3),
        ("non-saturating", 1),
        ("least-squares", 1),
        ("wasserstein", 1),
        ("hinge", 1),
    ],
)
def test_every_loss_works_with_classes_penalties_and_unequal_steps(
    loss: str, generator_steps: int, few: Dataset
) -> None:
    recipe = _small(
        "dense-bn",
        loss=loss,
        separate_batches="false",
        conditioning="both",
        gamma=0.1,
        gradient_penalty=1,
        discriminator_steps=2,
        generator_steps=generator_steps,
        jit="false",
        augment_shift=2,
        augment_rotation=10,
        augment_scale=0.1,
    )
    trainer = Trainer(recipe, few, seed=0)
    statistics = trainer.run(2)
    assert all(np.isfinite(value) for value in statistics.values())
    assert "class_loss_real" in statistics
    assert (trainer.steps_done, trainer.images_seen) == (2, 2 * 2 * 16)


@pytest.mark.usefixtures("eagerly")
def test_separate_batches_report_the_loss_of_the_classes_too(few: Dataset) -> None:
    trainer = Trainer(_small("dense-bn", conditioning="auxiliary", jit="false"), few, seed=0)
    statistics = trainer.run(2)
    assert {"class_loss_real", "class_loss_generated"} <= statistics.keys()
    assert all(np.isfinite(value) for value in statistics.values())


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("how", ["frozen", "trained", "copied"])
def test_what_the_generators_update_does_to_the_discriminator(how: str, few: Dataset) -> None:
    # With a learning rate of almost 0, the discriminator changes only through the generator's update.
    recipe = _small("dense-bn", discriminator_in_chain=how, discriminator_learning_rate=1e-12, jit="false")
    trainer = Trainer(recipe, few, seed=0)
    before = trainer.state()
    trainer.run(1)
    moved = max(
        float(np.abs(value - before[key]).max())
        for key, value in trainer.state().items()
        if key.startswith("discriminator/")
    )
    assert (moved > 1e-5) == (how == "trained")


def test_xla_and_plain_steps_agree(few: Dataset) -> None:
    weights = {}
    for jit in ("true", "false"):
        trainer = Trainer(_small("minimax", jit=jit, discriminator_dropout=0), few, seed=0)
        trainer.run(3)
        weights[jit] = trainer.state()
    for key, value in weights["true"].items():
        np.testing.assert_allclose(value, weights["false"][key], atol=1e-3, err_msg=key)


def test_xla_and_bfloat16_are_used_on_a_gpu_unless_a_recipe_or_an_override_decides() -> None:
    def computed(name: str, overrides: dict[str, str | float], *, on_gpu: bool) -> tuple[bool | None, bool | None]:
        recipe = resolve(name, overrides).computed(on_gpu=on_gpu)
        return recipe.jit, recipe.bfloat16

    assert computed("forge", {}, on_gpu=True) == (True, True)
    assert computed("forge", {"jit": "auto", "bfloat16": "false"}, on_gpu=True) == (True, False)
    assert computed("forge", {}, on_gpu=False) == (False, False)
    assert computed("forge", {"bfloat16": "true"}, on_gpu=False) == (False, True)
    assert computed("dense-bn", {}, on_gpu=False) == (True, False)


ONE_OF_EACH_NETWORK = ["minimax", "forge-small", "dcgan-rmsprop"]


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", ONE_OF_EACH_NETWORK)
def test_a_step_can_be_computed_in_bfloat16(name: str, few: Dataset) -> None:
    statistics = Trainer(_small(name, bfloat16="true", jit="false"), few, seed=0).run(1)
    assert all(np.isfinite(value) for value in statistics.values())


@pytest.mark.parametrize(
    "name", [ONE_OF_EACH_NETWORK[0], *(pytest.param(name, marks=pytest.mark.slow) for name in ONE_OF_EACH_NETWORK[1:])]
)
def test_a_step_can_be_computed_as_on_a_gpu(name: str, few: Dataset) -> None:
    recipe = _small(name).computed(on_gpu=True)
    assert recipe.jit
    assert recipe.bfloat16
    statistics = Trainer(recipe, few, seed=0).run(2)
    assert all(np.isfinite(value) for value in statistics.values())


def test_a_training_here_leaves_nothing_to_the_device(few: Dataset) -> None:
    recipe = Trainer(_small("forge"), few, seed=0).recipe
    assert recipe == _small("forge").computed(on_gpu=bool(tf.config.list_logical_devices("GPU")))


def test_combinations_without_meaning_are_refused() -> None:
    for name, override in (
        ("forge", {"separate_batches": "true"}),
        ("forge", {"label_smoothing": "0.1"}),
        ("dense-bn", {"generator_normalization": "instance"}),
        ("dcgan-rmsprop", {"generator_widths": "8,4"}),
        ("forge", {"loss": "maximin"}),
        ("forge", {"generator_widths": "64,-1"}),
        ("forge", {"generator_widths": "64"}),
        ("forge", {"discriminator_widths": "64,32,16"}),
        ("forge", {"jit": "perhaps"}),
    ):
        with pytest.raises(InvalidInputError, match=next(iter(override)).split("_")[0]):
            resolve(name, override)

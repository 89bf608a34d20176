"""Diagnosis: what image statistics say of sound and sick images, and what is made of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from digitforge_training.data import Dataset, load
from digitforge_training.diagnosis import FEWEST_IMAGES, diagnose, image_statistics
from digitforge_training.recipes import RECIPES, Recipe, resolve

FORGE = resolve("forge", {"steps": 1_000, "batch_size": 100})  # 100 000 images
SOUND = {"roughness": 1.1, "variety": 0.95, "coverage": 0.8, "pixel_distance": 0.05}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def _statistics(real: Dataset, generated: np.ndarray, *, by_class: bool = False) -> dict[str, float]:
    labels = real.labels if by_class else np.zeros(len(real), np.int64)
    return image_statistics(real=real.images, generated=generated, labels=labels)


# --- what the statistics say of images


def test_other_real_images_look_sound(digits: Dataset) -> None:
    first, second = digits.subset(np.arange(400)), digits.subset(np.arange(400, 800))
    found = _statistics(first, second.images)
    assert found["roughness"] == pytest.approx(1.0, abs=0.1)
    assert found["variety"] == pytest.approx(1.0, abs=0.1)
    assert found["coverage"] > 0.6
    assert found["pixel_distance"] < 0.1


def test_the_same_images_are_at_no_distance(digits: Dataset) -> None:
    found = _statistics(digits, digits.images, by_class=True)
    assert found == pytest.approx({"roughness": 1, "variety": 1, "coverage": 1, "pixel_distance": 0}, abs=1e-6)


def test_noise_is_rough_and_far(digits: Dataset) -> None:
    real = digits.subset(np.arange(400))
    noise = np.random.default_rng(0).integers(0, 256, real.images.shape).astype(np.uint8)
    found = _statistics(real, noise)
    assert found["roughness"] > 2
    assert found["pixel_distance"] > 2
    assert found["coverage"] == 0


def test_the_mean_image_over_and_over_has_no_variety_and_a_distance_of_one(digits: Dataset) -> None:
    real = digits.subset(np.arange(400))
    mean = np.broadcast_to(real.images.mean(axis=0).round().astype(np.uint8), real.images.shape)
    found = _statistics(real, mean)
    assert found["variety"] == pytest.approx(0, abs=1e-6)
    assert found["pixel_distance"] == pytest.approx(1.0, abs=0.01)


def test_one_digit_of_each_class_has_variety_among_all_but_none_within_a_class(digits: Dataset) -> None:
    one_each = np.stack([digits.images[digits.labels == label][0] for label in range(10)])
    real = digits.subset(np.arange(400))
    among_all = _statistics(real, one_each[real.labels])
    assert among_all["variety"] > 0.7
    assert among_all["coverage"] < 0.25
    assert _statistics(real, one_each[real.labels], by_class=True)["variety"] == pytest.approx(0, abs=1e-6)


def test_the_pixel_distance_is_the_one_of_two_gaussians() -> None:
    # Images that are flat in each of the 7 × 7 fields, so that averaging changes nothing.
    rng = np.random.default_rng(1)
    a, b = (
        np.clip(rng.normal(mean, 20, (4_000, 7, 7, 1)), 0, 255).astype(np.uint8).repeat(4, 1).repeat(4, 2)
        for mean in (100, 110)
    )
    found = image_statistics(real=a[:2_000], generated=b[:2_000], labels=np.zeros(2_000, np.int64))
    # N(100, 20²) and N(110, 20²) in each pixel: (10/20)² = 0.25, and a little for the sample.
    assert found["pixel_distance"] == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("side", "channels"), [(16, 1), (28, 3), (33, 1), (64, 3)])
def test_any_size_and_number_of_channels_is_measured(side: int, channels: int) -> None:
    images = np.random.default_rng(2).integers(0, 256, (60, side, side, channels)).astype(np.uint8)
    found = image_statistics(real=images, generated=images[::-1], labels=np.zeros(60, np.int64))
    assert found["roughness"] == pytest.approx(1.0)
    assert found["pixel_distance"] == pytest.approx(0.0, abs=1e-6)


def test_too_few_or_equal_images_say_nothing(digits: Dataset) -> None:
    few = digits.subset(np.arange(FEWEST_IMAGES - 1))
    assert _statistics(few, few.images) == {}
    same = digits.subset(np.zeros(100, np.int64))
    assert _statistics(same, same.images) == {}


# --- what is made of them


def _history(*reports: dict[str, float], every: int = 20_000, recipe: Recipe = FORGE) -> list[dict[str, Any]]:
    losses = {"discriminator_loss": 0.6, "generator_loss": 0.9}
    return [{"images": every * (i + 1), **losses, **SOUND, **report} for i, report in enumerate(reports)]


def _names(history: list[dict[str, Any]], recipe: Recipe = FORGE) -> list[str]:
    return [trouble.name for trouble in diagnose(history, recipe=recipe)]


def test_a_sound_training_has_no_trouble_at_any_time() -> None:
    history = _history(*[{"pixel_distance": value} for value in (0.4, 0.2, 0.1, 0.11, 0.09)])
    assert not any(_names(history[: i + 1]) for i in range(5))


@pytest.mark.parametrize(
    ("sick", "name"),
    [
        ({"roughness": 3.0}, "noise"),
        ({"pixel_distance": 6.0, "variety": 0.02, "coverage": 0.0}, "noise"),  # and not collapse: these are no digits
        ({"variety": 0.2}, "collapse"),
        ({"coverage": 0.1}, "collapse"),
    ],
)
def test_noise_and_collapse_are_seen_once_they_should_have_passed(sick: dict[str, float], name: str) -> None:
    history = _history(*[sick] * 5)
    assert [_names(history[: i + 1]) for i in range(5)] == [[], [], [name], [name], [name]]


def test_a_training_that_still_gets_better_is_left_alone_until_its_end() -> None:
    rough = [{"roughness": 3.0, "pixel_distance": value} for value in (1.6, 1.4, 1.2, 1.0, 0.8)]
    history = _history(*rough)
    assert [_names(history[: i + 1]) for i in range(5)] == [[], [], [], [], ["noise"]]


def test_a_training_that_ends_early_is_judged_at_its_end() -> None:
    history = _history({"variety": 0.1})
    assert not _names(history)
    assert _names([history[0] | {"ended": "equilibrium"}]) == ["collapse"]


def test_a_discriminator_that_is_sure_for_long_has_won_and_a_short_while_is_in_order() -> None:
    def losses(*values: float) -> list[dict[str, float]]:
        return [
            {"images": 1_600 * (i + 1), "discriminator_loss": value, "generator_loss": 5.0}
            for i, value in enumerate(values)
        ]

    assert not _names(losses(*[0.5] * 3, *[0.001] * 7, *[0.5] * 3))
    assert _names(losses(*[0.001] * 10)) == ["discriminator"]
    assert not _names(losses(*[0.001] * 9))  # too early to tell
    assert not _names(losses(*[-50.0] * 20), resolve("dense-bn", {"loss": "wasserstein"}))  # such a loss has no zero


def test_the_class_loss_does_not_hide_a_sure_discriminator() -> None:
    report = {"discriminator_loss": 1.5, "class_loss_real": 1.499, "generator_loss": 3.0}
    assert _names([{"images": 1_600 * (i + 1), **report} for i in range(10)]) == ["discriminator"]


@pytest.mark.parametrize("figure", ["pixel_distance", "judge"])
def test_quality_that_falls_again_is_seen_and_one_bad_sheet_is_not(figure: str) -> None:
    values = (0.5, 0.3, 0.2, 0.2, 0.21, 0.9, 0.2, 0.3, 0.5, 0.6)
    history = _history(*[{figure: value} for value in values], every=10_000)
    assert [_names(history[: i + 1]) for i in range(10)] == [[]] * 9 + [["decline"]]
    (trouble,) = diagnose(history, recipe=FORGE)
    assert "--keep best" in trouble.remedy
    assert "--steps 300" in trouble.remedy  # 0.2, the best of the medians, was around 30 000 images
    (trouble,) = diagnose(history, recipe=FORGE, judged=True)
    assert "--keep best" not in trouble.remedy


def test_a_loss_that_is_no_number_is_seen_at_once() -> None:
    assert _names([{"images": 64, "discriminator_loss": float("nan"), "generator_loss": 1.0}]) == ["overflow"]


SICK: dict[str, list[dict[str, Any]]] = {
    "noise": _history(*[{"roughness": 5.0, "pixel_distance": 6.0}] * 5),
    "collapse": _history(*[{"variety": 0.1}] * 5),
    "discriminator": _history(*[{"discriminator_loss": 1e-4}] * 5),
    "decline": _history(*[{"pixel_distance": value} for value in (0.1, 0.1, 0.1, 0.9, 0.9)]),
    "overflow": _history({"discriminator_loss": float("nan")}),
}


@pytest.mark.parametrize("name", sorted(SICK))
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_remedy_is_one_that_the_recipe_takes(recipe: str, name: str) -> None:
    short = resolve(recipe, {"batch_size": 100, "steps": 1_000 // RECIPES[recipe].discriminator_steps})
    found = diagnose(SICK[name], recipe=short)
    trouble = next(trouble for trouble in found if trouble.name == name)
    for advice in trouble.remedy.split(": ")[-1].split("; "):
        words = advice.replace(",", "").split()
        changes = dict(word.split("=") for before, word in itertools.pairwise(words) if before == "--set")
        steps = {"steps": words[words.index("--steps") + 1]} if "--steps" in words else {}
        assert changes or steps or "--keep best" in advice, advice
        resolve(recipe, {"batch_size": 100, **changes, **steps})  # raises, if it is refused

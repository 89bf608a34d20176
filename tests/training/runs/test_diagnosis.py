"""Diagnosis: failing trainings report each trouble once, and a good training reports none."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from digitforge_training.cli.train import train as train_command
from digitforge_training.data import Dataset
from digitforge_training.recipes import RECIPES, Recipe, resolve
from digitforge_training.runs.diagnosis import FEWEST_IMAGES, diagnose, image_statistics
from digitforge_training.runs.loop import Progress, train

FORGE = resolve("forge", {"steps": 1_000, "batch_size": 100})  # 100 000 images
SOUND = {"roughness": 1.1, "variety": 0.95, "coverage": 0.8, "pixel_distance": 0.05}


def _statistics(real: Dataset, generated: np.ndarray, *, by_class: bool = False) -> dict[str, float]:
    labels = real.labels if by_class else np.zeros(len(real), np.int64)
    return image_statistics(real=real.images, generated=generated, labels=labels)


# --- image_statistics


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
    # Images that are constant in each of the 7 × 7 cells, so averaging changes nothing.
    rng = np.random.default_rng(1)
    a, b = (
        np.clip(rng.normal(mean, 20, (4_000, 7, 7, 1)), 0, 255).astype(np.uint8).repeat(4, 1).repeat(4, 2)
        for mean in (100, 110)
    )
    found = image_statistics(real=a[:2_000], generated=b[:2_000], labels=np.zeros(2_000, np.int64))
    # N(100, 20²) and N(110, 20²) in each pixel: (10/20)² = 0.25, plus sampling noise.
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


# --- diagnose


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
        ({"pixel_distance": 6.0, "variety": 0.02, "coverage": 0.0}, "noise"),  # not collapse: these are not digits
        ({"variety": 0.2}, "collapse"),
        ({"coverage": 0.1, "variety": 0.8}, "collapse"),
    ],
)
def test_noise_and_collapse_are_seen_once_they_should_have_passed(sick: dict[str, float], name: str) -> None:
    history = _history(*[sick] * 5)
    assert [_names(history[: i + 1]) for i in range(5)] == [[], [], [name], [name], [name]]


def test_images_that_miss_the_real_ones_but_vary_as_much_have_not_collapsed() -> None:
    assert not _names(_history(*[{"coverage": 0.1, "variety": 1.1}] * 5))


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
    assert not _names(losses(*[-50.0] * 20), resolve("dense-bn", {"loss": "wasserstein"}))  # this loss has no zero


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
        resolve(recipe, {"batch_size": 100, **changes, **steps})  # raises if the advice is invalid


# --- real trainings


@pytest.fixture(scope="module")
def small_digits(digits: Dataset) -> Dataset:
    """The same digits at 16 × 16 pixels, which small networks learn in seconds."""
    pictures = [Image.fromarray(image[:, :, 0]).resize((16, 16), Image.Resampling.BOX) for image in digits.images]
    return dataclasses.replace(digits, images=np.stack([np.asarray(picture) for picture in pictures])[..., None])


#: Small dense networks without anything that keeps the two in balance.
FRAIL: dict[str, str | float] = {
    "generator_widths": "32,64",
    "discriminator_widths": "64,32",
    "latent_size": 16,
    "batch_size": 50,
    "steps": 400,
    "discriminator_dropout": 0,
    "jit": "false",
    "images_per_sheet": 4_000,
    "images_per_checkpoint": 4_000,
}


#: Dense networks with forge's losses and classes. They learn these digits in a few hundred steps.
QUICK: dict[str, str | float] = {
    "network": "dense",
    "generator_widths": "64,128",
    "discriminator_widths": "128,64",
    "latent_size": 32,
    "clusters": 1,
    "conditioning": "projection",
    "images_per_sheet": 4_000,
    "images_per_checkpoint": 1e9,
}


def _troubles(run_dir: Path) -> list[str]:
    lines = map(json.loads, (run_dir / "stats.jsonl").read_text().splitlines())
    return [name for line in lines for name in line.get("troubles", ())]


def _train(recipe: Recipe, dataset: Dataset, run_dir: Path) -> list[str]:
    """Train. Returns the reported troubles, which are also those in stats.jsonl."""
    reported: list[str] = []

    def note(progress: Progress) -> None:
        reported.extend(trouble.name for trouble in progress.troubles)

    train(recipe, dataset, run_dir=run_dir, on_progress=note)
    assert reported == _troubles(run_dir)
    return reported


def test_a_learning_rate_that_is_far_too_small_leaves_noise_and_the_command_says_so_once(
    small_digits: Dataset, tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", x=small_digits.images, y=small_digits.labels * 10)  # no labels 0 … 9
    fields = {**FRAIL, "learning_rate": 1e-9, "discriminator_learning_rate": 1e-3}
    command = [
        "--data",
        str(tmp_path / "mine.npz"),
        "--recipe",
        "mlp",
        "--out",
        str(tmp_path / "run"),
        *(f"--set={field}={value}" for field, value in fields.items()),
    ]
    said = CliRunner().invoke(train_command, command)
    assert said.exit_code == 0, said.output
    assert said.output.count("still noise") == 1
    assert "To fix it, change one thing at a time: --set learning_rate=0.0002" in said.output
    assert "noise" in _troubles(tmp_path / "run")
    assert "collapse" not in _troubles(tmp_path / "run")
    assert "still noise" not in CliRunner().invoke(train_command, command).output


def test_a_discriminator_that_learns_a_hundred_times_faster_wins_and_a_resumed_run_does_not_repeat_it(
    small_digits: Dataset, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.images_seen == 22_400:  # the newest checkpoint is at 20 000 images
            raise KilledError

    unequal: dict[str, str | float] = {
        "loss": "minimax",
        "learning_rate": 1e-4,
        "discriminator_learning_rate": 1e-2,
        "steps": 460,
    }
    recipe = resolve("mlp", {**FRAIL, **unequal})
    with pytest.raises(KilledError):
        train(recipe, small_digits, run_dir=tmp_path, on_progress=kill)
    assert _troubles(tmp_path).count("discriminator") == 1
    seen: list[Progress] = []
    train(recipe, small_digits, run_dir=tmp_path, on_progress=seen.append)
    assert seen[0].images_seen < 22_400
    assert not any(progress.troubles for progress in seen)
    assert _troubles(tmp_path).count("discriminator") == 1


def test_the_published_chain_collapses_to_few_modes(small_digits: Dataset, tmp_path: Path) -> None:
    changes: dict[str, str | float] = {
        "discriminator_steps": 1,
        "generator_steps": 1,
        "learning_rate": 3e-4,
        "steps": 400,
    }
    recipe = resolve("bp-gan", {**changes, "images_per_sheet": 10_000, "images_per_checkpoint": 1e9})
    assert _train(recipe, small_digits, tmp_path) == ["collapse"]


def test_rates_far_too_large_are_good_for_a_while_and_then_quality_falls_again(
    small_digits: Dataset, tmp_path: Path
) -> None:
    rates: dict[str, str | float] = {
        "learning_rate": 1e-2,
        "discriminator_learning_rate": 3e-2,
        "gamma": 0,
        "gamma_end": 0,
    }
    sheets: dict[str, str | float] = {"images_per_sheet": 2_500, "ema_images": 200, "schedule": "constant"}
    recipe = resolve(
        "forge", {**QUICK, **rates, **sheets, "batch_size": 100, "steps": 220, "conditioning": "auxiliary"}
    )
    assert "decline" in _train(recipe, small_digits, tmp_path)


def test_a_sound_training_has_no_trouble(small_digits: Dataset, tmp_path: Path) -> None:
    recipe = resolve("forge", {**QUICK, "learning_rate": 2e-3, "ema_images": 2_000, "steps": 350, "batch_size": 50})
    assert not _train(recipe, small_digits, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert lines[-1]["images"] == 17_500  # late enough for any trouble to be reported
    assert lines[-1]["coverage"] > 0.3

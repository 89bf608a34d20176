"""Expansion: the judge chooses the best factor, and the exported graph uses it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from digitforge_client.contract import Field, Signature, balanced_labels, row_seeds
from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset
from digitforge_training.export import saved_model as exporting
from digitforge_training.export.expansion import FACTORS, Expansion, choose
from digitforge_training.export.saved_model import choose_expansion, export, read_card, scale_of
from digitforge_training.gan.networks import build_generator
from digitforge_training.recipes import resolve
from digitforge_training.runs import judging, loop


@pytest.mark.parametrize("wanted", FACTORS)
def test_the_factor_with_the_lowest_value_is_chosen(wanted: float) -> None:
    labels = np.zeros(500, np.int64)

    def generate(factor: float) -> np.ndarray:  # brightness grows with the factor
        return np.full((500, 2, 2, 1), 100 * factor, np.uint8)

    def judge(images: np.ndarray, judged: np.ndarray) -> float:
        assert judged is labels
        return abs(float(images.mean()) - int(100 * wanted))

    expansion = choose(generate, labels=labels, judge=judge, name="brightness")
    assert (expansion.factor, expansion.judge) == (wanted, "brightness")
    assert [factor for factor, _ in expansion.values] == list(FACTORS)
    assert dict(expansion.values)[wanted] == min(value for _, value in expansion.values)


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf])
def test_a_factor_that_makes_no_latents_is_refused(factor: float) -> None:
    with pytest.raises(InvalidInputError, match="expected a number above 0"):
        Expansion(factor=factor)


def test_an_exported_generator_multiplies_its_latents(
    trained_run: Path, exported_model: Path, digits: Dataset, tmp_path: Path
) -> None:
    version = export(trained_run, digits, to=tmp_path, expansion=Expansion(factor=1.5, judge="ours"))
    plain, expanded = (tf.saved_model.load(str(path)).signatures for path in (exported_model / "1", version))
    assert read_card(version)["expansion"] == {"factor": 1.5, "judge": "ours"}
    assert read_card(version)["generator_id"] != read_card(exported_model / "1")["generator_id"]

    labels, seeds = tf.constant(balanced_labels(100, 10)), tf.constant(row_seeds(1, 100))
    latents, same = (signatures[Signature.LATENTS](seeds=seeds)[Field.LATENTS] for signatures in (plain, expanded))
    np.testing.assert_array_equal(latents, same)  # latents before the expansion, as the card says
    weights = tf.one_hot(labels, 10)
    wanted = plain[Signature.FROM_LATENTS](class_weights=weights, latents=1.5 * latents)[Field.IMAGES]
    from_latents = expanded[Signature.FROM_LATENTS](class_weights=weights, latents=latents)[Field.IMAGES]
    sampled = expanded[Signature.SAMPLE](labels=labels, seeds=seeds)[Field.IMAGES]
    for images in (from_latents, sampled):
        assert np.abs(images.numpy().astype(int) - wanted.numpy()).max() <= 1
    unexpanded = plain[Signature.SAMPLE](labels=labels, seeds=seeds)[Field.IMAGES]
    assert (sampled.numpy() != unexpanded.numpy()).any()


def test_clusters_stay_as_frequent_as_they_are(digits: Dataset) -> None:
    recipe = resolve("forge", {"network": "dense", "generator_widths": "16", "discriminator_widths": "16"})
    for clusters, first in ((1, 1.25), (3, 1.0)):
        generator = build_generator(
            dataclasses.replace(recipe, clusters=clusters), image_shape=(28, 28, 1), classes=10, seed=0
        )
        np.testing.assert_array_equal(scale_of(1.25, generator), [first] + 63 * [1.25])


@pytest.mark.parametrize(("held_out", "conditioning"), [(0, "both"), (40, "none")])
def test_the_judge_sees_what_was_held_out_or_else_training_images(
    held_out: int, conditioning: str, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    def factory(images: np.ndarray, labels: np.ndarray) -> judging.Judge:
        assert len(images) == len(labels) == (held_out or 60)
        seen.append(images)
        return lambda generated, _: float(abs(generated.mean() - images.mean()))

    monkeypatch.setattr(exporting, "find_judge", lambda name: factory)
    tiny = {"width": 8, "discriminator_blocks": 1, "batch_size": 8, "steps": 1, "clusters": 1}
    loop.train(resolve("forge", tiny | {"conditioning": conditioning}), digits, run_dir=tmp_path, held_out=held_out)
    assert choose_expansion(tmp_path, digits, judge="ours", n=60).judge == "ours"
    training, held = judging.hold_out(digits, held_out, seed=0)
    there = {image.tobytes() for image in (held if held_out else training).images}
    assert {image.tobytes() for image in seen[0]} <= there

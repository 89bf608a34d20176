"""Clusters: found in the data, drawn at their frequencies, and equal in training and export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from digitforge_client.contract import Field, Signature, balanced_labels, row_seeds
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import Dataset
from digitforge_training.export.saved_model import export, read_card
from digitforge_training.gan import clusters as clusters_module
from digitforge_training.gan.batches import Batches
from digitforge_training.gan.clusters import count_clusters, find_clusters, find_clusters_without_labels
from digitforge_training.gan.latents import latents_of, place_in_clusters
from digitforge_training.gan.networks.parts import Clusters
from digitforge_training.gan.trainer import Trainer
from digitforge_training.recipes import Recipe, resolve
from digitforge_training.runs import checkpoints
from digitforge_training.runs.loop import train

DISTRIBUTIONS = ("normal", "uniform")
#: Of the generator and the discriminator.
WIDTHS = {"dense": ("16", "16"), "residual": ("16,8", "8,16"), "convolutional": ("16,8,8", "8,8")}


def _tiny(**overrides: str | float) -> Recipe:
    dense: dict[str, str | float] = {
        "network": "dense",
        "generator_widths": "16",
        "discriminator_widths": "16",
        "batch_size": 32,
    }
    return resolve("forge", {**dense, "clusters": 3, "steps": 4, "images_per_checkpoint": 64, **overrides})


def test_a_rare_way_of_writing_is_a_cluster_of_its_own() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (300, 16, 16, 1), dtype=np.uint8)
    labels = np.arange(300) % 2
    rare = np.arange(300) // 2 % 25 == 0  # 6 of each class
    images[rare, 12:, 2:14] += 190  # they stand on a foot
    dataset = Dataset(name="feet", split="train", images=images, labels=labels, class_names=("a", "b"))
    clusters = find_clusters(dataset, 2, seed=0)
    for label in (0, 1):
        found, expected = clusters[labels == label], rare[labels == label]
        np.testing.assert_array_equal(found == found[expected][0], expected)
    np.testing.assert_array_equal(clusters, find_clusters(dataset, 2, seed=0))


def test_every_class_has_every_cluster(digits: Dataset) -> None:
    clusters = find_clusters(digits, 5, seed=1)
    counts = count_clusters(clusters, digits.labels, classes=10, per_class=5)
    assert counts.min() > 0
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(digits.labels))
    assert not find_clusters(digits, 1, seed=1).any()


def test_a_quarter_of_a_batch_shows_all_clusters_equally_often(digits: Dataset) -> None:
    recipe = dataclasses.replace(_tiny(), clusters=4)
    clusters = find_clusters(digits, 4, seed=0)
    plain = Batches(digits, dataclasses.replace(recipe, clusters=1), seed=0)
    batches = Batches(digits, recipe, seed=0)
    cluster_of = {
        image.tobytes(): 4 * k + c for image, k, c in zip(digits.images, digits.labels, clusters, strict=True)
    }
    seen = np.zeros(40, np.int64)
    usual = np.arange(32) % 4 != 0
    for step in range(400):
        images, weights = (part.numpy() for part in batches.real(tf.constant(step, tf.int64)))
        expected, classes = (part.numpy() for part in plain.real(tf.constant(step, tf.int64)))
        np.testing.assert_array_equal(images[usual], expected[usual])
        np.testing.assert_array_equal(weights.reshape(-1, 10, 4).sum(axis=2), classes)
        told = weights.argmax(axis=1)
        assert [cluster_of[image.tobytes()] for image in images] == told.tolist()
        seen += np.bincount(told[~usual], minlength=40)
    for of_class in seen.reshape(10, 4):
        assert stats.chisquare(of_class).pvalue > 1e-4


@pytest.mark.usefixtures("eagerly")
def test_a_class_with_fewer_images_has_fewer_clusters(digits: Dataset) -> None:
    few = digits.subset(np.concatenate([np.flatnonzero(digits.labels == k)[: 40 - 4 * k] for k in range(10)]))
    clusters = find_clusters(few, 6, seed=0)
    assert [len(set(clusters[few.labels == k])) for k in range(10)] == 9 * [6] + [4]
    assert clusters[few.labels == 9].max() == 3
    twice = few.subset(np.concatenate([np.arange(len(few)), np.repeat(np.flatnonzero(few.labels == 9), 30)]))
    assert (np.bincount(find_clusters(twice, 6, seed=0)[twice.labels == 9]) > 0).all()  # numbered without gaps
    trainer = Trainer(_tiny(clusters=6, batch_size=200), few, seed=0)
    assert all(np.isfinite(value) for value in trainer.run(5).values())
    ends = np.full((10, 64), np.inf, np.float32)
    ends[:, 1:] = 0
    layer = Clusters(1, 6, distribution="normal")
    layer.counts.assign([[1, 1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(layer(tf.ones((1, 1)), ends[:1]), [[0, 0, 0, 1, 0, 0]])


def test_clusters_need_a_discriminator_that_is_told_them() -> None:
    with pytest.raises(InvalidInputError, match="set conditioning to projection or both"):
        _tiny(conditioning="auxiliary")


COUNTS = hnp.arrays(np.int32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(1, 10_000))


@given(counts=COUNTS, distribution=st.sampled_from(DISTRIBUTIONS), seed=st.integers(0, 2**31))
def test_the_generator_finds_the_cluster_that_a_latent_was_placed_in(
    counts: np.ndarray, distribution: Literal["normal", "uniform"], seed: int
) -> None:
    classes, each = counts.shape
    layer = Clusters(classes, each, distribution=distribution)
    layer.counts.assign(counts)
    wanted = np.random.default_rng(seed).integers(classes * each, size=64)
    told = tf.one_hot(wanted, classes * each)
    latents = latents_of(tf.range(seed, seed + 64, dtype=tf.int64), 3, distribution)
    placed = place_in_clusters(latents, told, counts, distribution=distribution)
    np.testing.assert_array_equal(placed[:, 1:], latents[:, 1:])
    found = layer(tf.one_hot(wanted // each, classes), placed)
    np.testing.assert_array_equal(found, told)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_latents_of_frequent_clusters_follow_the_distribution(distribution: Literal["normal", "uniform"]) -> None:
    counts = np.array([[100, 700, 200]], np.int32)
    told = tf.one_hot(np.repeat(np.arange(3), 10 * counts[0]), 3)
    latents = latents_of(tf.range(10_000, dtype=tf.int64), 2, distribution)
    first = place_in_clusters(latents, told, counts, distribution=distribution).numpy()[:, 0]
    expected = stats.norm() if distribution == "normal" else stats.uniform(-1, 2)
    assert stats.kstest(first, expected.cdf).pvalue > 0.01
    # Conversely: latents of the distribution choose each cluster at its frequency.
    layer = Clusters(1, 3, distribution=distribution)
    layer.counts.assign(counts)
    shares = layer(tf.ones((10_000, 1)), latents).numpy().mean(axis=0)
    np.testing.assert_allclose(shares, counts[0] / 1000, atol=0.015)


def test_a_blend_of_classes_is_a_blend_of_one_cluster_of_each() -> None:
    layer = Clusters(2, 2, distribution="uniform")
    layer.counts.assign([[1, 3], [3, 1]])
    weights = layer(tf.constant([[0.25, 0.75]]), tf.constant([[0.0, 9.0]]))
    np.testing.assert_allclose(weights, [[0.0, 0.25, 0.75, 0.0]])


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("conditioning", ["projection", "both"])
@pytest.mark.parametrize("network", ["dense", "residual", "convolutional"])
def test_every_network_takes_clusters(network: str, conditioning: str, digits: Dataset) -> None:
    of_generator, of_discriminator = WIDTHS[network]
    widths: dict[str, str | float] = {"generator_widths": of_generator, "discriminator_widths": of_discriminator}
    trainer = Trainer(_tiny(network=network, conditioning=conditioning, batch_size=200, **widths), digits, seed=0)
    assert all(np.isfinite(value) for value in trainer.run(2).values())
    state = trainer.state()
    counts = count_clusters(find_clusters(digits, 3, seed=0), digits.labels, classes=10, per_class=3)
    # Counts of the generator and of the averaged one. No averaging may have changed them.
    assert sum(np.array_equal(value, counts) for value in state.values()) == 2


@pytest.mark.usefixtures("eagerly")
def test_an_export_draws_the_clusters_of_the_training(digits: Dataset, tmp_path: Path) -> None:
    train(_tiny(), digits, run_dir=tmp_path / "run")
    version = export(tmp_path / "run", digits, to=tmp_path / "models")
    trainer = Trainer(_tiny(), digits, seed=0)
    trainer.restore(checkpoints.load(checkpoints.newest(tmp_path / "run")))  # type: ignore[arg-type]
    labels, seeds = balanced_labels(50, 10), row_seeds(0, 50)
    served = tf.saved_model.load(str(version)).signatures[Signature.SAMPLE](
        **{Field.LABELS: tf.constant(labels), Field.SEEDS: tf.constant(seeds)}
    )
    here = trainer.sample(labels, latents_of(tf.constant(seeds), 64, "normal").numpy())
    assert np.abs(served[Field.IMAGES].numpy().astype(int) - here).max() <= 1


def test_a_checkpoint_with_other_clusters_is_refused(digits: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(_tiny(), digits, seed=0)
    state = trainer.state()
    counts = {name: value for name, value in state.items() if value.dtype == np.int32 and value.shape == (10, 3)}
    assert len(counts) == 2
    for name, value in counts.items():
        state[name] = value[:, ::-1]
    with pytest.raises(DataError, match="other clusters"):
        trainer.restore(state)


def test_one_cluster_is_the_training_without_any(digits: Dataset) -> None:
    plain = dataclasses.replace(_tiny(), clusters=1)
    state = Trainer(plain, digits, seed=0).state()
    assert not [name for name, value in state.items() if value.dtype == np.int32 and value.shape[1:]]


# --- without labels


def _unlabeled(**overrides: str | float) -> Recipe:
    return dataclasses.replace(_tiny(**overrides), unlabeled=True, clusters=12)


def test_clusters_without_labels_follow_the_classes(digits: Dataset) -> None:
    found = find_clusters_without_labels(digits.images, 40, seed=0)
    assert sorted(set(found)) == list(range(40))
    majority = sum(np.bincount(digits.labels[found == one]).max() for one in range(40))
    assert majority / len(digits) > 0.9
    np.testing.assert_array_equal(found, find_clusters_without_labels(digits.images, 40, seed=0))


def test_few_images_are_clusters_of_their_own(digits: Dataset) -> None:
    np.testing.assert_array_equal(find_clusters_without_labels(digits.images[:5], 12, seed=0), np.arange(5))
    assert len(set(find_clusters_without_labels(digits.images[:20], 12, seed=0))) == 12


def test_images_outside_the_graph_join_the_cluster_of_a_similar_image(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters_module, "_GRAPH_IMAGES", len(digits))
    twice = np.concatenate([digits.images, digits.images])
    found = find_clusters_without_labels(twice, 12, seed=0)
    assert np.mean(found[: len(digits)] == found[len(digits) :]) > 0.99  # rounding may change a nearest neighbor


@pytest.mark.usefixtures("eagerly")
def test_a_training_without_labels_is_the_same_with_any_labels(digits: Dataset) -> None:
    other = dataclasses.replace(digits, labels=digits.labels[::-1].copy())
    first, second = (Trainer(_unlabeled(), data, seed=0) for data in (digits, other))
    assert first.run(2) == second.run(2)
    for name, value in first.state().items():
        np.testing.assert_array_equal(value, second.state()[name])


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("network", "conditioning"), [("dense", "projection"), ("residual", "both"), ("convolutional", "both")]
)
def test_every_network_learns_from_clusters_alone(network: str, conditioning: str, digits: Dataset) -> None:
    of_generator, of_discriminator = WIDTHS[network]
    widths: dict[str, str | float] = {"generator_widths": of_generator, "discriminator_widths": of_discriminator}
    trainer = Trainer(_unlabeled(network=network, conditioning=conditioning, **widths), digits, seed=0)
    before = trainer.state()
    statistics = trainer.run(2)
    assert all(np.isfinite(value) for value in statistics.values())
    if conditioning == "both":
        assert statistics["class_loss_real"] > 1  # about ln 12, because the classifier separates clusters
    (embedding,) = (name for name, value in before.items() if name.startswith("generator/") and value.shape == (12, 32))
    assert not np.array_equal(before[embedding], trainer.state()[embedding])


@pytest.mark.usefixtures("eagerly")
def test_an_export_without_labels_takes_none_and_draws_the_clusters_at_their_frequencies(
    digits: Dataset, tmp_path: Path
) -> None:
    train(_unlabeled(), digits, run_dir=tmp_path / "run")
    version = export(tmp_path / "run", digits, to=tmp_path / "models")
    assert read_card(version)["class_names"] == []
    trainer = Trainer(_unlabeled(), digits, seed=0)
    trainer.restore(checkpoints.load(checkpoints.newest(tmp_path / "run")))  # type: ignore[arg-type]
    seeds = row_seeds(0, 2_000)
    latents = latents_of(tf.constant(seeds), 64, "normal")
    sample = tf.saved_model.load(str(version)).signatures[Signature.SAMPLE]
    images = sample(**{Field.SEEDS: tf.constant(seeds[:50])})[Field.IMAGES].numpy()
    here = trainer.sample(np.zeros(50, np.int64), latents.numpy()[:50])
    assert np.abs(images.astype(int) - here).max() <= 1
    layer = Clusters(1, 12, distribution="normal")
    counts = np.bincount(find_clusters_without_labels(digits.images, 12, seed=0))
    layer.counts.assign(counts[None])
    shares = layer(tf.ones((2_000, 1)), latents).numpy().mean(axis=0)
    np.testing.assert_allclose(shares, counts / len(digits), atol=0.04)


def test_a_recipe_without_labels_needs_clusters() -> None:
    with pytest.raises(InvalidInputError, match="set clusters to 64"):
        resolve("forge-unlabeled", {"clusters": 1})

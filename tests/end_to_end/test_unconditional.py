"""Tests of a generator without classes: its signatures have no labels and no class weights, and clients handle that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from digitforge_client import DigitClient
from digitforge_client.contract import Field, Signature, row_seeds
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_serving import EmbeddedServer
from digitforge_training.data import load
from digitforge_training.export.card import make_card
from digitforge_training.export.export import export
from digitforge_training.export.saved_model import ServedGenerator, publish
from digitforge_training.gan.latents import latents_of
from digitforge_training.gan.pixels import to_pixels
from digitforge_training.recipes import resolve
from digitforge_training.runs.folder import describe
from digitforge_training.runs.train import train

SIZE = 5


@pytest.fixture(scope="module")
def generator() -> keras.Model:
    latents = keras.Input((SIZE,))
    dense = keras.layers.Dense(784, kernel_initializer=keras.initializers.HeNormal(seed=1))
    return keras.Model(latents, keras.layers.Reshape((28, 28, 1))(dense(latents)))


@pytest.fixture(scope="module")
def base(generator: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = describe(resolve("forge", {"latent_size": SIZE, "latent_distribution": "uniform"}), load("digits"), seed=0)
    weights = generator.get_weights()
    card = {**make_card(run, weights=weights, images_seen=0, metrics={}), "class_names": []}
    folder = tmp_path_factory.mktemp("unconditional") / "digits"
    publish(ServedGenerator(generator, card, np.zeros(1, np.int64)), to=folder, card=card)
    return folder


def test_no_signature_takes_labels_or_class_weights(base: Path) -> None:
    signatures: Any = tf.saved_model.load(str(base / "1")).signatures
    inputs = {name: set(function.structured_input_signature[1]) for name, function in signatures.items()}
    assert inputs == {
        Signature.SAMPLE: {Field.SEEDS},
        Signature.PNG: {Field.SEEDS},
        Signature.LATENTS: {Field.SEEDS},
        Signature.FROM_LATENTS: {Field.LATENTS},
        Signature.CARD: {Field.ROWS},
        Signature.SEEN: {Field.HASHES},
    }


def test_the_client_samples_without_labels_and_refuses_a_requested_label(base: Path, generator: keras.Model) -> None:
    with EmbeddedServer(base) as target, DigitClient(target) as client:
        batch = client.sample(20, seed=2)
        assert (batch.labels == -1).all()
        expected = to_pixels(generator(latents_of(tf.constant(row_seeds(2, 20)), SIZE, "uniform"))).numpy()
        assert np.abs(batch.images.astype(int) - expected[..., 0].astype(int)).max() <= 1
        with pytest.raises(InvalidInputError, match="class"):
            client.sample(1, labels=3)


@pytest.mark.usefixtures("eagerly")
def test_pictures_without_labels_become_a_generator_that_is_served(tmp_path: Path) -> None:
    """The whole way: a folder of pictures without classes, `train`, `export`, a server, a client."""
    pictures = tmp_path / "scans"
    pictures.mkdir()
    for i, image in enumerate(load("digits").images[:60]):
        Image.fromarray(image[..., 0]).save(pictures / f"{i}.png")
    with pytest.raises(DataError, match=r"the images have no labels.*use the recipe forge-unlabeled"):
        train("forge", pictures, out=tmp_path / "run")
    small: dict[str, Any] = {"network": "dense", "generator_widths": (8,), "discriminator_widths": (8,)}
    train("forge-unlabeled", pictures, out=tmp_path / "run", steps=2, batch_size=8, clusters=6, **small)
    export(tmp_path / "run", to=tmp_path / "models")  # the run remembers where its pictures are
    with EmbeddedServer(tmp_path / "models") as target, DigitClient(target) as client:
        batch = client.sample(20, seed=2)
        assert (batch.labels == -1).all()
        assert batch.images.shape == (20, 28, 28)
        assert len(np.unique(batch.images.reshape(20, -1), axis=0)) == 20

"""The shipped feature network: its output, the input it accepts, and its accuracy."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.features import digitnet as network
from digitforge_evaluation.features import extract
from digitforge_evaluation.features.choice import features_called
from digitforge_evaluation.features.extract import CallableFeatures, Digitnet, digitnet
from digitforge_training.data import Dataset, load


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", split="test")


def test_digitnet_computes_64_features_and_ten_probabilities_of_each_image(digits: Dataset) -> None:
    measured = digitnet().measure(digits.images)

    assert measured.features.shape == (len(digits), 64)
    assert measured.features.dtype == np.float32
    assert measured.features.min() >= 0
    assert measured.probabilities is not None
    assert measured.probabilities.shape == (len(digits), 10)
    np.testing.assert_allclose(measured.probabilities.sum(axis=1), 1, atol=1e-5)


def test_an_image_has_the_same_features_in_any_batch(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = digitnet().features(digits.images[:100])
    monkeypatch.setattr(extract, "BATCH", 7)

    np.testing.assert_allclose(digitnet().features(digits.images[:100]), whole, atol=1e-4)


def test_no_images_give_empty_arrays() -> None:
    measured = digitnet().measure(np.empty((0, 28, 28, 1), np.uint8))

    assert measured.features.shape == (0, 64)
    assert measured.probabilities is not None
    assert measured.probabilities.shape == (0, 10)


def test_digitnet_recognizes_digits_of_another_data_set(digits: Dataset) -> None:
    right = digitnet().probabilities(digits.images).argmax(axis=1) == digits.labels

    assert right.mean() > 0.9


@pytest.mark.skipif("DIGITFORGE_DATA_DIR" not in os.environ, reason="needs MNIST: set DIGITFORGE_DATA_DIR")
def test_the_accuracy_on_the_test_images_is_the_recorded_one_and_at_least_99_4_percent() -> None:
    test = load("mnist", split="test")
    record = json.loads(extract.WEIGHTS.with_suffix(".json").read_text())

    right = digitnet().probabilities(test.images).argmax(axis=1) == test.labels

    assert right.mean() >= 0.994
    assert right.mean() == pytest.approx(record["test_accuracy"], abs=2e-4)  # rounding may change one or two images
    assert record["training_data"]["sha256"] == load("mnist").sha256


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 28, 28), np.uint8),
        np.zeros((3, 32, 32, 1), np.uint8),
        np.zeros((3, 28, 28, 3), np.uint8),
        np.zeros((3, 28, 28, 1), np.float32),
    ],
    ids=["no channels", "32 pixels", "color", "floats"],
)
def test_images_of_wrong_shape_or_dtype_are_refused(images: npt.NDArray[Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"takes uint8 \(n, 28, 28, 1\): resize the images, or"):
        digitnet().measure(images)


def test_the_error_about_damaged_or_wrong_weights_names_the_file(tmp_path: Path) -> None:
    truncated, foreign = tmp_path / "truncated.npz", tmp_path / "foreign.npz"
    truncated.write_bytes(extract.WEIGHTS.read_bytes()[:1000])
    np.savez(foreign, a=np.zeros(3))

    for path in (truncated, foreign, tmp_path / "missing.npz"):
        with pytest.raises(DataError, match=path.name):
            Digitnet(path)


def test_weights_survive_writing_and_reading(tmp_path: Path, digits: Dataset) -> None:
    model = network.build_network()
    network.save_weights(model, tmp_path / "w.npz")
    again = network.load_network(tmp_path / "w.npz")

    pixels = digits.images[:5].astype(np.float32) / 255
    np.testing.assert_array_equal(model(pixels)[0], again(pixels)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["w.npz"]


def test_training_reduces_the_loss(digits: Dataset) -> None:
    """Two passes over a thousand digits show that the training loop works."""
    train = load("digits")
    losses: list[float] = []

    model = network.build_network(0.3, seed=0)
    network.train_network(
        model,
        train.images,
        train.labels,
        network.DigitnetConfig(epochs=2, batch=32),
        lambda epoch, loss, accuracy: losses.append(loss),
    )

    assert losses[1] < losses[0] / 2
    assert network.accuracy(model, digits.images, digits.labels) > 0.7


def test_augmentation_moves_digits_a_little_and_never_mirrors_them() -> None:
    config = network.DigitnetConfig()
    rows = network.random_affine(np.random.default_rng(0), 1000, config)
    determinants = rows[:, 0] * rows[:, 4] - rows[:, 1] * rows[:, 3]
    center = np.array([13.5, 13.5, 1.0])
    moved = np.stack([rows[:, :3] @ center, rows[:, 3:6] @ center], axis=1) - 13.5

    assert (determinants > 0).all()  # a mirror image has a negative determinant
    assert np.abs(moved).max() <= config.shift + 1e-4
    assert 1 / 1.12**2 - 1e-4 <= determinants.min() < determinants.max() <= 1 / 0.88**2 + 1e-4


def test_any_function_can_compute_features(digits: Dataset) -> None:
    mine = CallableFeatures(name="pixels", function=lambda images: images.reshape(len(images), -1))

    measured = mine.measure(digits.images)

    assert measured.features.shape == (len(digits), 784)
    assert measured.probabilities is None


def test_a_function_that_does_not_return_a_row_per_image_is_refused(digits: Dataset) -> None:
    mine = CallableFeatures(name="mine", function=lambda images: images.mean())
    with pytest.raises(InvalidInputError, match="the features mine of"):
        mine.measure(digits.images)


def test_a_function_in_the_current_folder_is_found_by_its_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_features.py").write_text(
        "def corners(images):\n    return images[:, ::27, ::27, 0].reshape(len(images), 4)\n\nseven = 7\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    network = features_called("my_features:corners")

    assert network.name == "my_features:corners"
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28, 1)
    assert network.measure(images).features.tolist() == images[:, ::27, ::27, 0].reshape(2, 4).tolist()
    assert features_called("digitnet-64") is digitnet()
    for name, message in (
        ("my_features:none", "cannot import"),
        ("no_such_module:f", "cannot import"),
        ("my_features:seven", "are of type int; expected a function"),
        ("beauty", "unknown features 'beauty'; expected digitnet-64, own, pca, inception"),
        ("own", "made from real training images: give --data"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            features_called(name)

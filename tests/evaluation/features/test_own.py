"""Features made from the user's own images: a network, or principal components. Which are chosen, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features import own
from digitforge_evaluation.features.choice import digitnet_suits, features_called
from digitforge_evaluation.features.extract import Classifier, digitnet
from digitforge_evaluation.features.own import OwnConfig, PixelComponents, own_features, trained_network
from digitforge_training.data import Dataset, load

NAMES = ("bar", "frame", "spot")
#: A short training, for tests.
SHORT = OwnConfig(images=(1, 3_000), batch=32)


def shapes(each: int, *, side: int = 20, split: str = "train", seed: int = 0) -> Dataset:
    """Colored shapes of three classes at random places, with noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (3 * each, side, side, 3)).astype(np.uint8)
    labels = np.repeat(np.arange(3), each)
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(1, side - 11, 2)
        color = rng.integers(120, 255, 3)
        if label == 0:
            image[top + 4 : top + 7, left : left + 10] = color
        else:
            image[top : top + 10, left : left + 10] = color
        if label == 1:
            image[top + 3 : top + 7, left + 3 : left + 7] = 0
    return Dataset(images=images, labels=labels, class_names=NAMES, name="shapes", split=split)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIGITFORGE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def test_a_network_learns_the_users_classes_and_recognizes_new_images(cache: Path) -> None:
    test = shapes(40, split="test", seed=1)
    lines: list[str] = []

    network = trained_network(shapes(100), config=SHORT, progress=lines.append)

    assert network.class_names == NAMES
    measured = network.measure(test.images)
    assert measured.features.shape == (120, 64)
    assert measured.probabilities is not None
    assert (measured.probabilities.argmax(axis=1) == test.labels).mean() > 0.9
    assert lines[0] == "training the features on shapes"
    assert lines[-1].startswith("training the features on shapes: 100%, ")
    assert [path.stem for path in cache.iterdir()] == [network.name]
    assert "300 real training images of shapes" in network.about.made


def test_a_cached_network_is_loaded_and_a_damaged_one_is_trained_again(cache: Path) -> None:
    train = shapes(60)
    lines: list[str] = []

    first = trained_network(train, config=SHORT)
    again = trained_network(train, config=SHORT, progress=lines.append)
    assert (lines, again.name) == ([], first.name)
    np.testing.assert_array_equal(again.features(train.images[:9]), first.features(train.images[:9]))

    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    anew = trained_network(train, config=SHORT, progress=lines.append)
    assert lines
    np.testing.assert_allclose(anew.features(train.images), first.features(train.images), atol=1e-3)


def test_the_name_depends_on_the_images_and_the_seed() -> None:
    one_step = OwnConfig(images=(1, 32), batch=32)
    names = {
        trained_network(shapes(60), config=one_step).name,
        trained_network(shapes(60, seed=1), config=one_step).name,
        trained_network(shapes(60), config=OwnConfig(images=(1, 32), batch=32, seed=1)).name,
    }
    assert len(names) == 3


@pytest.mark.parametrize("side", [16, 33, 64])
def test_a_network_takes_images_of_every_size(side: int) -> None:
    train = shapes(20, side=side)

    network = trained_network(train, config=OwnConfig(images=(1, 64), batch=32))

    assert network.measure(train.images).features.shape == (60, 64)
    with pytest.raises(InvalidInputError, match=rf"takes uint8 \(n, {side}, {side}, 3\)"):
        network.measure(train.images[:, 1:])


def test_few_images_per_class_get_principal_components_of_their_pixels() -> None:
    few = shapes(49)

    network = own_features(few)

    assert isinstance(network, PixelComponents)
    assert network.name.startswith("pca14-")
    assert "A network needs 50 training images per class" in network.about.made
    measured = network.measure(few.images)
    assert (measured.features.shape, measured.probabilities) == ((147, 15), None)
    assert measured.features[:, :14].var(axis=0, ddof=1).mean() == pytest.approx(1, rel=1e-3)
    pixels = few.images.reshape(147, -1).astype(np.float64) / 255
    between = [np.linalg.norm(points[0] - points[1:], axis=1) for points in (measured.features, pixels)]
    assert np.corrcoef(*between)[0, 1] > 0.5


def test_noise_that_the_components_leave_out_is_seen() -> None:
    rng = np.random.default_rng(0)
    flat = np.clip(rng.integers(60, 190, (40, 1, 1, 1)) + rng.normal(0, 2, (40, 16, 16, 1)), 0, 255)
    squares = 30 * (-1) ** (np.indices((16, 16)).sum(axis=0))[..., np.newaxis]
    real, made = flat.astype(np.uint8), (flat + squares).astype(np.uint8)
    train = Dataset(images=real, labels=np.arange(40) % 2, class_names=("a", "b"), name="flat", split="train")

    clean, dirty = (PixelComponents(train).measure(images).features for images in (real, made))

    assert np.abs(dirty[:, 0] - clean[:, 0]).max() < 0.1  # the first component is the brightness
    assert dirty[:, -1].min() > 2 * clean[:, -1].max()


def test_images_that_are_all_the_same_have_no_components() -> None:
    with pytest.raises(InvalidInputError, match="all 6 training images of shapes are the same"):
        PixelComponents(shapes(2).subset([0] * 6))


def test_digitnet_is_chosen_for_digits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load("digits")
    shuffled = np.random.default_rng(0).permutation(digits.labels)
    clothes = Dataset(images=digits.images, labels=shuffled, class_names=digits.class_names, name="x", split="train")
    monkeypatch.setattr(own, "OwnConfig", lambda: OwnConfig(images=(1, 128)))

    assert features_called(train=digits) is digitnet()
    assert features_called() is digitnet()
    assert not digitnet_suits(clothes)  # 28×28, gray, and classes 0 to 9, as Fashion-MNIST has
    assert isinstance(features_called(train=clothes), Classifier)
    assert features_called(train=clothes).name.startswith("own-")
    assert features_called("pca", train=digits).name.startswith("pca64-")
    assert not digitnet_suits(shapes(60))

"""Adapters deliver complete epochs of fresh digits in the form that each library expects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from digitforge_client import DigitClient, InvalidInputError, ServerUnavailableError
from digitforge_client.adapters.mixing import MixedBatches
from digitforge_client.testing import FakeTransport


@pytest.fixture
def client() -> DigitClient:
    return DigitClient(transports=[FakeTransport()])


REAL = DigitClient(transports=[FakeTransport(generator_id="0" * 16)]).sample(50, seed=1)  # digits of another generator
X, Y = REAL.images, REAL.labels


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_an_epoch_has_every_real_image_once_and_fresh_digits(client: DigitClient) -> None:
    batches = MixedBatches(client, X, Y, batch_size=20, synthetic=0.5, seed=3)
    assert (batches.real_per_batch, batches.synthetic_per_batch, len(batches)) == (10, 10, 5)
    synthetic: list[set[bytes]] = []
    for epoch in range(3):
        assert batches.epoch == epoch
        parts = list(batches)
        assert [len(labels) for _, labels in parts] == [20] * 5
        images = np.concatenate([images for images, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        assert rows(X) <= rows(images)
        synthetic.append(rows(images) - rows(X))
        assert len(synthetic[-1]) == 50
        for image, label in zip(images, labels, strict=True):  # each image has kept its label
            real = np.flatnonzero((image == X).all(axis=(1, 2)))
            assert not len(real) or Y[real[0]] == label
    assert len(set.union(*synthetic)) == 150
    again = np.concatenate([images for images, _ in MixedBatches(client, X, Y, batch_size=20, synthetic=0.5, seed=3)])
    assert rows(again) == rows(X) | synthetic[0]


def test_synthetic_digits_have_the_label_and_the_form_of_the_real_ones() -> None:
    names = ("cat", "dog", "owl")
    client = DigitClient(transports=[FakeTransport(class_names=names, image_shape=(4, 3, 1))])
    real = np.full((6, 12), -1.0, dtype=np.float32)
    batches = MixedBatches(client, real, ["cat"] * 6, batch_size=9, synthetic=2 / 3, pixel_range=(-1, 1), seed=2)
    images, labels = batches.batch(0, 0)
    assert images.shape == (9, 12)
    assert images.dtype == np.float32
    assert labels.tolist().count("cat") == 3 + 2
    assert labels.tolist().count("owl") == 2
    expected = client.sample(6, seed=2).images.reshape(6, 12) / 255 * 2 - 1
    fresh = images[(images != -1).any(axis=1)]
    assert np.abs(np.sort(fresh, axis=0) - np.sort(expected, axis=0)).max() < 1e-6


def test_a_share_of_0_or_1_is_possible_and_one_image_stays_real(client: DigitClient) -> None:
    only_real = MixedBatches(client, X, Y, batch_size=25, synthetic=0)
    assert rows(np.concatenate([images for images, _ in only_real])) == rows(X)
    assert MixedBatches(client, X, Y, batch_size=25, synthetic=1).real_per_batch == 1


def test_mixed_digits_can_be_expanded(client: DigitClient) -> None:
    batches = list(MixedBatches(client, X, Y, batch_size=25, synthetic=0.5, expansion=1.3))
    digits = client.sample(12, seed=0, expansion=1.3).images
    assert rows(digits) <= rows(batches[0][0])
    assert not rows(digits) <= rows(next(iter(MixedBatches(client, X, Y, batch_size=25, synthetic=0.5)))[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0, "synthetic": 0.5}, "batch_size"),
        ({"batch_size": 8, "synthetic": 1.5}, "synthetic"),
        ({"batch_size": 8, "synthetic": 0.5, "seed": -1}, "seed"),
        ({"batch_size": 8, "synthetic": 0.5, "expansion": 0}, "expansion"),
        ({"batch_size": 8, "synthetic": 0.5, "pixel_range": (0, 1)}, "pixel_range"),
    ],
)
def test_invalid_options_are_rejected(client: DigitClient, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        MixedBatches(client, X, Y, **options)
    with pytest.raises(InvalidInputError, match="labels"):
        MixedBatches(client, X, Y[1:], batch_size=8, synthetic=0.5)
    late = MixedBatches(client, X, Y, batch_size=8, synthetic=0.5, epoch=2**31)
    with pytest.raises(InvalidInputError, match="another seed"):
        next(iter(late))


def test_keras_trains_on_mixed_batches(client: DigitClient) -> None:
    keras = pytest.importorskip("keras")
    from digitforge_client.adapters.keras import MixedDataset

    batches = MixedBatches(client, X / 255.0, Y, batch_size=20, synthetic=0.5, pixel_range=(0, 1))
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss)
    handed_out: list[tuple[int, int]] = []

    class Recording(MixedDataset):
        def __getitem__(self, number: int) -> Any:
            handed_out.append((batches.epoch, number))
            return super().__getitem__(number)

    losses = model.fit(Recording(batches), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    whole = [epoch for epoch in range(batches.epoch + 1) if {(epoch, number) for number in range(5)} <= set(handed_out)]
    assert len(whole) == 3  # fresh digits in each epoch; Keras also reads a batch or two before the first epoch


def test_each_pass_of_a_tensorflow_dataset_is_the_stream(client: DigitClient) -> None:
    pytest.importorskip("tensorflow")
    from digitforge_client.adapters.tensorflow import dataset

    whole = client.sample(250, seed=5)
    digits = dataset(client, 250, batch_size=100, seed=5)
    for _ in range(2):
        parts = list(digits.as_numpy_iterator())
        assert [images.shape for images, _ in parts] == [(100, 28, 28, 1), (100, 28, 28, 1), (50, 28, 28, 1)]
        np.testing.assert_array_equal(np.concatenate([images for images, _ in parts])[..., 0], whole.images)
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), whole.labels)
    drawn = dataset(client, 10, batch_size=10)
    one, other = (next(drawn.as_numpy_iterator())[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    wider = next(dataset(client, 10, batch_size=10, seed=5, expansion=1.3).as_numpy_iterator())[0]
    np.testing.assert_array_equal(wider[..., 0], client.sample(10, seed=5, expansion=1.3).images)
    sevens = dataset(client, 10, batch_size=10, labels=7)
    assert next(sevens.as_numpy_iterator())[1].tolist() == [7] * 10


def test_the_error_of_a_tensorflow_dataset_gives_the_reason() -> None:
    tensorflow = pytest.importorskip("tensorflow")
    from digitforge_client.adapters.tensorflow import dataset

    fake = FakeTransport()
    digits = dataset(DigitClient(transports=[fake]), 10, batch_size=10)
    from digitforge_client import RequestRejectedError

    fake.failures.append(RequestRejectedError("the reason"))
    with pytest.raises(tensorflow.errors.OpError, match="the reason"):
        list(digits)
    with pytest.raises(ServerUnavailableError):
        dataset(DigitClient("127.0.0.1:1"), 10, batch_size=10)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_pytorch_workers_share_an_epoch(server: Any, formula: Any, workers: int) -> None:
    pytest.importorskip("torch")
    from torch.utils.data import DataLoader

    from digitforge_client.adapters.torch import SyntheticDigits

    with DigitClient(server.target) as client:
        client.card()  # the parent connects before the workers are forked
        digits = SyntheticDigits(client, 500, batch_size=64, seed=2)
        loader = DataLoader(digits, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
        for epoch in range(2):
            digits.set_epoch(epoch)
            batches = list(loader)
            assert all(images.shape[1:] == (1, 28, 28) for images, _ in batches)
            seen = np.concatenate([images.numpy()[:, 0] for images, _ in batches])
            labels = np.concatenate([labels.numpy() for _, labels in batches])
            expected = client.sample(500, seed=2, start=500 * epoch)
            assert len(seen) == 500
            assert rows(seen) == rows(expected.images)
            assert np.bincount(labels).tolist() == [50] * 10


def test_pytorch_gets_the_requested_labels(client: DigitClient) -> None:
    torch = pytest.importorskip("torch")
    from digitforge_client.adapters.torch import SyntheticDigits

    wanted = [3, 1, 4, 1, 5, 9]
    (images, labels), *_ = SyntheticDigits(client, 6, labels=wanted, seed=0)
    assert (images.dtype, labels.tolist()) == (torch.uint8, wanted)
    assert [label for _, labels in SyntheticDigits(client, 4, labels="7", batch_size=3) for label in labels] == [7] * 4
    ((images, _),) = SyntheticDigits(client, 5, seed=0, expansion=1.3)
    np.testing.assert_array_equal(images[:, 0], client.sample(5, seed=0, expansion=1.3).images)
    colors = DigitClient(transports=[FakeTransport(image_shape=(6, 5, 3))])
    assert next(iter(SyntheticDigits(colors, 2)))[0].shape == (2, 3, 6, 5)
    for wrong in ({"n": -1}, {"n": 3, "batch_size": 0}, {"n": 3, "labels": [1]}):
        with pytest.raises(InvalidInputError):
            SyntheticDigits(client, **wrong)
